"""The VQ-VAE latent baseline: nearest codes, weights and gradients against plain arithmetic; known voxels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.diffusion.stage import Held, StageConfig
from pipeline.generators.latent import Latent, LatentConfig
from pipeline.generators.protocol import Generator, Known
from pipeline.generators.volumes import SamplingConfig
from pipeline.generators.vqvae import VQVAE, VQConfig, VQLoss, inverse_frequency, nearest_codes, perplexity_of
from pipeline.learning.checkpoint import save_parts
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy
from tests.generators.tiny_houses import GLASS, GRID, HOUSES, PLANKS, STONE, hidden, training


def vq(steps: int = 2, **fields: Any) -> VQConfig:
    sizes = {"factor": 2, "codes": 300, "code_width": 5, "width": 16, "embedding": 4, "training": training(steps)}
    return VQConfig(**sizes | fields)


def config(steps: int = 2, **fields: Any) -> LatentConfig:
    prior = StageConfig(width=32, depth=1, channels=4, steps=6, training=training(steps))
    sampling = SamplingConfig(steps=4, batch=3, threads=1, device="cpu")
    given = {"grid": GRID, "taxonomy": "minecraft", "autoencoder": vq(steps), "prior": prior, "sampling": sampling}
    return LatentConfig(**given | fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latent")
    generator = Latent(config(turn=True))
    generator.fit(HOUSES, out)
    for stage in generator.stages.values():
        with torch.no_grad():
            for weights in stage.network.parameters():
                weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.1)
    generator.save(out / "lively")
    return out


def drawn(generator: Latent, seeds: list[int], known: list[Known] | None = None) -> np.ndarray:
    return np.stack([scene.labels for scene in generator.sample(len(seeds), seeds, known)])


def test_nearest_codes_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    z, codes = rng.normal(size=(60, 4)), rng.normal(size=(9, 4))
    expected = [min(range(9), key=lambda k: sum((a - b) ** 2 for a, b in zip(row, codes[k], strict=True))) for row in z]
    assert nearest_codes(torch.from_numpy(z), torch.from_numpy(codes)).tolist() == expected
    assert nearest_codes(torch.from_numpy(codes), torch.from_numpy(codes)).tolist() == list(range(9))


def test_weights_are_inverse_to_frequencies() -> None:
    counts = np.array([900, 90, 0, 10])
    weights = inverse_frequency(counts)
    assert weights.tolist() == pytest.approx([1000 / 3 / 900, 1000 / 3 / 90, 0, 1000 / 3 / 10])
    assert (weights * counts).sum() == pytest.approx(1000)  # a mean of 1
    assert inverse_frequency(counts, 0).tolist() == pytest.approx([1, 1, 0, 1])
    half = inverse_frequency(counts, 0.5)
    assert half[3] / half[0] == pytest.approx(90**0.5)


def test_the_loss_by_hand() -> None:
    """Weighted cross-entropy over known voxels, distances of latents and codes, on one volume."""
    network, weights = VQVAE(vq(), 4), np.array([0.5, 2.0, 0.0, 3.0])
    torch.nn.init.normal_(network.leave.weight, generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(np.random.default_rng(1).choice([0, 1, 3, IGNORE], (2, 4, 4, 2)).astype(np.uint8))
    loss, logged = VQLoss(vq(), weights)(network, {"labels": labels}, torch.Generator())
    logits, z, codes = network(labels)
    log_p, total, known = logits.double().log_softmax(-1), 0.0, 0
    for n, label in enumerate(labels.flatten().tolist()):
        if label != IGNORE:
            total -= weights[label] * log_p.flatten(0, 1)[n, label].item()
            known += 1
    assert logged["ce"].item() == pytest.approx(total / known, rel=1e-5)
    distance = (z - codes).square().mean().item()
    assert loss.item() == pytest.approx(total / known + 1.25 * distance, rel=1e-5)


def test_gradients_go_straight_through_and_codes_are_drawn_to_latents() -> None:
    network = VQVAE(vq(beta=0.0), 4)
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 4, (1, 4, 4, 2)).astype(np.uint8))
    cells = network.latents(labels)
    z = cells.detach().flatten(0, 3)
    codes = network.codebook(nearest_codes(z, network.codebook.weight))
    given = codes.detach().view(cells.shape).requires_grad_()
    (expected,) = torch.autograd.grad(network._logits(given, None).square().sum(), given)
    network.zero_grad()
    logits, latents, _ = network(labels)
    (found,) = torch.autograd.grad(logits.square().sum(), latents, retain_graph=True)
    assert torch.allclose(found.view(cells.shape), expected, atol=1e-6)
    logits.square().sum().backward()
    assert network.codebook.weight.grad is None  # the reconstruction doesn't move codes
    torch.nn.functional.mse_loss(codes, z).backward()
    used = nearest_codes(z, network.codebook.weight).unique()
    moved = network.codebook.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert moved.tolist() == used.tolist()


def test_perplexity_of_codes() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert perplexity_of(rows).item() == pytest.approx(3)
    assert perplexity_of(rows[[0, 0, 0, 0]]).item() == pytest.approx(1)
    halves = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert perplexity_of(rows[[0, 0, 2, 0]]).item() == pytest.approx(halves)


def test_a_chosen_share_of_voxels_has_the_same_logits() -> None:
    network = VQVAE(vq(), 4).eval()
    labels = torch.zeros(1, 4, 4, 2, dtype=torch.uint8)
    chosen = torch.tensor([3, 17, 30])
    assert torch.allclose(network(labels)[0][:, chosen], network(labels, chosen)[0], atol=1e-6)
    codes = network.encode(labels)
    assert torch.allclose(network.decode(codes), network(labels)[0], atol=1e-6)


def test_keeps_the_protocol_and_saves_and_loads(folder: Path) -> None:
    fitted = Latent(config(turn=True))
    assert isinstance(fitted, Generator)
    fitted.fit(HOUSES, folder)  # finds the finished runs
    again = Latent.load(folder / "weights")
    assert (again.grid, again.config) == (GRID, fitted.config)
    assert again.provenance == fitted.provenance
    assert np.array_equal(drawn(again, [1]), drawn(fitted, [1]))
    assert [dict(s.provenance) for s in again.sample(1, [4])] == [{"source": "latent", "seed": 4}]


def test_stages_one_by_one(folder: Path, tmp_path: Path) -> None:
    Latent(config(turn=True)).fit(HOUSES, tmp_path, ("autoencoder",))
    assert not (tmp_path / "weights").exists()
    again = Latent(config(turn=True))
    again.fit(HOUSES, tmp_path)
    assert np.array_equal(drawn(again, [1]), drawn(Latent.load(folder / "weights"), [1]))


def test_a_sample_depends_on_its_seed_alone(folder: Path) -> None:
    generator = Latent.load(folder / "lively")
    together = drawn(generator, [0, 1, 2, 3])
    assert np.array_equal(drawn(generator, [3])[0], together[3])
    assert not np.array_equal(together[0], together[1])
    assert together.max() < len(generator.taxonomy.classes)


def test_known_voxels_are_exact_and_cells_of_them_keep_their_codes(folder: Path) -> None:
    generator, labels = Latent.load(folder / "lively"), hidden(HOUSES[0]).labels
    labels[labels == IGNORE] = STONE
    labels[4:] = IGNORE
    (found,) = drawn(generator, [5], [Known(labels, (PLANKS, GLASS))])
    assert np.array_equal(found[:4], labels[:4])
    assert set(np.unique(found[4:])) <= {EMPTY, PLANKS, GLASS}
    held = generator._held([Known(labels)]).labels.numpy()[0]
    assert (held[2:] == -1).all()
    assert (held[:2] >= 0).all()
    (other,) = drawn(generator, [6], [Known(labels)])
    assert not np.array_equal(found[4:], other[4:])


def test_code_255_is_a_code_like_others() -> None:
    """Elsewhere 255 means not known: here it is learned, and held where it is known."""
    prior = Latent(config()).prior
    codes = np.full((1, *prior.shape), 255, np.int16)
    batch = {"target": torch.from_numpy(codes), "filled": torch.from_numpy(codes), "conditions": []}
    _, logged = prior.loss(prior.network, batch, torch.Generator().manual_seed(0))
    assert logged["ce"].item() == pytest.approx(np.log(300), rel=1e-5)
    held = torch.from_numpy(codes).long()
    held[:, 1:] = -1
    streams = [torch.Generator().manual_seed(0)]
    found = prior.sample(streams, (), Held(held, torch.ones(1, 300, dtype=torch.bool)), 3)
    assert (found[:, :1] == 255).all()
    assert found[:, 1:].unique().numel() > 3


def test_training_lowers_the_loss_and_street_scenes_with_unknown_voxels(tmp_path: Path) -> None:
    taxonomy, rng = load_taxonomy("semantic_kitti"), np.random.default_rng(0)
    scenes = []
    for _ in range(4):
        labels = np.zeros(GRID.shape, np.uint8)
        labels[:, :, 0], labels[rng.integers(8), :, 1:] = 9, 13
        labels[rng.random(GRID.shape) < 0.1] = IGNORE
        scenes.append(Scene(labels, GRID, taxonomy))
    generator = Latent(config(40, taxonomy="semantic_kitti", autoencoder=vq(40, loss_share=0.5)))
    generator.fit(scenes, tmp_path)
    for stage in generator.stages:
        rows = (tmp_path / stage / "losses.jsonl").read_text().splitlines()
        values = [json.loads(row)["loss"] for row in rows]
        assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5]), stage
    assert drawn(generator, [0]).max() < 20


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="power of two"):
        vq(factor=6)
    with pytest.raises(InputError, match="cells of 8 voxels"):
        Latent(config(autoencoder=vq(factor=8)))
    with pytest.raises(InputError, match="taxonomy minecraft"):
        Latent(config()).fit([Scene(np.ones(GRID.shape, np.uint8), GRID, load_taxonomy("occ3d"))], tmp_path)
    with pytest.raises(InputError, match="at least one scene"):
        Latent(config()).fit([], tmp_path)
    with pytest.raises(InputError, match="as long as wide"):
        Latent(config(turn=True, grid=VoxelGrid((8, 4, 4), 1.0, (0.0, 0.0, 0.0)))).fit(
            [
                Scene(
                    np.ones((2, 2, 2), np.uint8), VoxelGrid((2, 2, 2), 1.0, (0.0, 0.0, 0.0)), load_taxonomy("minecraft")
                )
            ],
            tmp_path,
        )
    save_parts(tmp_path / "other", {"model": {}}, {"config": {"method": "whole_scene"}})
    with pytest.raises(InputError, match="weights of latent"):
        Latent.load(tmp_path / "other")
