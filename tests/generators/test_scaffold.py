"""Scaffold Diffusion at a size that trains in a moment."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.diffusion.dit import DiTConfig
from pipeline.generators.protocol import Generator, Known
from pipeline.generators.scaffold import Scaffold, ScaffoldConfig, ScaffoldSampling
from pipeline.generators.tokens import GivenMaps, collate
from pipeline.learning.checkpoint import save_parts
from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy

GRID, MINECRAFT = VoxelGrid((8, 8, 6), 1.0, (0.0, 0.0, 0.0)), load_taxonomy("minecraft")
STONE, PLANKS, GLASS = 1, 5, 20
EVERY = [
    {"sampler": "first_hitting"},
    {"sampler": "first_hitting", "steps": 5},
    {"sampler": "ancestral", "steps": 12},
    {"sampler": "confidence", "steps": 6, "order": "margin", "top_p": 0.9},
    {"sampler": "remasking", "steps": 12, "eta": 0.5},
]


def config(taxonomy: str = "minecraft", grid: VoxelGrid = GRID, steps: int = 2, **fields: Any) -> ScaffoldConfig:
    training = TrainConfig(
        steps=steps, batch_size=2, learning_rate=3e-3, ema_decay=0.9, torch_threads=1, device="cpu", log_every=1
    )
    sampling = ScaffoldSampling(steps=6, batch=3, bucket=16, threads=1, device="cpu")
    network = DiTConfig(width=24, depth=1, heads=2)
    given = {"taxonomy": taxonomy, "grid": grid, "network": network, "training": training, "sampling": sampling}
    return ScaffoldConfig(**given | fields)


def house(seed: int) -> Scene:
    """Walls of stone on a floor of planks, a pane of glass; smaller than the grid."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(4, 8, 2)
    labels = np.zeros((x, y, 4), np.uint8)
    labels[[0, -1]] = STONE
    labels[:, [0, -1]] = STONE
    labels[:, :, 0] = PLANKS
    labels[0, rng.integers(1, y - 1), 2] = GLASS
    return Scene(labels, VoxelGrid((int(x), int(y), 4), 1.0, (0.0, 0.0, 0.0)), MINECRAFT, {"house": seed})


HOUSES = [house(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights fitted for two steps and then made lively, so that neighbours matter before anything is learned."""
    out = tmp_path_factory.mktemp("scaffold")
    generator = Scaffold(config())
    generator.fit(HOUSES, out)
    with torch.no_grad():
        for weights in generator.network.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.2)
    generator.save(out / "lively")
    return out


def loaded(folder: Path, sampling: dict[str, Any] | None = None, **fields: Any) -> Scaffold:
    generator = Scaffold.load(folder / "lively")
    settings = generator.config.sampling.model_dump() | {"steps": None} | (sampling or {})
    generator.config = generator.config.model_copy(update={"sampling": ScaffoldSampling(**settings), **fields})
    return generator


def hidden(scene: Scene) -> Known:
    """Its map, all classes to be generated, in the middle of the grid's floor."""
    known = np.zeros(GRID.shape, np.uint8)
    x, y, z = scene.labels.shape
    a, b = (GRID.shape[0] - x) // 2, (GRID.shape[1] - y) // 2
    known[a : a + x, b : b + y, :z] = np.where(scene.labels != EMPTY, IGNORE, EMPTY)
    return Known(known)


def drawn(generator: Scaffold, seeds: list[int], known: list[Known] | None = None) -> np.ndarray:
    return np.stack([found.labels for found in generator.sample(len(seeds), seeds, known)])


def test_keeps_the_protocol_and_saves_and_loads(folder: Path, tmp_path: Path) -> None:
    fitted = Scaffold(config())
    assert isinstance(fitted, Generator)
    fitted.fit(HOUSES, folder)  # finds the finished run
    again = Scaffold.load(folder / "weights")
    assert (again.grid, again.taxonomy, again.config) == (GRID, MINECRAFT, fitted.config)
    assert again.provenance == fitted.provenance
    assert again.provenance["scenes"] == 6
    known = [hidden(HOUSES[0])]
    assert np.array_equal(drawn(again, [1], known), drawn(fitted, [1], known))
    assert [dict(s.provenance) for s in again.sample(1, [4], known)] == [{"source": "scaffold", "seed": 4}]


@pytest.mark.parametrize("sampling", EVERY)
def test_maps_and_known_classes_are_kept(folder: Path, sampling: dict[str, Any]) -> None:
    generator, known = loaded(folder, sampling), [hidden(HOUSES[0]), hidden(HOUSES[1]), hidden(HOUSES[2])]
    half = known[1].labels
    half[:4][half[:4] == IGNORE] = STONE
    full = np.where(known[2].labels == IGNORE, PLANKS, EMPTY).astype(np.uint8)
    found = drawn(generator, [1, 2, 3], [known[0], Known(half, (PLANKS, GLASS)), Known(full)])
    assert np.array_equal(found[0] != EMPTY, known[0].labels == IGNORE)
    assert (found != IGNORE).all()
    assert np.array_equal(found[1][half != IGNORE], half[half != IGNORE])
    assert set(np.unique(found[1][half == IGNORE])) == {PLANKS, GLASS}
    assert np.array_equal(found[2], full)
    uncached = loaded(folder, sampling | {"cached": False})
    assert np.array_equal(drawn(uncached, [1], known[:1])[0], found[0])


def test_a_sample_depends_on_its_seed_and_map_alone(folder: Path) -> None:
    generator, known = loaded(folder, {"steps": 6}), [hidden(h) for h in HOUSES]
    together = drawn(generator, list(range(6)), known)
    for i in (0, 5):
        assert np.array_equal(drawn(generator, [i], [known[i]])[0], together[i])
    same = drawn(generator, [0, 1], [known[0], known[0]])
    assert np.array_equal(same[0], together[0])
    assert not np.array_equal(same[0], same[1])


def test_known_tokens_are_conditioned_on(folder: Path) -> None:
    generator, free = loaded(folder), hidden(HOUSES[0]).labels
    found = []
    for block in (STONE, GLASS):
        known = free.copy()
        known[:, :, 0][free[:, :, 0] == IGNORE] = block
        found.append(drawn(generator, [3], [Known(known)])[0][free[:, :, 1:].nonzero()])
    assert not np.array_equal(*found)


def test_larger_than_one_sequence(folder: Path) -> None:
    """72 voxels in windows of 20: all drawn, known ones exact, each class once final never touched again."""
    generator = loaded(folder, {"steps": 8}, max_tokens=20)
    known = np.zeros(GRID.shape, np.uint8)
    known[1:7, 1:7, :2] = IGNORE
    known[2:4, 2:4, 0] = GLASS
    found = drawn(generator, [1, 2], [Known(known), hidden(HOUSES[0])])
    assert np.array_equal(found[0] != EMPTY, known != EMPTY)
    assert (found[0][2:4, 2:4, 0] == GLASS).all()
    assert np.array_equal(drawn(generator, [1], [Known(known)])[0], found[0])
    frames = generator.trajectory(1, Known(known), frames=1000)
    assert np.array_equal(frames[-1], found[0])
    for before, after in pairwise(frames):
        assert np.array_equal(before[before != IGNORE], after[before != IGNORE])
    assert len(frames) > 72 // 20


def test_trajectory_is_the_samples(folder: Path) -> None:
    generator, known = loaded(folder), hidden(HOUSES[1])
    frames = generator.trajectory(7, known, frames=5)
    left = [int((frame == IGNORE).sum()) for frame in frames]
    assert len(frames) == 5
    assert left[0] == (known.labels == IGNORE).sum()
    assert left == sorted(left, reverse=True)
    assert np.array_equal(frames[-1], drawn(generator, [7], [known])[0])


def test_maps_from_a_source(folder: Path) -> None:
    generator = loaded(folder, {"steps": 3})
    generator.source = GivenMaps.of(HOUSES, GRID)
    found = generator.sample(6, list(range(6)))
    maps = [(scene.labels != EMPTY).tobytes() for scene in found]
    given = {m.tobytes() for m in generator.source.given}
    assert set(maps) <= given
    assert len(set(maps)) > 1
    assert np.array_equal(drawn(generator, [5])[0], found[5].labels)
    corner = np.full(GRID.shape, IGNORE, np.uint8)
    corner[0, 0] = [STONE, STONE, EMPTY, EMPTY, EMPTY, EMPTY]
    held = drawn(generator, [5], [Known(corner)])[0]
    assert np.array_equal(held[0, 0], corner[0, 0])
    assert np.array_equal(held[1:] != EMPTY, found[5].labels[1:] != EMPTY)


def test_training_lowers_the_bound_and_gives_it_back(tmp_path: Path) -> None:
    generator = Scaffold(config(steps=60))
    before = generator.likelihood(HOUSES, 0, 4)
    assert before.nll == pytest.approx(np.log(252), rel=1e-5)  # a new network knows nothing
    generator.fit(HOUSES, tmp_path)
    after = generator.likelihood(HOUSES, 0, 4)
    assert after.nll < 0.6 * before.nll
    assert after.low < after.nll < after.high
    assert after.tokens == sum((h.labels > 0).sum() for h in HOUSES)
    assert generator.likelihood(HOUSES[:2], 0, 4) == generator.likelihood(HOUSES[:2], 0, 4)
    found = drawn(generator, [1], [hidden(HOUSES[0])])
    assert np.isin(found[found > 0], [STONE, PLANKS, GLASS]).mean() > 0.5


def test_the_objective_is_the_bound() -> None:
    """Over many draws of times and masks, with a fixed network, the loss is the likelihood's bound (but for eps)."""
    generator = Scaffold(config(eps=0.0))
    with torch.no_grad():
        generator.network.leave.bias.copy_(torch.linspace(-2, 2, 252))  # type: ignore[union-attr, operator]
    sequences = [generator._tokens(h) for h in HOUSES]
    batch, noise = collate(sequences), torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = np.array([float(generator.loss(generator.network, batch, noise)[0]) for _ in range(150)])
    exact = generator.likelihood(HOUSES, 0, 2).nll
    assert abs(losses.mean() - exact) < 4 * losses.std() / 150**0.5 + 0.002 * exact
    for steps in (None, 4):
        generator.config = generator.config.model_copy(update={"steps": steps})
        assert generator.loss(generator.network, batch, noise)[0] > 0


def test_street_scenes_with_unknown_voxels(tmp_path: Path) -> None:
    taxonomy = load_taxonomy("semantic_kitti")
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0], labels[2, :, 1], labels[5] = 9, 13, IGNORE
    scenes = [Scene(labels, GRID, taxonomy)] * 2
    generator = Scaffold(config("semantic_kitti", max_tokens=30))  # cut to windows
    generator.fit(scenes, tmp_path)
    generator.source = GivenMaps.of(scenes, GRID)
    assert np.array_equal(drawn(generator, [0])[0] != EMPTY, (labels != EMPTY) & (labels != IGNORE))


def test_an_empty_map_gives_an_empty_scene(folder: Path) -> None:
    nothing = Known(np.zeros(GRID.shape, np.uint8))
    assert (drawn(loaded(folder), [1], [nothing]) == EMPTY).all()
    assert len(loaded(folder).trajectory(1, nothing)) == 1


def test_refusals(folder: Path, tmp_path: Path) -> None:
    generator, known = loaded(folder), hidden(HOUSES[0])
    with pytest.raises(InputError, match="an occupancy map"):
        generator.sample(1, [0])
    with pytest.raises(InputError, match="classes beside empty"):
        generator.sample(1, [0], [Known(known.labels, (0,))])
    with pytest.raises(InputError, match="2 seeds"):
        generator.sample(2, [0], [known])
    with pytest.raises(InputError, match="taxonomy minecraft"):
        generator.fit([Scene(known.labels, GRID, load_taxonomy("semantic_kitti"))], tmp_path / "a")
    large = Scene(np.ones((9, 3, 3), np.uint8), VoxelGrid((9, 3, 3), 1.0, (0.0, 0.0, 0.0)), MINECRAFT)
    with pytest.raises(InputError, match="at most"):
        generator.fit([large], tmp_path / "b")
    with pytest.raises(InputError, match="an occupied voxel"):
        generator.fit([Scene(np.zeros(GRID.shape, np.uint8), GRID, MINECRAFT)], tmp_path / "c")
    with pytest.raises(ValueError, match="needs steps"):
        ScaffoldSampling(sampler="ancestral")
    save_parts(tmp_path / "other", {"model": {}}, {"config": {"method": "whole_scene"}})
    with pytest.raises(InputError, match="weights of scaffold"):
        Scaffold.load(tmp_path / "other")
