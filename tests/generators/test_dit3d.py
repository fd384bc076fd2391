"""The DiT-3D baseline: tokens are cubes at their 3D places, and the protocol is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.diffusion.bedit import fold
from pipeline.diffusion.dit import sincos
from pipeline.diffusion.stage import StageConfig
from pipeline.generators.dit3d import DiT3D, DiT3DConfig, slabs, stacked
from pipeline.generators.protocol import Generator, Known
from pipeline.generators.volumes import SamplingConfig, all_turns
from pipeline.learning.checkpoint import save_parts
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY, IGNORE
from tests.generators.tiny_houses import GLASS, GRID, HOUSES, PLANKS, STONE, hidden, training


def config(steps: int = 2, **fields: Any) -> DiT3DConfig:
    stage = StageConfig(width=32, depth=1, channels=4, patch=2, steps=6, loss_share=0.5, training=training(steps))
    sampling = SamplingConfig(steps=4, batch=3, threads=1, device="cpu")
    return DiT3DConfig(**{"grid": GRID, "diffusion": stage, "sampling": sampling} | fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dit3d")
    generator = DiT3D(config(turn=True))
    generator.fit(HOUSES, out)
    with torch.no_grad():
        for weights in generator.stages["diffusion"].network.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.2)
    generator.save(out / "lively")
    return out


def drawn(generator: DiT3D, seeds: list[int], known: list[Known] | None = None) -> np.ndarray:
    return np.stack([scene.labels for scene in generator.sample(len(seeds), seeds, known)])


def test_a_token_is_a_cube() -> None:
    """Each voxel carries its patch's number in its label; every folded token then has one number, at its own place."""
    x, y, z = np.indices((8, 12, 4)) // 2
    labels = ((x * 6 + y) * 2 + z).astype(np.uint8)[None]
    laid = slabs(labels, 2)
    assert laid.shape == (1, 8, 24, 2)
    assert np.array_equal(stacked(laid, 2), labels)
    tokens = fold(torch.from_numpy(laid), (2, 2))[0]  # i j v
    assert (tokens == tokens[..., :1]).all()
    network = DiT3D(config(grid=VoxelGrid((8, 12, 4), 1.0, (0.0, 0.0, 0.0)))).stages["diffusion"].network
    codes = network.places(*tokens.shape[:2], torch.device("cpu"))  # type: ignore[operator]
    for number, code in zip(tokens[..., 0].flatten().tolist(), codes, strict=True):
        place = torch.tensor([[number // 12, number // 2 % 6, number % 2]])
        assert torch.equal(sincos(place, 32)[0], code)


def test_all_turns_are_eight_different_forms() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    found = all_turns(labels)
    assert len({volume.tobytes() for volume in found}) == 8
    assert np.array_equal(found[0], labels[0])
    assert all(sorted(volume.ravel()) == list(range(16)) for volume in found)


def test_keeps_the_protocol_and_saves_and_loads(folder: Path) -> None:
    fitted = DiT3D(config(turn=True))
    assert isinstance(fitted, Generator)
    fitted.fit(HOUSES, folder)  # finds the finished run
    again = DiT3D.load(folder / "weights")
    assert (again.grid, again.config) == (GRID, fitted.config)
    assert again.provenance == fitted.provenance
    assert np.array_equal(drawn(again, [1]), drawn(fitted, [1]))
    assert [dict(s.provenance) for s in again.sample(1, [4])] == [{"source": "dit3d", "seed": 4}]


def test_a_sample_depends_on_its_seed_alone_and_known_voxels_are_exact(folder: Path) -> None:
    generator = DiT3D.load(folder / "lively")
    together = drawn(generator, [0, 1, 2, 3])
    assert np.array_equal(drawn(generator, [3])[0], together[3])
    assert not np.array_equal(together[0], together[1])
    labels = hidden(HOUSES[0]).labels
    labels[labels == IGNORE] = STONE
    labels[3:] = IGNORE
    (found,) = drawn(generator, [5], [Known(labels, (PLANKS, GLASS))])
    assert np.array_equal(found[:3], labels[:3])
    assert set(np.unique(found[3:])) <= {EMPTY, PLANKS, GLASS}


def test_training_finds_the_air_first(tmp_path: Path) -> None:
    """What makes this baseline fail: a little training predicts air nearly everywhere."""
    generator = DiT3D(config(60))
    before = (drawn(generator, [0, 1, 2]) == EMPTY).mean()
    generator.fit(HOUSES, tmp_path)
    assert before < 0.1
    assert (drawn(generator, [0, 1, 2]) == EMPTY).mean() > 5 * before


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cubes of 2 voxels"):
        DiT3D(config(grid=VoxelGrid((8, 8, 5), 1.0, (0.0, 0.0, 0.0))))
    with pytest.raises(InputError, match="reach 0"):
        DiT3D(config(diffusion=config().diffusion.model_copy(update={"reach": 1})))
    save_parts(tmp_path / "other", {"model": {}}, {"config": {"method": "whole_scene"}})
    with pytest.raises(InputError, match="weights of dit3d"):
        DiT3D.load(tmp_path / "other")
