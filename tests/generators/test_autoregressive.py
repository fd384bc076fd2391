"""The autoregressive baseline: its likelihood and draws against explicit products, its windows, known tokens."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pipeline.diffusion.dit import DiTConfig
from pipeline.diffusion.masked import MASK
from pipeline.diffusion.sampling import generators
from pipeline.generators.autoregressive import (
    Autoregressive,
    AutoregressiveConfig,
    AutoregressiveSampling,
    Cache,
    NextToken,
    OrderedData,
    ancestral,
    in_order,
    spans,
)
from pipeline.generators.protocol import Generator, Known
from pipeline.generators.tokens import GivenMaps, TokenData, Tokens, collate
from pipeline.learning.checkpoint import save_parts
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, load_taxonomy
from tests.generators.tiny_houses import GLASS, GRID, HOUSES, PLANKS, STONE, hidden, training

K, L = 3, 3
CELLS = torch.tensor(list(itertools.product(range(K), repeat=L)))
PLACES = torch.tensor([[0, 0, 1], [0, 2, 0], [1, 1, 1]])


def lively(network: torch.nn.Module) -> None:
    """Weights far from the zero start, so that what a token sees matters."""
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.2)


@pytest.fixture(scope="module", params=["sincos", "learned"])
def network(request: pytest.FixtureRequest) -> NextToken:
    found = NextToken(K, DiTConfig(width=12, depth=2, heads=2, positions=request.param), (2, 3, 2)).eval()
    lively(found)
    return found


@torch.no_grad()
def conditional(network: NextToken, before: list[int]) -> torch.Tensor:
    """p(next | before) from a forward pass over the tokens so far and a last one that must not matter."""
    tokens = torch.tensor([*before, 0])
    return network(tokens, PLACES[: len(tokens)], [len(tokens)])[-1].double().softmax(-1)


def joint(network: NextToken) -> np.ndarray:
    """p of every cell as a product of conditionals, each computed by itself."""
    p = [np.prod([float(conditional(network, c[:i].tolist())[c[i]]) for i in range(L)]) for c in CELLS]
    return np.array(p)


def counts(found: torch.Tensor) -> np.ndarray:
    return np.bincount((found * torch.tensor([K**2, K, 1])).sum(-1).numpy(), minlength=K**L)


def drawn(network: NextToken, start: list[int], rows: int = 2500, **rest: Any) -> torch.Tensor:
    streams = generators(range(rows), torch.device("cpu"))
    return ancestral(network, torch.tensor([start] * rows), PLACES.expand(rows, -1, -1), streams, **rest)


def test_the_likelihood_is_the_product_of_conditionals(network: NextToken) -> None:
    p = joint(network)
    assert p.sum() == pytest.approx(1)
    assert p.max() > 3 * p.min()  # the weights are lively enough for this to test anything
    generator = Autoregressive(config())
    generator.network = network
    for cell, expected in zip(CELLS[::4], p[::4], strict=True):
        assert generator.nll(Tokens(cell.numpy(), PLACES.numpy())) == pytest.approx(-np.log(expected), rel=1e-5)


def test_draws_have_the_joint_distribution(network: NextToken) -> None:
    p = joint(network)
    assert chisquare(counts(drawn(network, [MASK] * 3)), p / p.sum() * 2500).pvalue > 0.01


def test_known_tokens_condition_what_follows_and_no_more(network: NextToken) -> None:
    """First known: the rest has the conditional distribution. Last known: the first two have their marginal one."""
    p = joint(network).reshape(K, K, K)
    found = counts(drawn(network, [1, MASK, MASK])).reshape(K, K, K)
    assert found.sum() == found[1].sum()
    assert chisquare(found[1].ravel(), (p[1] / p[1].sum()).ravel() * 2500).pvalue > 0.01
    found = counts(drawn(network, [MASK, MASK, 2])).reshape(K, K, K)
    assert found.sum() == found[:, :, 2].sum()
    assert chisquare(found[:, :, 2].ravel(), p.sum(2).ravel() / p.sum() * 2500).pvalue > 0.01


def test_classes_that_are_not_allowed(network: NextToken) -> None:
    allowed = torch.tensor([[True, False, True]]).expand(2500, -1)
    found = drawn(network, [MASK] * 3, allowed=allowed)
    first = conditional(network, [])[[0, 2]].numpy()
    assert not (found == 1).any()
    assert chisquare(np.bincount(found[:, 0], minlength=3)[[0, 2]], first / first.sum() * 2500).pvalue > 0.01
    best = drawn(network, [MASK] * 3, rows=20, top_p=1e-6)
    assert (best == best[0]).all()
    assert best[0, 0] == conditional(network, []).argmax()


@torch.no_grad()
def test_steps_with_a_cache_are_the_plain_forward_pass(network: NextToken) -> None:
    tokens, places = CELLS[[5, 21]], PLACES.expand(2, -1, -1)
    plain = network(tokens.flatten(), places.flatten(0, 1), [L, L]).view(2, L, K)
    caches = [Cache(L) for _ in network.dit.blocks]
    before, place = torch.full((2,), MASK), places[:, 0]
    for i in range(L):
        assert torch.allclose(network.step(before, place, places[:, i], caches), plain[:, i], atol=1e-5)
        before, place = tokens[:, i], places[:, i]


def test_windows_by_hand() -> None:
    assert spans(5, 8) == [(0, 0, 5)]
    assert spans(10, 4) == [(0, 0, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]
    for size, limit in itertools.product(range(1, 40), range(2, 12)):
        found = spans(size, limit)
        assert [i for _, first, end in found for i in range(first, end)] == list(range(size))
        assert all(end - begin <= limit for begin, _, end in found)


def config(steps: int = 2, **fields: Any) -> AutoregressiveConfig:
    sampling = AutoregressiveSampling(batch=3, bucket=16, threads=1, device="cpu")
    network = DiTConfig(width=24, depth=1, heads=2)
    given = {"grid": GRID, "network": network, "training": training(steps), "sampling": sampling}
    return AutoregressiveConfig(**given | fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("autoregressive")
    generator = Autoregressive(config())
    generator.fit(HOUSES, out)
    lively(generator.network)
    generator.save(out / "lively")
    return out


def loaded(folder: Path, **fields: Any) -> Autoregressive:
    generator = Autoregressive.load(folder / "lively")
    generator.config = generator.config.model_copy(update=fields)
    return generator


def scenes(generator: Autoregressive, seeds: list[int], known: list[Known] | None = None) -> np.ndarray:
    return np.stack([found.labels for found in generator.sample(len(seeds), seeds, known)])


def test_keeps_the_protocol_and_saves_and_loads(folder: Path) -> None:
    fitted = Autoregressive(config())
    assert isinstance(fitted, Generator)
    fitted.fit(HOUSES, folder)  # finds the finished run
    again = Autoregressive.load(folder / "weights")
    assert (again.grid, again.taxonomy, again.config) == (GRID, load_taxonomy("minecraft"), fitted.config)
    assert again.provenance == fitted.provenance
    known = [hidden(HOUSES[0])]
    assert np.array_equal(scenes(again, [1], known), scenes(fitted, [1], known))
    assert [dict(s.provenance) for s in again.sample(1, [4], known)] == [{"source": "autoregressive", "seed": 4}]


@pytest.mark.parametrize("limit", [1024, 20])
def test_maps_and_known_classes_are_kept_and_seeds_are_all(folder: Path, limit: int) -> None:
    generator, known = loaded(folder, max_tokens=limit), [hidden(h) for h in HOUSES]
    half = known[1].labels
    half[4:][half[4:] == IGNORE] = STONE
    known[1] = Known(half, (PLANKS, GLASS))
    found = scenes(generator, list(range(6)), known)
    assert all(np.array_equal(a != EMPTY, k.labels != EMPTY) for a, k in zip(found, known, strict=True))
    assert (found != IGNORE).all()
    assert np.array_equal(found[1][half != IGNORE], half[half != IGNORE])
    assert set(np.unique(found[1][half == IGNORE])) <= {PLANKS, GLASS}
    for i in (0, 1, 5):
        assert np.array_equal(scenes(generator, [i], [known[i]])[0], found[i])
    assert not np.array_equal(*scenes(generator, [0, 1], [known[0]] * 2))


def test_maps_from_a_source(folder: Path) -> None:
    generator = loaded(folder)
    generator.source = GivenMaps.of(HOUSES, GRID)
    given = {m.tobytes() for m in generator.source.given}
    assert {(scene.labels != EMPTY).tobytes() for scene in generator.sample(4, [0, 1, 2, 3])} <= given


def test_training_lowers_the_exact_likelihood(tmp_path: Path) -> None:
    generator = Autoregressive(config(steps=50, shift=True))
    before = generator.likelihood(HOUSES)
    assert before.nll == pytest.approx(np.log(252), rel=1e-5)  # a new network knows nothing
    generator.fit(HOUSES, tmp_path)
    after = generator.likelihood(HOUSES)
    assert after.nll < 0.6 * before.nll
    assert after.low < after.nll < after.high
    assert (after.noise, after.draws) == (0, 1)
    assert after.tokens == sum((h.labels > 0).sum() for h in HOUSES)
    generator.config = generator.config.model_copy(update={"max_tokens": 20})
    assert generator.likelihood(HOUSES).nll != after.nll  # in windows


def test_the_loss_is_the_likelihood(folder: Path) -> None:
    generator = loaded(folder)
    sequences = [generator._tokens(h) for h in HOUSES]
    with torch.no_grad():
        loss = generator.loss(generator.network, collate(sequences), torch.Generator())[0]
    assert float(loss) == pytest.approx(generator.likelihood(HOUSES).nll, rel=1e-5)


def test_training_windows_are_in_order() -> None:
    tokens = Tokens(np.arange(30), np.stack([np.arange(30) % 6, np.arange(30) // 6, np.zeros(30, int)], 1))
    assert np.array_equal(in_order(tokens).positions, np.array(sorted(tokens.positions.tolist())))
    assert np.array_equal(in_order(in_order(tokens)).classes, in_order(tokens).classes)
    data = OrderedData(TokenData([tokens], (6, 6, 1), 10**9, turn=True), 7)
    seen = set()
    for seed in range(30):
        found = data.draw(0, np.random.default_rng(seed))
        assert len(found.classes) == 7
        assert found.positions.tolist() == sorted(found.positions.tolist())
        seen.add(tuple(found.classes))
    assert len(seen) > 15


def test_refusals(folder: Path, tmp_path: Path) -> None:
    generator, known = loaded(folder), hidden(HOUSES[0])
    with pytest.raises(InputError, match="an occupancy map"):
        generator.sample(1, [0])
    with pytest.raises(InputError, match="classes beside empty"):
        generator.sample(1, [0], [Known(known.labels, (0,))])
    with pytest.raises(InputError, match="taxonomy minecraft"):
        generator.fit([Scene(known.labels, GRID, load_taxonomy("semantic_kitti"))], tmp_path / "a")
    large = Scene(np.ones((9, 3, 3), np.uint8), VoxelGrid((9, 3, 3), 1.0, (0.0, 0.0, 0.0)), load_taxonomy("minecraft"))
    with pytest.raises(InputError, match="at most"):
        generator.fit([large], tmp_path / "b")
    with pytest.raises(InputError, match="two scenes"):
        generator.likelihood([])
    save_parts(tmp_path / "other", {"model": {}}, {"config": {"method": "whole_scene"}})
    with pytest.raises(InputError, match="weights of autoregressive"):
        Autoregressive.load(tmp_path / "other")
