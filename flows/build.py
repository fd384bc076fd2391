"""`occfactory build`: a recipe -> scenes -> masks -> views -> images -> files, then manifest and report."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from flows.engine import DEFAULTS, Engine, chosen_shards, run_plan
from flows.image_checks import check_images, write_image_statistics
from flows.jobs import RunOptions
from flows.layout import Place, place_of, shard_count
from flows.progress import PlanProgress
from flows.quiet import make_prefect_home
from flows.recipes import BuildRecipe, GeneratorSource, SplitSource
from flows.report import write_report
from flows.shards import WORK, Plan, Result, Stage, read_record
from flows.sources import open_source, source_grid, source_length, source_taxonomy
from flows.ssc_step import check_ssc, run_ssc
from flows.stages import files_stage, images_stage, is_dropped, masks_stage, scenes_stage, source_inputs, views_stage
from flows.timing import TimingLog
from flows.viewing import cameras_of, nominal_calibration
from pipeline.datasets.kitti_calibration import write_calibration, write_poses, write_times
from pipeline.datasets.manifest import MANIFEST_NAME, Manifest, SampleRecord, record_files, write_manifest
from pipeline.datasets.semantic_kitti import frame_path, open_root, write_layout
from pipeline.datasets.statistics import dataset_statistics, statistics_path
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, write_atomic, write_json

STAGES = (
    Stage(
        "scenes",
        1,
        scenes_stage,
        reads=("source", "seed", "samples", "shard_samples", "threads", "images_per_scene"),
        inputs=source_inputs,
    ),
    Stage("masks", 1, masks_stage, reads=("masks",)),
    Stage("views", 1, views_stage, reads=("views", "sequences", "val_share", "test_share")),
    Stage("images", 2, images_stage, reads=("images",)),
    Stage("files", 1, files_stage, keep=True, reads=("monoscene_labels",)),
)
PACKAGES = ("numpy", "numba", "pillow", "opencv-python", "open3d")  # whose versions can shape bytes
DRAWING = ("torch", "diffusers", "transformers")  # likewise, where networks draw


def build_dataset(
    recipe: BuildRecipe,
    out: Path,
    engine: Engine = "prefect",
    workers: int = 1,
    quiet: bool = True,
    options: RunOptions = DEFAULTS,
    as_json: bool = False,
) -> Path:
    """Build, or go on building, a dataset in `out`; the manifest's path. as_json: progress as lines of JSON on stdout.

    The bytes depend on the recipe alone, not on engine, workers, options or interruptions. Raises InputError, JobError
    (IncompleteError: shards that kept failing; without a manifest then, and the next run goes on).
    """
    check_images(recipe)
    check_ssc(recipe)
    plan = Plan("build", stages_of(recipe), recipe, Path(out), shard_count(recipe))
    chosen = chosen_shards(plan, options)
    timing = TimingLog(plan.out, workers, recipe.threads)

    def on_result(result: Result) -> None:
        progress(result)
        timing(result)

    def finish() -> None:
        with timing.step("manifest"):
            finish_build(plan, recipe)

    with PlanProgress(plan, quiet, as_json, len(chosen)) as progress:
        run_plan(plan, engine, workers, on_result, finish, options)
    if options.shards is None:
        run_ssc(recipe, plan.out, engine, timing, quiet or as_json, options)
        with timing.step("report"):
            _report(plan.out, engine, recipe.gallery_samples)
    built = f"shards {chosen.start}:{chosen.stop}" if options.shards else f"{source_length(recipe)} samples"
    progress.report(f"{plan.out}: {built}")
    return plan.out / MANIFEST_NAME


def stages_of(recipe: BuildRecipe) -> tuple[Stage, ...]:
    """The stages, those on a GPU, if there is one, known as such."""
    on_gpu = {"scenes": isinstance(recipe.source, GeneratorSource), "images": recipe.images.kind != "render"}
    return tuple(replace(stage, gpu=on_gpu.get(stage.name, False)) for stage in STAGES)


def _report(out: Path, engine: Engine, shown: int) -> None:
    """The report; under Prefect as a flow, whose artifacts carry its tables."""
    if engine == "none":
        write_report(out, shown=shown)
        return
    make_prefect_home()
    from flows.prefect_artifacts import report_flow

    report_flow(out, lambda: write_report(out, shown=shown))


def finish_build(plan: Plan, recipe: BuildRecipe) -> None:
    """Write what belongs to the whole: layout, calibration, statistics, and last the manifest."""
    files = [
        record.path for shard in range(plan.shards) for record in read_record(plan, len(plan.stages) - 1, shard) or ()
    ]
    files = [path for path in files if not path.startswith(f"{WORK}/")]
    drawn = [_sample_record(plan, recipe, index) for index in range(source_length(recipe))]
    places = [place_of(recipe, index) for index in range(len(drawn))]
    samples = [sample for sample in drawn if not is_dropped(recipe, sample.provenance)]
    if not samples:
        remedy = "loosen images.slack, or try images.rejected=keep and look at them"
        raise InputError(plan.out, "at least one sample whose image the critic accepts", f"0 of {len(drawn)}", remedy)
    kept = {sample.name for sample in samples}
    files += _write_layout(recipe, plan.out, [place for place in places if place.name in kept])
    for sequence, members in _by_sequence(places):
        if any(places[index].name in kept for index in members):
            files += _write_sequence(recipe, plan.out, sequence, members)
    files.append(_write_statistics(plan.out))
    files += write_image_statistics(plan.out, [sample.provenance for sample in drawn])
    manifest = Manifest(
        recipe=recipe.model_dump(mode="json", exclude=set(recipe.REPORTED)),
        recipe_digest=recipe.digest(),
        build_seed=recipe.seed,
        inputs={"source": digest_of([sample.provenance for sample in drawn])},
        versions={"python": platform.python_version(), **{name: version(name) for name in _packages(recipe)}},
        samples=tuple(samples),
        dropped=tuple(sample for sample in drawn if sample.name not in kept),
        files=record_files(plan.out, files),
    )
    write_manifest(plan.out, manifest)


def _packages(recipe: BuildRecipe) -> tuple[str, ...]:
    """The packages whose versions can shape a build's bytes, our own first."""
    networks = isinstance(recipe.source, GeneratorSource) or recipe.images.kind != "render"
    return ("occfactory", *PACKAGES, *(DRAWING if networks else ()))


def _sample_record(plan: Plan, recipe: BuildRecipe, index: int) -> SampleRecord:
    provenance = json.loads((plan.out / WORK / "samples" / f"{index:06d}.json").read_text())
    return SampleRecord(name=place_of(recipe, index).name, shard=index // recipe.shard_samples, provenance=provenance)


def _write_layout(recipe: BuildRecipe, out: Path, places: list[Place]) -> list[str]:
    names = dict.fromkeys(place.split for place in places)
    splits = {name: list(dict.fromkeys(p.sequence for p in places if p.split == name)) for name in names}
    return write_layout(out, source_grid(recipe), splits, source_taxonomy(recipe))


def _write_statistics(out: Path) -> str:
    """Class counts of the split that is trained on, the first one."""
    root = open_root(out)
    split = next(iter(root.splits))
    dataset_statistics(root, split)
    return statistics_path(out, split).relative_to(out).as_posix()


def _by_sequence(places: list[Place]) -> Iterator[tuple[str, list[int]]]:
    for sequence in dict.fromkeys(place.sequence for place in places):
        yield sequence, [index for index, place in enumerate(places) if place.sequence == sequence]


def _write_sequence(recipe: BuildRecipe, out: Path, sequence: str, members: list[int]) -> list[str]:
    """calib.txt, cameras.json with every camera whole, and poses.txt and times.txt (scenes stand alone: identity)."""
    folder = f"sequences/{sequence}"
    names = {name: f"{folder}/{name}" for name in ("calib.txt", "cameras.json", "poses.txt", "times.txt")}
    write_calibration(out / names["calib.txt"], nominal_calibration(recipe, members[0]))
    cameras = {
        name: {
            "K": camera.K.tolist(),
            "camera_from_velodyne": camera.camera_from_world.tolist(),
            "width_px": camera.width_px,
            "height_px": camera.height_px,
        }
        for name, camera in cameras_of(recipe, members[0]).items()
    }
    write_json(out / names["cameras.json"], cameras)
    if isinstance(recipe.source, SplitSource):
        return [names["calib.txt"], names["cameras.json"], *_copy_trajectory(recipe.source, out, sequence)]
    write_poses(out / names["poses.txt"], np.tile(np.eye(4), (len(members), 1, 1)))
    write_times(out / names["times.txt"], np.arange(len(members), dtype=float))
    return list(names.values())


def _copy_trajectory(source: SplitSource, out: Path, sequence: str) -> list[str]:
    """The source's poses.txt and times.txt, where it has them."""
    root = open_source(source.root)
    written = []
    for name in ("poses.txt", "times.txt"):
        path = frame_path(root, sequence, "", name)
        if path.exists():
            written.append(f"sequences/{sequence}/{name}")
            write_atomic(out / written[-1], path.read_bytes())
    return written
