"""Scene generators as commands use them: made from a recipe, trained on a root, loaded, sampled into a root."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from flows.changes import table_of
from flows.engine import Engine, run_plan
from flows.progress import PlanProgress
from flows.recipes import Config, weights_digest
from flows.shards import Plan, Stage
from pipeline.datasets.craft3d import House, house_of, write_house, write_splits
from pipeline.datasets.formats import FORMATS, detect
from pipeline.datasets.semantic_kitti import write_frame, write_layout
from pipeline.datasets.voxel_frames import frame_of
from pipeline.diffusion.schedules import respaced
from pipeline.diffusion.stage import StageConfig
from pipeline.generators.autoregressive import Autoregressive, AutoregressiveConfig
from pipeline.generators.comp_d3pm import CompConfig, CompD3PM
from pipeline.generators.dit3d import DiT3D, DiT3DConfig
from pipeline.generators.latent import Latent, LatentConfig
from pipeline.generators.occupancy import COARSE, OCCUPANCY
from pipeline.generators.protocol import Generator
from pipeline.generators.scaffold import Scaffold, ScaffoldConfig
from pipeline.generators.tokens import GivenMaps
from pipeline.generators.whole_scene import WholeConfig, WholeScene
from pipeline.houses.orient import oriented
from pipeline.learning.checkpoint import MODEL, check_whole, fill, load_part, read_card
from pipeline.learning.fields import unwritten
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed

GeneratorConfig = CompConfig | WholeConfig | ScaffoldConfig | AutoregressiveConfig | LatentConfig | DiT3DConfig
Method = CompD3PM | WholeScene | Scaffold | Autoregressive | Latent | DiT3D
METHODS: dict[str, type[Method]] = {
    "comp_d3pm": CompD3PM,
    "whole_scene": WholeScene,
    "scaffold": Scaffold,
    "autoregressive": Autoregressive,
    "latent": Latent,
    "dit3d": DiT3D,
}
_CONFIGS: TypeAdapter[GeneratorConfig] = TypeAdapter(Annotated[GeneratorConfig, Field(discriminator="method")])
_GATES = re.compile(r"(.*\bblocks\.\d+\.)modulation\.weight")


class SampleRecipe(Config):
    """A root of generated scenes."""

    weights: Path = Field(exclude=True)  # where they lie; not part of the digest
    weights_digest: str  # SHA-256 of their card, which names every file's own
    samples: int = Field(ge=1)
    seed: int = Field(0, ge=0)  # the seed tree's root
    complete: bool = False  # every voxel as generated; else what a passing sensor can't see is invalid
    steps: int | None = unwritten(None, ge=1)  # of sampling, at every stage; None: the weights' own
    maps: Path | None = Field(None, exclude=True)  # a root whose occupancy maps are filled; not part of the digest
    maps_split: str = "train"  # of that root
    maps_digest: str | None = None  # SHA-256 of the maps
    shard_samples: int = Field(16, ge=1)  # scenes a shard, the unit of work
    threads: int = Field(2, ge=1)  # threads a worker


def config_of(table: object) -> GeneratorConfig:
    """A generator's config from a card's or recipe's table. Raises InputError."""
    try:
        return _CONFIGS.validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        found = repr(first["input"])
        raise InputError(f"generator field {where}", first["msg"], found if len(found) < 80 else "others") from None


def new_generator(config: GeneratorConfig) -> Method:
    """An untrained generator."""
    return METHODS[config.method](config)  # type: ignore[arg-type]  # each method has its config's class


def load_generator(folder: Path) -> Generator:
    """Saved weights of any method. Raises InputError."""
    config = config_of(read_card(folder).get("config"))
    return METHODS[config.method].load(Path(folder))


def with_batch(generator: Generator, batch: int) -> Generator:
    """The same generator drawing `batch` scenes at once: few draws needn't be padded to its own batch.

    Sums, and so scenes, may differ in rare voxels from those drawn in another batch.
    """
    return with_sampling(generator, {"batch": batch})


def with_sampling(generator: Generator, changes: Mapping[str, object]) -> Generator:
    """The same generator drawing otherwise: fields of its sampling, of which those that it hasn't are left out."""
    if isinstance(generator, Method):
        settings = generator.config.sampling
        settings = settings.model_copy(update={k: v for k, v in changes.items() if k in type(settings).model_fields})
        generator.config = generator.config.model_copy(update={"sampling": settings})
    return generator


def training_scenes(root: Path, split: str) -> Iterator[Scene]:
    """Every labelled scene of a split, or of a root without splits, whatever its format. Raises InputError."""
    found = detect(root).open(root)
    split = "all" if tuple(found.splits) == ("all",) else split
    for sequence, frame in found.frames(split):
        if found.label_files(sequence, frame)[0].exists():
            yield found.scene(sequence, frame)


def train_generator(
    config: GeneratorConfig, root: Path, out: Path, stages: Sequence[str] = (), start: Path | None = None
) -> Path:
    """Train a generator on a root's training split; the folder of its weights. Raises InputError.

    start: a folder of weights to begin with, such as those of a longer run at a higher rate; None: random ones. Both
    networks of maps begin with the one that it has, where it has one, and a network may have more blocks than it had.
    stages: these alone (several processes may train one each); the weights are saved by the run that names all or
    none, which takes up what the others finished.
    """
    generator = new_generator(config)
    parts = {MODEL: generator} if isinstance(generator, Autoregressive) else dict(generator.stages)
    unknown = set(stages) - set(parts)
    if unknown:
        raise InputError("--stage", f"one of {', '.join(parts)}", ", ".join(sorted(unknown)))
    if start is not None:
        check_whole(start)
        for name, part in parts.items():
            fill(part.network, _grown(load_part(start, _begins(name, start)), part.network), start)
    scenes = training_scenes(root, "train")
    if isinstance(generator, Scaffold | Autoregressive):
        scenes = fitting(scenes, generator.grid)
    if isinstance(generator, Autoregressive):
        generator.fit(scenes, out)
    else:
        generator.fit(scenes, out, tuple(stages) or tuple(parts))  # type: ignore[arg-type]
    return Path(out) / "weights"


def _begins(name: str, start: Path) -> str:
    """The part of weights that a stage begins with: the maps' coarsest level with all levels', if it had none."""
    return OCCUPANCY if name == COARSE and f"{COARSE}.safetensors" not in read_card(start)["files"] else name


def _grown(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights, with those that they lack and that change nothing as yet: what begins at 0, and further blocks, whose
    gates do."""
    news = {name: value for name, value in network.state_dict().items() if name not in tensors}
    blocks = tuple(found[1] for name, value in news.items() if (found := _GATES.fullmatch(name)) and not value.any())
    return {**tensors, **{name: value for name, value in news.items() if not value.any() or name.startswith(blocks)}}


def fitting(scenes: Iterable[Scene], grid: VoxelGrid) -> Iterator[Scene]:
    """Those that fit a grid; houses come in all sizes."""
    return (s for s in scenes if all(a <= b for a, b in zip(s.grid.shape, grid.shape, strict=True)))


def sample_scenes(
    recipe: SampleRecipe, out: Path, engine: Engine = "none", workers: int = 1, quiet: bool = True
) -> Path:
    """Write, or go on writing, a root of generated scenes, houses of blocks as 3D-Craft has them, all others in
    SemanticKITTI's layout. Raises InputError, JobError."""
    shards = -(-recipe.samples // recipe.shard_samples)
    plan = Plan("sample", (Stage("scenes", 1, _scenes_stage, keep=True, gpu=True),), recipe, Path(out), shards)
    generator = load_generator(recipe.weights)
    layout = {"train": ["00"], "val": [], "test": []}

    def finish() -> None:
        if _of_blocks(generator):
            write_splits(plan.out, {"train": tuple(f"{k:06d}" for k in range(recipe.samples))})
            return
        write_layout(plan.out, generator.grid, layout, generator.taxonomy)

    with PlanProgress(plan, quiet) as progress:
        run_plan(plan, engine, workers, progress, finish=finish)
    rate = recipe.samples / max(progress.elapsed_s, 1e-9)
    progress.report(f"{plan.out}: {recipe.samples} scenes, {rate:.2f} scenes/s")
    return plan.out


def sample_recipe(
    weights: Path,
    samples: int,
    seed: int = 0,
    complete: bool = False,
    maps: tuple[Path, str] | None = None,
    steps: int | None = None,
) -> SampleRecipe:
    """A SampleRecipe whose shards and threads are the generator's own. maps: (root, split) whose occupancy maps are
    filled, for methods that draw classes alone. steps: of every stage, at most its T. Raises InputError."""
    config = config_of(read_card(weights).get("config"))
    sampling = config.sampling
    if steps is not None:
        _check_steps(config, steps)
    digest = hashlib.sha256()
    if maps is not None:
        for volume in given_maps(*maps, config.grid).given:
            digest.update(volume.tobytes())
    return SampleRecipe(
        weights=weights,
        weights_digest=weights_digest(weights),
        samples=samples,
        seed=seed,
        complete=complete,
        steps=steps,
        maps=None if maps is None else maps[0],
        maps_split="train" if maps is None else maps[1],
        maps_digest=None if maps is None else digest.hexdigest(),
        shard_samples=sampling.batch,
        threads=sampling.threads,
    )


def _check_steps(config: GeneratorConfig, steps: int) -> None:
    if "steps" not in type(config.sampling).model_fields:
        raise InputError("sampling steps", "none, as this method has no steps", f"{steps} for {config.method}")
    table = table_of(config)
    table["sampling"]["steps"] = steps
    for _, part in config_of(table):
        if isinstance(part, StageConfig):
            respaced(part.steps, steps)  # refuses more than T


@functools.lru_cache(maxsize=1)
def given_maps(root: Path, split: str, grid: VoxelGrid) -> GivenMaps:
    """The occupancy maps of a split's scenes, placed on the grid. Raises InputError."""
    return GivenMaps.of(training_scenes(root, split), grid)


def scene_seeds(seed: int, indices: Sequence[int]) -> list[int]:
    """The seeds of scenes number `indices`."""
    return [integer_seed(seed, "scene", index) for index in indices]


@functools.lru_cache(maxsize=1)
def loaded(folder: Path, digest: str, sampling: tuple[tuple[str, int], ...] = ()) -> Generator:
    """A generator, loaded once a process; digest: of its card, so that new weights are loaded anew.

    sampling: fields of its sampling that are to be otherwise, steps, batch and threads; steps are those of all stages.
    """
    generator, changes = load_generator(folder), dict(sampling)
    if "steps" in changes:
        changes["fine_steps"] = changes["steps"]
    return with_sampling(generator, changes)


def as_house(scene: Scene, name: str) -> House:
    """A generated scene as blocks whose doors and stairs look where their surroundings say."""
    house = house_of(scene, name)
    return replace(house, meta=oriented(house.blocks))


def _of_blocks(generator: Generator) -> bool:
    """Whether its scenes are houses, which no sensor passes: every voxel is known."""
    return generator.taxonomy.name == FORMATS["craft3d"].taxonomy


def _scenes_stage(recipe: SampleRecipe, out: Path, shard: int) -> list[str]:
    from flows.scene_masks import simulate_masks

    first = shard * recipe.shard_samples
    indices = range(first, min(first + recipe.shard_samples, recipe.samples))
    sampling = () if recipe.steps is None else (("steps", recipe.steps),)
    generator = loaded(recipe.weights, recipe.weights_digest, sampling)
    if recipe.maps is not None and isinstance(generator, Scaffold | Autoregressive):
        generator.source = given_maps(recipe.maps, recipe.maps_split, generator.grid)
    written = []
    for index, scene in zip(indices, generator.sample(len(indices), scene_seeds(recipe.seed, indices)), strict=True):
        masks = {}
        if _of_blocks(generator):
            written += write_house(out, as_house(scene, f"{index:06d}"))
            continue
        if not recipe.complete:
            labels, invalid, occluded = simulate_masks(scene.labels, scene.grid)
            scene, masks = Scene(labels, scene.grid, scene.taxonomy), {"invalid": invalid, "occluded": occluded}
        written += write_frame(out, frame_of(scene, "00", f"{index:06d}", **masks))
    return written
