"""`occfactory export`: a finished build in another form, whole shards at a time, with a card and its own manifest."""

from __future__ import annotations

import functools
import importlib.util
import json
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flows.engine import Engine, run_plan
from flows.export_card import card_of
from flows.export_formats import WRITERS, Build, Shard, build_of
from flows.export_splits import ExportPlace, places, shards_of
from flows.inspect import verify_dataset
from flows.progress import PlanProgress
from flows.recipes import Config, validated
from flows.shards import WORK, Plan, Stage, read_record
from pipeline.datasets.dataset_card import write_card
from pipeline.datasets.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    SampleRecord,
    read_manifest,
    record_files,
    write_manifest,
)
from pipeline.datasets.semantic_kitti import open_root
from pipeline.scene.errors import InputError
from pipeline.scene.files import sha256_file, write_atomic, write_json

Target = Literal["semantickitti", "webdataset", "parquet", "occ3d"]


class ExportRecipe(Config):
    """One export of one build."""

    root: Path = Field(exclude=True)  # the build's folder; not part of the digest
    to: Target
    build: dict[str, Any]  # the build's whole recipe
    build_digest: str  # SHA-256 of its manifest
    val_share: float = Field(0.0, ge=0, lt=1)  # of the scenes; with test_share 0 too: the build's own splits
    test_share: float = Field(0.0, ge=0, lt=1)  # of the scenes
    split_seed: int = Field(0, ge=0)  # of the lots
    shard_samples: int = Field(50, ge=1, le=100_000)  # samples a shard, at most
    licence: str = Field(min_length=1, max_length=200)  # of the exported data
    published: date | None = None  # for its metadata; None: not said
    packages: dict[str, str] = Field(default_factory=dict)  # versions of those that shape the target's bytes
    threads: int = Field(1, ge=1)  # threads a worker


def export_recipe(root: Path, to: str, **fields: Any) -> ExportRecipe:
    """The recipe of an export of the build in `root`. Raises InputError: no finished build, an unknown field."""
    root = Path(root)
    manifest = read_manifest(root)
    if "source" not in manifest.recipe:
        raise InputError(root, "a finished build", "an export of one", "export the build itself")
    town = manifest.recipe["source"].get("kind") == "town"
    found = {"root": root, "to": to, "build": manifest.recipe, "build_digest": sha256_file(root / MANIFEST_NAME)}
    found["licence"] = "apache-2.0" if town else "other"
    if to in WRITERS:
        found["packages"] = packages_of(to)
    return validated(ExportRecipe, found | {name: value for name, value in fields.items() if value is not None})


def packages_of(to: str) -> dict[str, str]:
    """Versions of the packages that a target needs beyond the core's. Raises InputError where one isn't installed."""
    needed = WRITERS[to].packages
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "pip install 'occfactory[exports]'"
        raise InputError(f"--to {to}", f"the packages {' and '.join(needed)}", f"no {missing[0]}", remedy)
    return {name: version(name) for name in needed}


def export_dataset(
    recipe: ExportRecipe, out: Path, engine: Engine = "none", workers: int = 1, quiet: bool = True
) -> Path:
    """Write, or go on writing, an export; its manifest's path. The build is verified first.

    The bytes depend on the recipe alone. Raises InputError, JobError.
    """
    out = Path(out)
    _refuse_inside(recipe.root, out)
    faults = verify_dataset(recipe.root)
    if faults:
        path, fault = faults[0]
        more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
        remedy = "mend it with `occfactory build`"
        raise InputError(recipe.root / path, "a file as the manifest lists it", f"{fault}{more}", remedy)
    shards = export_shards(recipe)
    plan = Plan("export", (Stage(recipe.to, 1, export_stage, keep=True),), recipe, out, len(shards))
    with PlanProgress(plan, quiet) as progress:
        run_plan(plan, engine, workers, progress, finish=lambda: _finish(plan, recipe))
    progress.report(f"{out}: {sum(len(shard.places) for shard in shards)} samples as {recipe.to}")
    return out / MANIFEST_NAME


def _refuse_inside(root: Path, out: Path) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(out, "a folder outside the build", f"one in {root}", "choose another --out")


@functools.lru_cache(maxsize=2)
def _opened(root: Path, digest: str) -> tuple[Build, Manifest]:
    """The build, enumerated once a process; digest tells one state of a folder from the next."""
    manifest = read_manifest(root)
    return build_of(open_root(root), manifest.files), manifest


def export_shards(recipe: ExportRecipe) -> list[Shard]:
    """Every shard of the export, split by split. Raises InputError."""
    build, manifest = _opened(recipe.root, recipe.build_digest)
    shares = (recipe.val_share, recipe.test_share)
    found = places(manifest.samples, build.root.splits, shares, recipe.split_seed)
    known = WRITERS[recipe.to].splits
    strange = [place.split for place in found if known and place.split not in known]
    if strange:
        raise InputError(f"--to {recipe.to}", f"splits {' and '.join(known)} alone", f"{strange[0]}")
    return [Shard(build, *shard) for shard in shards_of(found, recipe.shard_samples)]


def export_stage(recipe: ExportRecipe, out: Path, shard: int) -> list[str]:
    """Write one shard, and its samples' notes in work."""
    members = export_shards(recipe)[shard]
    notes: list[dict[str, Any]] = []
    written = WRITERS[recipe.to].write(out, members, notes.append)
    written.append(_notes_path(shard))
    write_json(out / written[-1], notes)
    return written


def _notes_path(shard: int) -> str:
    return f"{WORK}/notes/{shard:05d}.json"


def _finish(plan: Plan, recipe: ExportRecipe) -> None:
    """What belongs to the whole: root files, samples.jsonl, the card, and last the manifest."""
    shards = export_shards(recipe)
    records = [record for shard in range(plan.shards) for record in _shard_files(plan, shard)]
    files = [record.path for record in records]
    notes = [note for shard in range(plan.shards) for note in json.loads((plan.out / _notes_path(shard)).read_text())]
    write_atomic(plan.out / "samples.jsonl", "".join(json.dumps(note, sort_keys=True) + "\n" for note in notes))
    files += ["samples.jsonl", *WRITERS[recipe.to].finish(plan.out, shards)]
    card = card_of(recipe, shards, notes, _split_bytes(shards, plan))
    files += write_card(plan.out, card)
    files += WRITERS[recipe.to].describe(plan.out, card, records)
    _, build = _opened(recipe.root, recipe.build_digest)
    core = {name: version(name) for name in ("occfactory", "numpy")}
    manifest = Manifest(
        recipe=recipe.model_dump(mode="json"),
        recipe_digest=recipe.digest(),
        build_seed=build.build_seed,
        inputs={**build.inputs, "build": recipe.build_digest},
        versions={"python": platform.python_version(), **core, **recipe.packages},
        samples=tuple(_record(place, k) for k, shard in enumerate(shards) for place in shard.places),
        files=record_files(plan.out, files),
    )
    write_manifest(plan.out, manifest)


def _record(place: ExportPlace, shard: int) -> SampleRecord:
    note = {**place.provenance, "export_split": place.split, "export_scene": place.scene}
    return SampleRecord(name=place.name, shard=shard, provenance=note)


def _split_bytes(shards: Sequence[Shard], plan: Plan) -> dict[str, int]:
    """Bytes of the files that the shards of each split wrote."""
    sizes: dict[str, int] = {}
    for number, shard in enumerate(shards):
        written = sum(record.bytes for record in _shard_files(plan, number))
        sizes[shard.split] = sizes.get(shard.split, 0) + written
    return sizes


def _shard_files(plan: Plan, shard: int) -> list[FileRecord]:
    """The files of a finished shard but for its notes."""
    return [record for record in read_record(plan, 0, shard) or () if not record.path.startswith(f"{WORK}/")]
