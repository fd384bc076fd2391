"""The tables of Scaffold Diffusion as one run: every method trained alike, measured on held-out houses.

OUT/<recipe>/ has a method's checkpoints, weights, drawn houses and measured.json; OUT/samplers/ the draws of each
sampler; OUT/table.{json,md}, quality.png. All is found again: run it once more to go on after a stop. A method trained
in a process of its own (`methods`) leaves its part there, and the run that comes later takes it up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from flows.generator_recipes import generator_recipe
from flows.generators import METHODS, GeneratorConfig, new_generator, scene_seeds, with_sampling
from flows.recipes import Config
from flows.scaffold_recipes import COMPARED
from pipeline.datasets.craft3d import open_craft3d
from pipeline.generators.autoregressive import Autoregressive
from pipeline.generators.protocol import Generator, Known
from pipeline.generators.scaffold import Scaffold
from pipeline.generators.tokens import digest_of_tokens, placed, tokens_of
from pipeline.learning.checkpoint import CARD_NAME
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_path, digest_of, sha256_file, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import rng
from pipeline.scene.taxonomy import IGNORE

MEASURED, DRAWN = "measured.json", "drawn.npz"
HELD_OUT_SHARE = 0.25  # of a root without splits
HELD_OUT_SPLITS = ("test", "val", "valid")  # the first that there is
Say = Callable[[str], None]


class TableRecipe(Config):
    """What is trained and measured."""

    root: Path = Field(exclude=True)  # 3D-Craft's layout, or a folder of schematics
    steps: int | None = Field(None, ge=1)  # of each stage of each method; None: the recipes' own
    samples: int = Field(8, ge=2)  # drawn houses a method and sampler
    draws: int = Field(16, ge=2)  # estimates of a bound, a house
    sampler_steps: tuple[int | None, ...] = Field((8, 32, 128), min_length=1)  # that are compared; None: a token a call
    seed: int = Field(0, ge=0)  # of splits, bounds and draws
    tiny: bool = False  # the recipes' tiny twins
    changes: tuple[str, ...] = ()  # "path=value" of every recipe, or "<recipe>.path=value" of one


@dataclass(frozen=True, eq=False)
class Houses:
    """Houses that fit the recipes' grid and sequences. left_out: how many don't; split: how some were held out."""

    train: tuple[Scene, ...]
    held_out: tuple[Scene, ...]
    left_out: int
    split: str

    def digest(self, grid: VoxelGrid) -> str:
        """Of all of them."""
        parts = [[tokens_of(placed(scene, grid)) for scene in part] for part in (self.train, self.held_out)]
        return digest_of([digest_of_tokens(part) for part in parts])


def houses_of(root: Path, grid: VoxelGrid, most: int, seed: int) -> Houses:
    """A root's houses of at most `most` blocks in the grid, air around them cut away. Raises InputError."""
    found = open_craft3d(root)
    houses = {split: [found.house(name).cropped() for name in names] for split, names in found.splits.items()}
    fitting = {split: [h.scene() for h in part if h.fits(min(grid.shape), most)] for split, part in houses.items()}
    held = next((name for name in HELD_OUT_SPLITS if fitting.get(name)), None)
    if fitting.get("train") and held:
        left_out = sum(len(houses[name]) - len(fitting[name]) for name in ("train", held))
        made = Houses(tuple(fitting["train"]), tuple(fitting[held]), left_out, f"the root's own, train and {held}")
    else:
        every = [scene for part in fitting.values() for scene in part]
        order = rng(seed, "held out", 0).permutation(len(every))
        count = round(len(every) * HELD_OUT_SHARE)
        parts = [tuple(every[i] for i in sorted(chosen)) for chosen in (order[count:], order[:count])]
        left_out = sum(map(len, houses.values())) - len(every)
        made = Houses(parts[0], parts[1], left_out, f"a quarter held out by chance, seed {seed}")
    if not made.train or len(made.held_out) < 2:
        expected = f"a house to train on and two held out, of at most {most} blocks in {min(grid.shape)}^3"
        raise InputError(root, expected, f"{len(made.train)} and {len(made.held_out)}; {made.left_out} too large")
    return made


def configs_of(recipe: TableRecipe, methods: Sequence[str] = COMPARED) -> dict[str, GeneratorConfig]:
    """The methods' configs as they are trained here. Raises InputError."""
    unknown = [name for name in methods if name not in COMPARED]
    if unknown:
        raise InputError("--method", f"some of {', '.join(COMPARED)}", unknown[0])
    steps = () if recipe.steps is None else (f"*.training.steps={recipe.steps}",)
    return {name: generator_recipe(name + "_tiny" * recipe.tiny, (*steps, *_changes(recipe, name))) for name in methods}


def _changes(recipe: TableRecipe, name: str) -> list[str]:
    """Those for one method: its own, without its name, and those for all."""
    split = [(change, *change.partition(".")[::2]) for change in recipe.changes]
    return [rest if head == name else change for change, head, rest in split if head == name or head not in COMPARED]


def houses_for(recipe: TableRecipe) -> Houses:
    """The houses that all methods learn and are measured on. Raises InputError."""
    scaffold = new_generator(configs_of(recipe, COMPARED[:1])[COMPARED[0]])
    assert isinstance(scaffold, Scaffold)
    return houses_of(recipe.root, scaffold.grid, scaffold.config.max_tokens, recipe.seed)


def measure_all(
    recipe: TableRecipe, out: Path, methods: Sequence[str] = COMPARED, workers: int = 1, say: Say = lambda text: None
) -> Houses:
    """Train and measure the methods, as many at once as there are workers; what is done already is kept."""
    houses = houses_for(recipe)  # faults are found before anything is trained
    configs_of(recipe, methods)
    if workers == 1:
        for name in methods:
            say(f"{name}: training and measuring")
            measure(recipe, houses, out, name)
        return houses
    with ProcessPoolExecutor(min(workers, len(methods)), mp_context=get_context("spawn")) as pool:
        jobs = {name: pool.submit(measure_by_name, recipe, Path(out), name) for name in methods}
        for name, job in jobs.items():
            job.result()
            say(f"{name}: done")
    return houses


def measure_by_name(recipe: TableRecipe, out: Path, name: str) -> None:
    """One method, in a process of its own."""
    measure(recipe, houses_for(recipe), out, name)


def measure(recipe: TableRecipe, houses: Houses, out: Path, name: str) -> dict[str, Any]:
    """OUT/<name>/measured.json: weights, likelihood of held-out houses, seconds; the drawn houses beside it."""
    config = configs_of(recipe, (name,))[name]
    folder, identity = Path(out) / name, identity_of(recipe, houses, config)
    if (found := read_measured(folder)) and found["identity"] == identity:
        return found
    generator = new_generator(config)
    started = time.perf_counter()
    generator.fit(houses.train, folder)
    trained_s = time.perf_counter() - started
    labels, seconds, _ = draw(generator, recipe, houses)
    save_draws(folder / DRAWN, labels)
    nets = networks(generator)
    value = {
        "identity": identity,
        "recipe": name,
        "weights": sum(p.numel() for net in nets.values() for p in net.parameters()),
        "positions": table_weights(generator),
        "steps": {stage: training.steps for stage, training in trainings(config).items()},
        "training_s": trained_s,  # of this run: less than all if it went on
        "likelihood": likelihood_of(generator, recipe, houses),
        "seconds_a_sample": seconds,
        "batch": config.sampling.batch,
        "threads": config.sampling.threads,
    }
    write_json(folder / MEASURED, value)
    return value


def identity_of(recipe: TableRecipe, houses: Houses, config: GeneratorConfig) -> str:
    """Digest of what a method's figures depend on."""
    fields = {k: getattr(recipe, k) for k in ("samples", "draws", "seed")}
    return digest_of({"config": config.model_dump(mode="json"), "houses": houses.digest(config.grid), **fields})


def read_measured(folder: Path) -> dict[str, Any] | None:
    """What is measured there, if anything and if its draws and weights are there as well."""
    paths = [Path(folder) / part for part in (MEASURED, DRAWN, f"weights/{CARD_NAME}")]
    return json.loads(paths[0].read_text()) if all(path.exists() for path in paths) else None


def networks(generator: Any) -> dict[str, Any]:
    """Its networks by stage."""
    if isinstance(generator, Autoregressive):
        return {"model": generator.network}
    return {name: stage.network for name, stage in generator.stages.items()}


def trainings(config: Any) -> dict[str, Any]:
    """TrainConfigs by stage."""
    if hasattr(config, "training"):
        return {"model": config.training}
    parts = {name: getattr(config, name) for name in type(config).model_fields}
    return {name: part.training for name, part in parts.items() if hasattr(part, "training")}


def table_weights(generator: Any) -> int:
    """Weights of a learned position table."""
    dit = getattr(generator.network, "dit", generator.network) if hasattr(generator, "network") else None
    table = getattr(dit, "table", None)
    return 0 if table is None else table.weight.numel()


def likelihood_of(generator: Any, recipe: TableRecipe, houses: Houses) -> dict[str, Any] | None:
    """NLL [nats a token] and perplexity with 95 % intervals; None for a method that has no p(classes | map)."""
    if not isinstance(generator, Scaffold | Autoregressive):
        return None
    found = generator.likelihood(houses.held_out, recipe.seed, recipe.draws)
    kind = "exact" if isinstance(generator, Autoregressive) else "bound"
    return {"kind": kind, **asdict(found), "perplexity": list(found.perplexity)}


def maps_for(houses: Houses, grid: VoxelGrid, count: int) -> list[Known]:
    """The maps of held-out houses, over and over: 255 where a block stands."""
    volumes = [placed(scene, grid) for scene in houses.held_out]
    return [Known(np.where(volumes[i % len(volumes)] > 0, np.uint8(IGNORE), np.uint8(0))) for i in range(count)]


def draw(generator: Generator, recipe: TableRecipe, houses: Houses) -> tuple[UInt8[np.ndarray, "n x y z"], float, int]:
    """(houses, seconds a house, calls of the first network): of the maps of held-out ones, or from nothing."""
    given = isinstance(generator, Scaffold | Autoregressive)
    known = maps_for(houses, generator.grid, recipe.samples) if given else None
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    hook = next(iter(networks(generator).values())).register_forward_hook(count)
    started = time.perf_counter()
    scenes = generator.sample(recipe.samples, scene_seeds(recipe.seed, range(recipe.samples)), known)
    seconds = (time.perf_counter() - started) / recipe.samples
    hook.remove()
    return np.stack([scene.labels for scene in scenes]), seconds, calls[0]


def save_draws(path: Path, labels: UInt8[np.ndarray, "n x y z"]) -> None:
    """Write drawn houses, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, labels=labels)


def sampler_settings(recipe: TableRecipe) -> dict[str, dict[str, Any]]:
    """Changes of Scaffold's sampling, by a name. One token a call is for the samplers that know an order."""
    found: dict[str, dict[str, Any]] = {}
    for steps in recipe.sampler_steps:
        for sampler in ("ancestral", "first_hitting", "confidence", "remasking"):
            if steps is not None or sampler in ("first_hitting", "confidence"):
                found[f"{sampler}_{steps or 'all'}"] = {"sampler": sampler, "steps": steps, "cached": True}
        if steps is not None:
            found[f"ancestral_{steps}_uncached"] = {"sampler": "ancestral", "steps": steps, "cached": False}
    return found


def compare_samplers(recipe: TableRecipe, houses: Houses, out: Path, say: Say) -> dict[str, dict[str, Any]]:
    """Scaffold's draws by every sampler, OUT/samplers/<name>.{json,npz}; what is drawn already is kept."""
    weights, found = Path(out) / COMPARED[0] / "weights", {}
    card = sha256_file(weights / CARD_NAME)
    for name, settings in sampler_settings(recipe).items():
        path = Path(out) / "samplers" / f"{name}.json"
        identity = digest_of({"card": card, "settings": settings, "samples": recipe.samples, "seed": recipe.seed})
        drawn = path.with_suffix(".npz")
        value = json.loads(path.read_text()) if path.exists() and drawn.exists() else {}
        if value.get("identity") != identity:
            say(f"sampler {name}")
            generator = with_sampling(METHODS["scaffold"].load(weights), settings)
            labels, seconds, calls = draw(generator, recipe, houses)
            save_draws(drawn, labels)
            value = {"identity": identity, **settings, "seconds_a_sample": seconds, "calls": calls}
            write_json(path, value)
        found[name] = value
    return found


def drawn_at(path: Path) -> UInt8[np.ndarray, "n x y z"]:
    """Houses that `save_draws` wrote."""
    with np.load(path) as held:
        return held["labels"]


def finished(recipe: TableRecipe, houses: Houses, out: Path) -> Mapping[str, dict[str, Any]]:
    """Every method whose figures are there and are of this recipe."""
    found = {}
    for name, config in configs_of(recipe).items():
        value = read_measured(Path(out) / name)
        if value and value["identity"] == identity_of(recipe, houses, config):
            found[name] = value
    return found
