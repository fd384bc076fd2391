"""`occfactory convert`: a dataset's scenes in another format's files, classes by a table that names what is lost."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.engine import Engine, run_plan
from flows.progress import PlanProgress
from flows.recipes import ConvertRecipe
from flows.shards import Plan, Stage
from pipeline.datasets.convert import convert_scene, grid_losses, lifted, load_conversion
from pipeline.datasets.formats import FORMATS, Format, detect, written_names
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_json
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
    place = lifted(_grid_of(recipe, frames[0]), _lift_m(source, target))
    losses = [*conversion.losses(), *grid_losses(place, target.grid or place)]
    losses += source.notes if source != target else ()
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
    frames = frames_of(recipe)
    named = list(zip(frames, written_names(target, frames), strict=True))
    for (split, sequence, frame), name in named[start : start + recipe.shard_frames]:
        scene = convert_scene(root.scene(sequence, frame), conversion, target.grid, _lift_m(form, target))
        written += target.write_scene(out, split, sequence, name, scene)
    return written


def _lift_m(source: Format, target: Format) -> float:
    return source.origin_height_m - target.origin_height_m


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
    lift_m = _lift_m(detect(recipe.root), target)
    target.write_root(out, target.grid or lifted(_grid_of(recipe, frames[0]), lift_m), splits)
    renamed = {f"{s}/{name}": frame for (_, s, frame), name in zip(frames, written_names(target, frames), strict=True)}
    if any(not key.endswith(f"/{frame}") for key, frame in renamed.items()):
        write_json(out / "frame_names.json", renamed)


def _grid_of(recipe: ConvertRecipe, frame: tuple[str, str, str]) -> VoxelGrid:
    return detect(recipe.root).open(recipe.root).scene(frame[1], frame[2]).grid
