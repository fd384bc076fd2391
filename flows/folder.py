"""An output folder's bookkeeping: who writes into it, which recipe it is for, and what goes when the recipe changes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.shards import WORK, Plan, Recipe, identity
from pipeline.datasets.checked_files import read_json
from pipeline.datasets.manifest import MANIFEST_NAME
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_atomic, write_json

PLAN_NAME = "plan.json"  # in a folder's WORK: what it is for
FORMER_NAME = "former_manifest.json"  # there too: of the recipe before, while its files are being removed
FINISHING_NAME = "finishing"  # there too: while files are written that no record lists
REPORT = "report"  # in the folder itself, and in no manifest


@contextlib.contextmanager
def locked(out: Path, part: str = "") -> Iterator[None]:
    """Hold the output folder; a second build into it is refused. part: hold it with others, who hold other parts."""
    work = Path(out) / WORK
    own = locked_file(work / f"lock-{part}", out) if part else contextlib.nullcontext()
    with locked_file(work / "lock", out, shared=bool(part)), own:
        yield


@contextlib.contextmanager
def locked_file(path: Path, out: Path | None = None, shared: bool = False) -> Iterator[None]:
    """Hold a lock file of the folder `out` (default: the file's own). Raises InputError if another process holds it."""
    out = out or path.parent
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a")  # noqa: SIM115 - held open: the lock ends with the process
    except OSError as error:
        raise InputError(out, "a folder that can be written", str(error)) from None
    with handle:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            raise InputError(out, "a folder no other run is writing to", "one at work", "wait for it") from None
        yield


def is_of_recipe(out: Path, recipe: Recipe) -> bool:
    """Whether a folder's run, finished or not, is of this recipe."""
    try:
        return bool(json.loads((Path(out) / WORK / PLAN_NAME).read_text())["recipe_digest"] == recipe.digest())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def pin_recipe(plan: Plan, changed: bool = False) -> None:
    """A folder belongs to one recipe: a new one is pinned, a different one refused unless it is said to be changed.

    changed: what the new recipe would make otherwise is removed, the rest stays. Raises InputError.
    """
    path = plan.out / WORK / PLAN_NAME
    table = plan.recipe.model_dump(mode="json")
    pinned = {"plan": plan.name, "recipe_digest": plan.recipe.digest(), "recipe": table}
    if not path.exists():
        others = [entry.name for entry in plan.out.iterdir() if entry.name != WORK]
        if others and not path.exists():  # a build of other shards may just have begun
            raise InputError(plan.out, "a new or empty folder", f"{others[0]} there", "choose another --out")
        write_json(path, pinned)
        return
    found = read_json(path, "what this folder is for")
    if not isinstance(found, dict) or found.get("plan") != plan.name:
        raise InputError(plan.out, f"a folder of `{plan.name}`", str(found)[:80], "choose another --out")
    if found.get("recipe_digest") == pinned["recipe_digest"]:
        return
    if not changed:
        raise InputError(plan.out, f"a {plan.name} of this recipe", _difference(found, table), _remedy(plan))
    remove_stale(plan)
    write_json(path, pinned)


def _difference(found: dict[str, Any], table: dict[str, Any]) -> str:
    before = found.get("recipe")
    if not isinstance(before, dict):
        return f"one of {str(found.get('recipe_digest'))[:12]}"
    old, new = dict(_leaves(before)), dict(_leaves(table))
    fields = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return f"one with another {', '.join(fields[:6])}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, inner in value.items():
        yield from _leaves(inner, f"{path}.{name}" if path else name)


def _remedy(plan: Plan) -> str:
    if all(stage.reads is None for stage in plan.stages):
        return "choose another --out"
    return "choose another --out, or --changed to make anew what the change touches"


def remove_stale(plan: Plan) -> None:
    """Remove the files of jobs that aren't the plan's, and of what was written about the whole; the manifest first."""
    work = plan.out / WORK
    with contextlib.suppress(FileNotFoundError):
        os.replace(plan.out / MANIFEST_NAME, work / FORMER_NAME)
    shutil.rmtree(plan.out / REPORT, ignore_errors=True)
    valid, stale = _records(plan)
    kept = {path for record in valid for path in _listed(record, plan.out)}
    for record in [*stale, work / FORMER_NAME]:
        for path in _listed(record, plan.out) - kept:
            path.unlink(missing_ok=True)
    if (work / FINISHING_NAME).exists():  # a kill amid the last step: what it wrote is on no list
        for path in files_outside_work(plan.out):
            if path not in kept:
                path.unlink()
        (work / FINISHING_NAME).unlink()
    for record in [*stale, work / FORMER_NAME]:  # last, so that a kill until here is made good by the next run
        record.unlink(missing_ok=True)
    _remove_empty_folders(plan.out)


def _records(plan: Plan) -> tuple[list[Path], list[Path]]:
    """The folder's records that are the plan's, and those that aren't."""
    valid: list[Path] = []
    stale: list[Path] = []
    index_of = {stage.name: index for index, stage in enumerate(plan.stages)}
    for path in sorted((plan.out / WORK / "records").glob("*/*.json")):
        index, shard = index_of.get(path.parent.name), int(path.stem) if path.stem.isdecimal() else plan.shards
        ours = index is not None and shard < plan.shards and _identity_in(path) == identity(plan, index, shard)
        (valid if ours else stale).append(path)
    return valid, stale


def _identity_in(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text())["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _listed(path: Path, out: Path) -> set[Path]:
    """The files that a record or manifest lists and that lie under `out`."""
    found = set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for row in json.loads(path.read_text())["files"]:
            with contextlib.suppress(InputError):
                found.add(safe_join(out, row["path"]))
    return found


def files_outside_work(out: Path) -> list[Path]:
    return [
        path
        for path in out.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(out).parts[0] != WORK
    ]


def _remove_empty_folders(out: Path) -> None:
    for folder, _, _ in os.walk(out, topdown=False):
        if Path(folder) != out and Path(folder).relative_to(out).parts[0] != WORK:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)


@contextlib.contextmanager
def finishing(out: Path) -> Iterator[None]:
    """Mark that files about the whole are being written, until they are."""
    write_atomic(out / WORK / FINISHING_NAME, "")
    yield
    (out / WORK / FINISHING_NAME).unlink()


def sweep(out: Path) -> None:
    """Remove what a killed run left unfinished: temporary files that were never renamed."""
    for path in out.rglob(".*.part"):
        path.unlink(missing_ok=True)


def remove_build(out: Path, finished: bool = False) -> int:
    """Remove a build's folder, and nothing else; how many files it had. finished: also one that has its manifest.

    Raises InputError: not a folder of ours, a build at work in it, a finished one.
    """
    out = Path(out)
    if out.is_symlink() or not (out / WORK / PLAN_NAME).is_file():
        raise InputError(out, f"a build's folder, with {WORK}/{PLAN_NAME}", "something else", "remove it yourself")
    if (out / MANIFEST_NAME).exists() and not finished:
        raise InputError(out, "an unfinished build", "a finished one", "--finished removes it too")
    with locked(out):
        files = files_outside_work(out)
        (out / MANIFEST_NAME).unlink(missing_ok=True)
        for entry in out.iterdir():
            if entry.name != WORK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(out / WORK)  # last: until then the folder is known as ours
        out.rmdir()
    return len(files)
