"""`occfactory convert`: a dataset's scenes in another format's files, classes by a table that names what is lost."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.engine import Engine, run_plan
from flows.progress import PlanProgress
from flows.recipes import ConvertRecipe
from flows.shards import Plan, Stage
from pipeline.datasets.convert import convert_scene, load_conversion
from pipeline.datasets.formats import FORMATS, Format, detect
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid


def convert_dataset(
    recipe: ConvertRecipe, out: Path, engine: Engine = "none", workers: int = 1, quiet: bool = True
) -> list[str]:
    """Write, or go on writing, a dataset in another format; what is lost, in words. Raises InputError, JobError."""
    source, target = detect(recipe.root), _target(recipe.to)
    conversion = load_conversion(source.taxonomy, target.taxonomy)
    frames = frames_of(recipe)
    shards = -(-len(frames) // recipe.shard_frames)
    plan = Plan("convert", (Stage("scenes", 1, scenes_stage, keep=True),), recipe, Path(out), shards)
    losses = conversion.losses()
    with PlanProgress(plan, quiet) as progress:
        run_plan(plan, engine, workers, progress, finish=lambda: _finish(recipe, plan.out))
    progress.report(f"{plan.out}: {len(frames)} scenes as {target.name}")
    if not quiet:
        print("\n".join(f"lost: {loss}" for loss in losses), file=sys.stderr)
    return losses


def frames_of(recipe: ConvertRecipe) -> list[tuple[str, str, str]]:
    """(split, sequence, frame) of every labelled frame. Raises InputError if there is none."""
    root = detect(recipe.root).open(recipe.root)
    splits = [recipe.split] if recipe.split else list(root.splits)
    found = [(split, *key) for split in splits for key in root.frames(split) if root.label_files(*key)[0].exists()]
    if not found:
        raise InputError(recipe.root, "labelled frames", f"none in {', '.join(splits)}")
    return found


def scenes_stage(recipe: ConvertRecipe, out: Path, shard: int) -> list[str]:
    """Convert one run of frames."""
    form, target = detect(recipe.root), _target(recipe.to)
    root, conversion = form.open(recipe.root), load_conversion(form.taxonomy, target.taxonomy)
    start = shard * recipe.shard_frames
    written: list[str] = []
    assert target.write_scene is not None
    for split, sequence, frame in frames_of(recipe)[start : start + recipe.shard_frames]:
        scene = convert_scene(root.scene(sequence, frame), conversion, target.grid)
        written += target.write_scene(out, split, sequence, frame, scene)
    return written


def _target(name: str) -> Format:
    writable = {form.name: form for form in FORMATS.values() if form.write_scene is not None}
    if name not in writable:
        raise InputError("--to", f"one of {', '.join(writable)}", repr(name))
    return writable[name]


def _finish(recipe: ConvertRecipe, out: Path) -> None:
    target, frames = _target(recipe.to), frames_of(recipe)
    splits: dict[str, list[str]] = {}
    for split, sequence, _ in frames:
        splits.setdefault(split, [])
        if sequence not in splits[split]:
            splits[split].append(sequence)
    assert target.write_root is not None
    target.write_root(out, target.grid or _grid_of(recipe, frames[0]), splits)


def _grid_of(recipe: ConvertRecipe, frame: tuple[str, str, str]) -> VoxelGrid:
    return detect(recipe.root).open(recipe.root).scene(frame[1], frame[2]).grid
