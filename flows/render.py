"""`occfactory render`: RGB, depth and semantics of a dataset's voxels through their own calibration, as PNG."""

from __future__ import annotations

from pathlib import Path

from flows.engine import Engine, run_plan
from flows.progress import PlanProgress
from flows.recipes import RenderRecipe
from flows.shards import Plan, Stage
from flows.sources import open_source, split_frames
from flows.viewing import own_camera
from pipeline.datasets.image_files import write_depth, write_image, write_label_image
from pipeline.datasets.semantic_kitti import read_frame


def render_root(recipe: RenderRecipe, out: Path, engine: Engine = "none", workers: int = 1, quiet: bool = True) -> Path:
    """Write, or go on writing, OUT/<sequence>/{rgb,depth,semantics}/<frame>.png. Raises InputError, JobError."""
    count = len(frames_of(recipe))
    plan = Plan(
        "render", (Stage("views", 1, views_stage, keep=True),), recipe, Path(out), -(-count // recipe.shard_frames)
    )
    with PlanProgress(plan, quiet) as progress:
        run_plan(plan, engine, workers, progress)
    progress.report(f"{plan.out}: {count} views")
    return plan.out


def frames_of(recipe: RenderRecipe) -> tuple[tuple[str, str], ...]:
    """(sequence, frame) of the frames to render."""
    return split_frames(recipe.source)[: recipe.frames]


def views_stage(recipe: RenderRecipe, out: Path, shard: int) -> list[str]:
    """Render one run of frames."""
    from renderers.shading import render

    start = shard * recipe.shard_frames
    written = []
    for index, (sequence, frame) in list(enumerate(frames_of(recipe)))[start : start + recipe.shard_frames]:
        scene = read_frame(open_source(recipe.source.root), sequence, frame).scene()
        view = render(scene, own_camera(recipe.source, index))
        paths = [f"{sequence}/{kind}/{frame}.png" for kind in ("rgb", "depth", "semantics")]
        write_image(out / paths[0], view.rgb)
        write_depth(out / paths[1], view.depth)
        write_label_image(out / paths[2], view.semantics)
        written += paths
    return written
