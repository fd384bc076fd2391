"""A folder of versions of one build: OUT/00001, OUT/00002, ..., the newest finished one linked as OUT/latest.

A version that was stopped is gone on with before a new one is begun. Old versions go once a newer one is finished.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from flows.build import build_dataset
from flows.engine import Engine
from flows.folder import is_of_recipe, locked_file
from flows.recipes import BuildRecipe
from pipeline.datasets.manifest import MANIFEST_NAME
from pipeline.scene.errors import InputError

LATEST = "latest"


def build_version(
    recipe: BuildRecipe,
    out: Path,
    keep: int = 3,
    new_seed: bool = True,
    engine: Engine = "none",
    workers: int = 1,
    quiet: bool = True,
) -> Path:
    """Build the next version of a recipe in `out`, link it as `latest`, keep the last `keep`; the version's folder.

    new_seed: version n has the recipe's seed plus n, so that versions differ; else all have the same bytes.
    Raises InputError (another run at work there), JobError.
    """
    out = Path(out)
    if keep < 1:
        raise InputError("keep", "at least 1 version", str(keep))
    with locked_file(out / ".lock"):
        number, version_recipe = _next(recipe, out, new_seed)
        folder = out / f"{number:05d}"
        build_dataset(version_recipe, folder, engine, workers, quiet)
        _link(out, folder.name)
        _prune(out, keep)
    return folder


def versions(out: Path) -> list[int]:
    """The numbers of finished versions, oldest first."""
    return [number for number in _numbers(out) if (Path(out) / f"{number:05d}" / MANIFEST_NAME).is_file()]


def _numbers(out: Path) -> list[int]:
    return sorted(int(path.name) for path in Path(out).glob("[0-9]" * 5) if path.is_dir())


def _next(recipe: BuildRecipe, out: Path, new_seed: bool) -> tuple[int, BuildRecipe]:
    """The version that was stopped, if it is of this recipe, else a new one."""

    def of(number: int) -> BuildRecipe:
        return recipe.model_copy(update={"seed": recipe.seed + number}) if new_seed else recipe

    last = max(_numbers(out), default=0)
    folder = out / f"{last:05d}"
    if last and not (folder / MANIFEST_NAME).is_file() and is_of_recipe(folder, of(last)):
        return last, of(last)
    return last + 1, of(last + 1)


def _link(out: Path, name: str) -> None:
    """Point `latest` at a version, in one step."""
    temporary = out / f".{LATEST}.part"
    temporary.unlink(missing_ok=True)
    os.symlink(name, temporary)
    os.replace(temporary, out / LATEST)


def _prune(out: Path, keep: int) -> None:
    """Remove what is older than the last `keep` finished versions; a folder being removed is no version any more."""
    oldest = versions(out)[-keep:][0]
    for number in _numbers(out):
        if number < oldest:
            os.replace(out / f"{number:05d}", out / f".{number:05d}.old")
    for folder in out.glob(".*.old"):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
