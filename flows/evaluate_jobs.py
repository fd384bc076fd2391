"""What `evaluate-scenes` computes of sets of scenes, as jobs for processes: features, counts, invasion, novelty.

A job reads its scenes itself and returns small arrays; its result doesn't depend on how sets are cut into jobs.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8

from flows.engine import worker_pool
from flows.jobs import JobError
from flows.scene_sets import SceneSet, grid_of
from pipeline.metrics.composition import class_counts
from pipeline.metrics.encoder2d import ImageEncoder, RandomConvolutions
from pipeline.metrics.encoder3d import SceneEncoder
from pipeline.metrics.instances import Instances, find_instances
from pipeline.metrics.invasion import InvasionModel, InvasionScore, fit_invasion, invasion_score
from pipeline.metrics.novelty import nearest_scenes
from pipeline.metrics.topology import Topology, topology
from pipeline.scene.records import Scene

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
CHUNK = 50  # scenes a job of features
VIEWS = ("above", "oblique")


@dataclass(frozen=True)
class Encoders:
    """Which encoders make features. solid: folder of 3D weights, None = no 3D figures; inception: its weights' file,
    None = the offline random convolutions, of which image_features numbers are kept."""

    solid: Path | None
    inception: Path | None
    image_features: int


@dataclass(frozen=True, eq=False)
class Features:
    """Rows a scene, in the set's order. images and probabilities go by view; solid and probabilities may be None."""

    solid: Float[np.ndarray, "n d"] | None
    images: Mapping[str, Float[np.ndarray, "n f"]]
    probabilities: Mapping[str, Float[np.ndarray, "n k"]] | None

    def part(self, indices: Sequence[int]) -> Features:
        """Some rows."""
        chosen = np.asarray(indices, int)
        return Features(
            None if self.solid is None else self.solid[chosen],
            {view: rows[chosen] for view, rows in self.images.items()},
            None if self.probabilities is None else {view: rows[chosen] for view, rows in self.probabilities.items()},
        )

    def image_rows(self, view: str) -> Float[np.ndarray, "n f"]:
        """A view's rows; "both": all views' one after another, a set of twice as many pictures."""
        return np.concatenate([self.images[v] for v in VIEWS]) if view == "both" else self.images[view]


@dataclass(frozen=True, eq=False)
class Counts:
    """What is counted over a set: valid voxels by class id, instances, topology; digest of its files."""

    voxels: Int[np.ndarray, "k"]
    instances: Instances
    topology: Topology
    digest: str


@functools.lru_cache(maxsize=1)
def image_encoder(encoders: Encoders) -> ImageEncoder:
    """The 2D encoder, made once a process. Raises InputError."""
    if encoders.inception is None:
        return RandomConvolutions(encoders.image_features)
    from pipeline.metrics.inception import InceptionEncoder

    return InceptionEncoder(encoders.inception)


@functools.lru_cache(maxsize=1)
def scene_encoder(encoders: Encoders) -> SceneEncoder | None:
    """The 3D encoder, loaded once a process. Raises InputError."""
    return None if encoders.solid is None else SceneEncoder.load(encoders.solid)


def features_job(scenes: SceneSet, encoders: Encoders) -> Features:
    """Features of some scenes. Raises InputError."""
    solid, flat = scene_encoder(encoders), image_encoder(encoders)
    rows: dict[str, list[np.ndarray]] = {view: [] for view in VIEWS}
    likely: dict[str, list[np.ndarray]] = {view: [] for view in VIEWS}
    deep: list[np.ndarray] = []
    for index in range(len(scenes)):
        scene = scenes.scene(index)
        if solid is not None:
            deep.append(solid.features(scene.labels[None]))
        for view, picture in metric_renders(scene).items():
            rows[view].append(flat.features(picture[None]))
            probabilities = flat.probabilities(picture[None])
            likely[view] += [] if probabilities is None else [probabilities]
    return Features(
        np.concatenate(deep) if deep else None,
        {view: np.concatenate(found) for view, found in rows.items()},
        {view: np.concatenate(found) for view, found in likely.items()} if likely[VIEWS[0]] else None,
    )


def metric_renders(scene: Scene) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """The two published pictures of a scene; invalid voxels are empty in both."""
    from renderers.bird_eye import bird_eye_image, oblique_image

    return {"above": bird_eye_image(scene), "oblique": oblique_image(scene)}


def counts_job(scenes: SceneSet) -> Counts:
    """Counts over a whole set. Raises InputError."""
    grid, taxonomy = grid_of(scenes)
    labels = list(scenes.labels())
    found = find_instances(labels, grid, taxonomy)
    return Counts(class_counts(labels, taxonomy), found, topology(labels, taxonomy), scenes.digest())


def invasion_fit_job(scenes: SceneSet, seed: int) -> InvasionModel:
    """The scale of background invasion, learnt from real scenes. Raises InputError."""
    return fit_invasion(list(scenes.labels()), grid_of(scenes)[1], seed)


def invasion_job(scenes: SceneSet, model: InvasionModel) -> InvasionScore:
    """Background invasion of a set. Raises InputError."""
    return invasion_score(model, scenes.labels())


def novelty_job(scenes: SceneSet, training: SceneSet, other_drives: bool) -> Float[np.ndarray, "n"]:
    """Each scene's distance to the nearest training scene, of other sequences alone if so asked. Raises InputError."""
    groups = ([s for s, _ in scenes.keys], [s for s, _ in training.keys]) if other_drives else (None, None)
    return nearest_scenes(list(scenes.labels()), list(training.labels()), *groups).distance


def chunks(scenes: SceneSet) -> list[SceneSet]:
    """The set in runs of scenes for one job each."""
    return [scenes.part(range(k, min(k + CHUNK, len(scenes)))) for k in range(0, len(scenes), CHUNK)]


def joined(parts: Sequence[Features]) -> Features:
    """Features of consecutive runs as one set's."""
    first = parts[0]
    return Features(
        None if first.solid is None else np.concatenate([p.solid for p in parts if p.solid is not None]),
        {view: np.concatenate([p.images[view] for p in parts]) for view in VIEWS},
        None
        if first.probabilities is None
        else {view: np.concatenate([p.probabilities[view] for p in parts if p.probabilities]) for view in VIEWS},
    )


Job = tuple[Callable[..., Any], tuple[Any, ...]]


def run_jobs(jobs: Mapping[T, Job], workers: int, what: str, quiet: bool) -> dict[T, Any]:
    """Every job's result by its key, with a bar; one worker works here. Raises InputError, JobError (a lost worker)."""
    from concurrent.futures.process import BrokenProcessPool

    found: dict[T, Any] = {}
    if workers == 1:
        with progress_bar(what, len(jobs), quiet) as advance:
            for key, job in jobs.items():
                found[key] = _alone(*job)
                advance()
        return found
    with worker_pool(workers) as pool, progress_bar(what, len(jobs), quiet) as advance:
        waiting = {pool.submit(_alone, *job): key for key, job in jobs.items()}
        try:
            for done in as_completed(waiting):
                found[waiting[done]] = done.result()
                advance()
        except BrokenProcessPool:
            raise JobError(f"{what}: a worker process was killed (out of memory?); take fewer --workers") from None
    return found


def _alone(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A job on one thread: the processes are what runs side by side."""
    import numba
    import torch

    threads = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(threads[0])
        numba.set_num_threads(threads[1])


@contextlib.contextmanager
def progress_bar(what: str, total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, a line every fifth of the way elsewhere, nothing if quiet; yields what advances it."""
    if quiet:
        yield lambda: None
    elif sys.stderr.isatty():
        with _live_bar() as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
    else:
        done = itertools.count(1)

        def advance() -> None:
            n = next(done)
            if n * 5 // total > (n - 1) * 5 // total:
                print(f"{what} {n}/{total}", file=sys.stderr, flush=True)

        yield advance


def _live_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TextColumn("jobs"))
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
