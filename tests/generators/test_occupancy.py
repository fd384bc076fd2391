"""Maps from nothing: the octree by hand and there and back, known voxels exact, and a map that is learnt by heart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.diffusion.dit import DiTConfig
from pipeline.generators.occupancy import (
    CoarseConfig,
    Occupancy,
    OccupancyConfig,
    OctreeData,
    any_in,
    centres,
    halved,
    octree,
    patterns,
)
from pipeline.generators.protocol import Known
from pipeline.generators.scaffold import Scaffold, ScaffoldConfig, ScaffoldSampling
from pipeline.generators.tokens import TokenData, Tokens, tokens_of
from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy

SHAPE = (8, 8, 8)
GRID, MINECRAFT = VoxelGrid(SHAPE, 1.0, (0.0, 0.0, 0.0)), load_taxonomy("minecraft")
SAMPLING = ScaffoldSampling(steps=6, batch=3, bucket=16, threads=1, device="cpu")


def training(steps: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=2, learning_rate=5e-3, ema_decay=0.9, torch_threads=1, device="cpu")


def config(steps: int = 1, **fields: Any) -> OccupancyConfig:
    network = DiTConfig(width=24, depth=1, heads=2)
    given = {"cell": 4, "network": network, "training": training(steps), "sampling": SAMPLING}
    return OccupancyConfig(**given | fields)


def scaffold(steps: int = 1, **fields: Any) -> ScaffoldConfig:
    given: dict[str, Any] = {"grid": GRID, "network": DiTConfig(width=24, depth=1, heads=2), "sampling": SAMPLING}
    return ScaffoldConfig(training=training(steps), occupancy=config(steps), **given | fields)


def lively(found: Occupancy) -> Occupancy:
    """Weights that say something, so that neighbours matter."""
    with torch.no_grad():
        for weights in (w for stage in found.stages.values() for w in stage.network.parameters()):
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.3)
    return found


def house() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:6, 2:7, 0:4] = 5
    labels[2:5, 3:6, 1:4] = 0
    labels[3, 4, 4] = 1
    return labels


def test_patterns_by_hand() -> None:
    """Bit 4x + 2y + z of a cell is its half at (x, y, z)."""
    volume = np.zeros((4, 4, 4), bool)
    volume[0, 0, 0] = volume[1, 0, 1] = volume[3, 3, 2] = True
    assert patterns(volume, 2)[0, 0, 0] == 1 + (1 << 5)
    assert patterns(volume, 2)[1, 1, 1] == 1 << 6
    assert patterns(volume, 4)[0, 0, 0] == 1 + (1 << 7)
    levels = octree(volume, 4)
    assert [tokens.classes.tolist() for tokens in levels] == [[129], [33, 64]]
    assert [tokens.positions.tolist() for tokens in levels] == [[[4, 4, 4]], [[2, 2, 2], [6, 6, 6]]]
    assert centres(np.array([[1, 0, 2]]), 4).tolist() == [[12, 4, 20]]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_an_octree_is_its_map(share: float) -> None:
    volume = np.random.default_rng(0).random((16, 8, 8)) < share
    found, edge = np.ones((2, 1, 1), bool), 8
    for tokens in octree(volume, 8):
        cells = np.zeros(found.shape, np.int64)
        cells[found] = tokens.classes
        assert np.array_equal(centres(np.argwhere(found), edge), tokens.positions)
        found, edge = halved(cells), edge // 2
    assert np.array_equal(found, volume)


@pytest.mark.parametrize("limit", [1024, 7])
def test_known_voxels_are_kept(limit: int) -> None:
    """Half of a house known, its air included; the other half anything. In windows as well as at once."""
    source = lively(Occupancy(config(max_tokens=limit), SHAPE, scaffold()))
    labels = house()
    labels[4:] = IGNORE
    found = source.maps([1, 2, 3, 4], [Known(labels)] * 4)
    for drawn in found:
        assert np.array_equal(drawn[:4], house()[:4] != EMPTY)
    assert len({drawn[4:].tobytes() for drawn in found}) == 4
    (whole,) = source.maps([5], [Known(house())])
    assert np.array_equal(whole, house() != EMPTY)
    assert not source.maps([5], [Known(np.zeros(SHAPE, np.uint8))])[0].any()


def test_a_map_is_its_seeds() -> None:
    source = lively(Occupancy(config(), SHAPE, scaffold()))
    together = source.maps(list(range(5)))
    assert all(drawn.shape == SHAPE and drawn.dtype == bool for drawn in together)
    for seed in (0, 4):
        assert np.array_equal(source.maps([seed])[0], together[seed])
    assert len({drawn.tobytes() for drawn in together}) == 5


def test_known_voxels_are_conditioned_on() -> None:
    source, found = lively(Occupancy(config(), SHAPE, scaffold())), []
    for low in (EMPTY, 5):
        labels = np.full(SHAPE, IGNORE, np.uint8)
        labels[:, :, :4] = low
        found.append(source.maps([3], [Known(labels)])[0][:, :, 4:])
    assert not np.array_equal(*found)


def test_a_house_is_learnt_and_drawn_from_nothing(tmp_path: Path) -> None:
    scene = Scene(house(), GRID, MINECRAFT)
    generator = Scaffold(scaffold(steps=100))
    generator.fit([scene] * 4, tmp_path, ("occupancy",))
    assert not (tmp_path / "weights").exists()
    generator.fit([scene] * 4, tmp_path)
    again = Scaffold.load(tmp_path / "weights")
    drawn = again.sample(3, [1, 2, 3])
    both = sum(int(((d.labels != EMPTY) & (house() != EMPTY)).sum()) for d in drawn)
    either = sum(int(((d.labels != EMPTY) | (house() != EMPTY)).sum()) for d in drawn)
    assert both / either > 0.5  # all maps alike: 1/6 by chance
    assert sum(int(((d.labels == house()) & (house() != EMPTY)).sum()) for d in drawn) > 0.8 * both
    assert np.array_equal(generator.sample(1, [2])[0].labels, drawn[1].labels)


def test_the_objective_starts_where_nothing_is_known() -> None:
    from pipeline.generators.occupancy import collate_levels

    source = Occupancy(config(eps=0.0), SHAPE, scaffold())
    batch, noise = collate_levels([octree(house() != EMPTY, 4)] * 4), torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = [float(source.loss(source.stages["occupancy"].network, batch, noise)[1]["ce"]) for _ in range(3)]
    assert losses == pytest.approx([np.log(256)] * 3, rel=1e-5)
    assert isinstance(octree(house() > 0, 4)[0], Tokens)


def test_the_finest_level_of_a_share_of_scenes() -> None:
    tokens = tokens_of(house())
    data = [OctreeData(TokenData([tokens], SHAPE, 1000), 4, share) for share in (0.0, 0.5, 1.0)]
    seen = [[len(each.draw(0, np.random.default_rng(seed))) for seed in range(20)] for each in data]
    assert set(seen[0]) == {1}
    assert set(seen[1]) == {1, 2}
    assert set(seen[2]) == {2}
    assert {len(each[0]) for each in data} == {2}  # as it is
    assert len(OctreeData(TokenData([tokens], SHAPE, 1000), 2, 0.0).draw(0, np.random.default_rng(0))) == 1


def coarse() -> CoarseConfig:
    return CoarseConfig(network=DiTConfig(width=12, depth=1, heads=2), training=training(3))


def test_levels_are_trained_on_apart() -> None:
    scenes = TokenData([tokens_of(house())], SHAPE, 1000)
    every, first, rest = (OctreeData(scenes, 8, 1.0, levels) for levels in (slice(None), slice(0, 1), slice(1, None)))
    whole = [tokens.classes.tolist() for tokens in every[0]]
    assert len(whole) == 3
    assert [tokens.classes.tolist() for tokens in first.draw(0, np.random.default_rng(0))] == whole[:1]
    assert [tokens.classes.tolist() for tokens in rest.draw(0, np.random.default_rng(0))] == whole[1:]


def test_the_coarsest_level_has_a_network_of_its_own() -> None:
    """Its weights say the cells of 2 voxels, the other's which voxels of them."""
    source = Occupancy(config(coarse=coarse()), SHAPE, scaffold())

    def sure_of(stage: str, pattern: int) -> None:
        with torch.no_grad():
            dict(source.stages[stage].network.named_parameters())["network.leave.bias"][pattern] = 50.0

    corners, expected = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    corners[::4, ::4, ::4] = True
    sure_of("coarse", 1)  # bit 0 of each cell of 4
    found = source.maps([0, 1])
    assert all(np.array_equal(any_in(drawn, 2), any_in(corners, 2)) for drawn in found)
    assert not np.array_equal(*found)
    sure_of("occupancy", 5)  # bits 0 and 2 of each cell of 2
    expected[::4, ::4, ::4] = expected[::4, 1::4, ::4] = True
    assert np.array_equal(source.maps([0])[0], expected)


def test_both_networks_are_trained_and_saved(tmp_path: Path) -> None:
    scene = Scene(house(), GRID, MINECRAFT)
    generator = Scaffold(scaffold().model_copy(update={"occupancy": config(2, coarse=coarse())}))
    generator.fit([scene] * 4, tmp_path)
    assert {path.stem for path in (tmp_path / "weights").glob("*.safetensors")} == {"classes", "coarse", "occupancy"}
    for stage in generator.stages.values():
        leave = [w for name, w in stage.network.named_parameters() if name.endswith("leave.bias")]
        assert leave[0].any()  # 0 before training
    again = Scaffold.load(tmp_path / "weights")
    assert np.array_equal(again.sample(1, [1])[0].labels, generator.sample(1, [1])[0].labels)


def test_larger_houses_come_in_windows() -> None:
    """64 x 64 x 64, more voxels and more cells than a sequence holds: known ones exact, all others drawn."""
    grid = VoxelGrid((64, 64, 64), 1.0, (0.0, 0.0, 0.0))
    few = SAMPLING.model_copy(update={"steps": 1})
    maps = config(max_tokens=64, cell=16, sampling=few)
    generator = Scaffold(scaffold(grid=grid, max_tokens=128, sampling=few).model_copy(update={"occupancy": maps}))
    known = np.zeros(grid.shape, np.uint8)
    known[10:30, 10:30, 0] = 5
    known[10:30, 10:30, 1:3] = IGNORE  # 800 voxels in 200 cells
    known[40:60, 40:60, 0] = 4
    scene = generator.sample(1, [0], [Known(known)])[0]
    held = known != IGNORE
    assert np.array_equal(scene.labels[held], known[held])
    assert (scene.labels != IGNORE).all()
    drawn = scene.labels[~held]
    assert 200 < (drawn != EMPTY).sum() < 600  # the untrained network's halves
    generator.source = None
    assert (generator.sample(1, [0], [Known(known)])[0].labels[~held] != EMPTY).all()


def test_refusals() -> None:
    with pytest.raises(InputError, match="cells of 4 voxels divide"):
        Occupancy(config(), (8, 8, 6), scaffold())
    with pytest.raises(InputError, match="a level below the coarsest"):
        Occupancy(config(cell=2, coarse=coarse()), SHAPE, scaffold())
    with pytest.raises(ValueError, match="power of two"):
        config(cell=6)
