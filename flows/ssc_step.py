"""The build's last step, where its recipe asks for one: a network trained on the dataset, tested on unseen scenes.

They are held out of the build itself, or are real data's; the constant prior stands beside. The step is a plan of its
own inside the build's work folder: two jobs, found done by digest, resumed in the midst of training, tasks of a flow
under Prefect. Nothing of it shapes a byte of the dataset.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from flows.engine import Engine, run_plan
from flows.inspect import verify_dataset
from flows.jobs import RunOptions
from flows.progress import PlanProgress
from flows.recipes import BuildRecipe, SscStep
from flows.report import SSC_FOLDER, SSC_TABLE
from flows.shards import Plan, Result, Stage
from flows.sources import source_grid
from flows.timing import TimingLog
from pipeline.datasets.manifest import MANIFEST_NAME
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, sha256_file, write_json

if TYPE_CHECKING:
    from ssc_eval.samples import SscDataset
    from ssc_eval.training import SscConfig

TRAIN, HELD_OUT = "train", ("val", "test")  # splits; the first one that the build has is scored
WEIGHTS, LOG = "weights", "log.txt"


class SscJob(SscStep):
    """What the two jobs depend on. Digests stand for the datasets, wherever they lie."""

    dataset: Path = Field(exclude=True)
    dataset_digest: str  # SHA-256 of its manifest, which names every file's
    real_digest: str | None = None
    threads: int = 1


TRAINED = ("recipe", "steps", "changes", "seed", "dataset_digest", "threads")  # fields that the network depends on


@dataclass(frozen=True)
class Test:
    """Frames to score. short: its name in a column's head; adapt: unlabelled frames of its root to adapt to."""

    on: str
    short: str
    root: Path
    split: str
    frames: int | None
    adapt: int = 0


def check_ssc(recipe: BuildRecipe) -> None:
    """Whether the step can be done, before hours of other stages. Raises InputError."""
    step = recipe.ssc
    if step is None:
        return
    ssc_config(step, Path("."))  # the network's recipe and its changes
    if step.real is None:
        return
    from pipeline.datasets.semantic_kitti import open_root
    from ssc_eval.samples import Source, chosen_frames

    real = open_root(step.real)
    chosen_frames(real, Source(root=step.real, split=step.real_split), 0)
    if step.adapt and not real.splits.get(TRAIN):
        raise InputError(step.real, f"images to adapt to in split {TRAIN}", "none", "--set ssc.adapt=0 does without")
    grid = source_grid(recipe)
    if real.grid != grid:
        raise InputError(step.real, f"the build's grid, {grid}", str(real.grid), "`occfactory convert` resamples")


def run_ssc(
    recipe: BuildRecipe, out: Path, engine: Engine, timing: TimingLog, quiet: bool, options: RunOptions
) -> None:
    """Train and test on the finished build in `out`, unless that is done; only if it is sound.

    Raises InputError, JobError.
    """
    plan = ssc_plan(recipe, out)
    if plan is None:
        return
    with timing.step("verify"):
        faults = verify_dataset(out)
    if faults:
        path, fault = faults[0]
        raise InputError(Path(out) / path, "what the manifest and the voxels say", fault, "build again, to mend it")
    options = RunOptions(changed=True, retries=options.retries, pause_s=options.pause_s, devices=options.devices)
    with PlanProgress(plan, quiet) as progress:

        def on_result(result: Result) -> None:
            progress(result)
            timing(result, plan.recipe.threads)

        run_plan(plan, engine, 1, on_result, options=options)


def ssc_plan(recipe: BuildRecipe, out: Path) -> Plan | None:
    """The step's two jobs, None where the recipe has no such step."""
    step = recipe.ssc
    if step is None:
        return None
    fields = {name: getattr(step, name) for name in SscStep.model_fields}
    job = SscJob(
        **{**fields, "real": step.real and step.real.resolve()},
        dataset=Path(out).resolve(),
        dataset_digest=sha256_file(Path(out) / MANIFEST_NAME),
        real_digest=None if step.real is None else _content(step.real, step),
        threads=ssc_config(step, Path(".")).training.torch_threads,
    )
    return Plan("ssc", STAGES, job, Path(out) / SSC_FOLDER, 1)


def _content(real: Path, step: SscStep) -> str:
    from flows.ssc_protocol_data import content
    from ssc_eval.views import open_scenes

    return content(open_scenes(real)[0], (step.real_split, *[TRAIN] * (step.adapt > 0)))


def ssc_config(step: SscStep, dataset: Path) -> SscConfig:
    """The whole training run of a step. Raises InputError."""
    from flows.ssc_recipes import ssc_recipe
    from ssc_eval.samples import Source

    steps = () if step.steps is None else ("training.epochs=null", f"training.steps={step.steps}")
    config = ssc_recipe(step.recipe, (Source(root=dataset, split=TRAIN),), (*steps, *step.changes))
    return config.model_copy(update={"seed": step.seed})


def train_stage(job: SscJob, out: Path, shard: int) -> list[str]:
    """Train, or go on training; the files of WEIGHTS. What is printed goes into LOG."""
    from ssc_eval.training import train_ssc

    folder = out / "training" / digest_of(job.model_dump(mode="json", include=set(TRAINED)))[:16]
    for other in (out / "training").glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)  # of another recipe or dataset
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a") as log, contextlib.redirect_stdout(log):
        weights = train_ssc(ssc_config(job, job.dataset), folder)
    shutil.rmtree(out / WEIGHTS, ignore_errors=True)
    shutil.copytree(weights, out / WEIGHTS)
    return [path.relative_to(out).as_posix() for path in sorted((out / WEIGHTS).iterdir())]


def test_stage(job: SscJob, out: Path, shard: int) -> list[str]:
    """Score network and prior on every test, draw some frames; SSC_TABLE and pictures."""
    from ssc_eval.samples import SscDataset

    config = ssc_config(job, job.dataset)
    drawn = SscDataset(config.sources, config.samples, config.seed, config.network)
    shutil.rmtree(out / "ssc", ignore_errors=True)
    tests, pictures = [], []
    for number, test in enumerate(tests_of(job)):
        found, rows = _tested(job, out, drawn, test, number)
        tests.append(found)
        pictures += rows
    table = {
        "step": job.model_dump(mode="json"),
        "trained": {"frames": len(drawn.keys), "steps": config.training.total_steps(len(drawn))},
        "hardware": _hardware(config.training.torch_threads),
        "classes": list(drawn.taxonomy.classes[1:]),
        "tests": tests,
        "pictures": pictures,
    }
    write_json(out / SSC_TABLE, table)
    return [SSC_TABLE, *(row["file"] for row in pictures)]


def tests_of(job: SscJob) -> list[Test]:
    """The build's own held-out scenes, if it has any, then the real root's. Raises InputError where there are none."""
    from pipeline.datasets.semantic_kitti import open_root

    root = open_root(job.dataset)
    own = [split for split in HELD_OUT if root.splits.get(split)][:1]
    tests = [
        Test(f"scenes of this build that it hasn't seen (split {s})", "held-out", job.dataset, s, job.frames)
        for s in own
    ]
    if job.real is not None:
        on = f"the root of this name, split {job.real_split}"
        tests.append(Test(on, job.real.name, job.real, job.real_split, job.frames, job.adapt))
    if not tests:
        raise InputError(job.dataset, "held-out scenes, or a real root", "neither", "--set val_share=0.2")
    return tests


def _tested(
    job: SscJob, out: Path, drawn: SscDataset, test: Test, number: int
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    from ssc_eval.inference import opened, settle_norms, tally_network
    from ssc_eval.metrics import scores
    from ssc_eval.prior import prior_of, tally_prior

    model, dataset = opened(out / WEIGHTS, test.root, test.split, True, test.frames)
    network, prior = tally_network(model, dataset, 1), tally_prior(prior_of(drawn), dataset)
    found = {
        "on": test.on,
        "short": test.short,
        "split": test.split,
        "frames": len(dataset.keys),
        "network": scores(network, dataset.taxonomy.classes),
        "prior": scores(prior, dataset.taxonomy.classes),
    }
    if test.adapt:
        seen = opened(out / WEIGHTS, test.root, TRAIN, False, test.adapt)[1]
        settle_norms(model, seen, range(len(seen.keys)), 1)
        found["adapted"] = scores(tally_network(model, dataset, 1), dataset.taxonomy.classes)
        found["adapted_to"] = len(seen.keys)
    return found, _pictures(out, model, dataset, test, min(job.pictures, len(dataset.keys)), number)


def _pictures(out: Path, model: Any, dataset: SscDataset, test: Test, count: int, number: int) -> list[dict[str, str]]:
    """Evenly spaced frames: image, prediction and truth from the camera, both oblique."""
    from flows.scene_pictures import beside
    from flows.ssc_pictures import COLUMNS, compared, oblique_window
    from pipeline.datasets.image_files import write_image
    from ssc_eval.inference import predicted, views_of
    from ssc_eval.predictions import open_truth, write_prediction

    truth, rows = open_truth(test.root, test.split), []
    window = oblique_window(truth.grid, truth.taxonomy)
    for place in np.unique(np.linspace(0, len(dataset.keys) - 1, count).round().astype(int)):
        key = dataset.keys[place]
        labels = predicted(model.eval(), *views_of(model, dataset, [int(place)]))[0]
        folder = out / "predictions"
        write_prediction(folder, (key.sequence, key.frame), labels, truth.taxonomy)
        frame = compared(folder, truth, (key.sequence, key.frame), window)
        file = f"ssc/{number}_{key.sequence}_{key.frame}.jpg"
        write_image(out / file, beside(frame.pictures), quality=88)
        rows.append({"file": file, "caption": f"{test.short} {frame.caption()}: {', '.join(COLUMNS)}"})
        shutil.rmtree(folder)
    return rows


def _hardware(threads: int) -> str:
    import torch

    from pipeline.learning.machine import device_name

    if torch.cuda.is_available():
        return device_name(torch.device("cuda"))
    return f"{device_name(torch.device('cpu'))} CPU, {threads} thread{'s' * (threads > 1)}"


STAGES = (
    Stage("ssc-train", 1, train_stage, keep=True, gpu=True, reads=TRAINED),
    Stage("ssc-test", 1, test_stage, keep=True, gpu=True),
)
