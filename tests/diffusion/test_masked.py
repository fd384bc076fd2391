"""The absorbing process in continuous time: against dense matrices, and bounds against exact entropies."""

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.diffusion import d3pm, masked
from pipeline.diffusion.masked import MASK
from pipeline.diffusion.sampling import categorical, generators
from pipeline.scene.errors import InputError
from tests.diffusion import dense, tiny_joint

EPS, T = 1e-3, 7


def log_linear(steps: int, eps: float = EPS) -> torch.Tensor:
    return 1 - (1 - eps) * torch.arange(steps + 1, dtype=torch.float64) / steps


def even(count: int) -> torch.Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_corruption_is_the_dense_chain() -> None:
    process = d3pm.Process("absorbing", 3, log_linear(T))
    for i, x_0 in itertools.product(range(1, T + 1), range(3)):
        z = masked.mask_tokens(torch.full((2000,), x_0), torch.tensor(i / T).double(), even(2000), EPS)
        exact = dense.product(process, 0, i)[x_0]
        assert set(z.tolist()) <= {x_0, MASK}
        assert abs((z == MASK).double().mean().item() - exact[3]) <= 1 / 2000


def test_corruption_by_chi_square_with_a_time_a_row() -> None:
    t = torch.tensor([[0.001], [0.5], [1.0]], dtype=torch.float64)
    uniforms = torch.rand((3, 100_000), generator=stream(), dtype=torch.float64)
    z = masked.mask_tokens(torch.ones(3, 100_000, dtype=torch.int64), t, uniforms)
    for row, share in zip(z, (1 - EPS) * t[:, 0], strict=True):
        counts = np.array([(row == MASK).sum().item(), (row == 1).sum().item()])
        assert dense.p_value(counts, np.array([share, 1 - share])) > 1e-3


@pytest.mark.parametrize("steps", [None, 5])
def test_times_are_antithetic(steps: int | None) -> None:
    t = torch.stack([masked.antithetic_times(8, stream(seed), steps=steps) for seed in range(600)])
    assert t.min() > 0
    assert t.max() <= 1
    if steps is None:
        parts = (1 - t) / (1 - 1e-3) * 8
        assert (parts.floor() == torch.arange(8)).all()  # one in each eighth
        assert abs(t.mean().item() - (1 + 1e-3) / 2) < 3e-3
    else:
        assert torch.allclose(t * steps, (t * steps).round())
        shares = np.bincount((t * steps).round().long().flatten().numpy(), minlength=6)[1:] / t.numel()
        assert np.abs(shares - 0.2).max() < 0.02


@pytest.mark.parametrize("i", range(1, T + 1))
def test_discrete_weight_is_the_dense_kl(i: int) -> None:
    """T x KL(q(z_s | z_t, x_0) || p(z_s | z_t)) of a masked token, by transition matrices; 0 of an open one."""
    process = d3pm.Process("absorbing", 3, log_linear(T))
    exact = dense.posterior(process, i, i - 1)
    logits = torch.randn(1, 3, generator=stream(i), dtype=torch.float64)
    p = logits.softmax(-1)[0].numpy() @ exact[3]  # p(z_s | z_t = mask), mixed
    for x_0 in range(3):
        q = exact[3, x_0]
        some = q > 0
        kl = (q[some] * np.log(q[some] / p[some])).sum()
        found, ce = masked.weighted_cross_entropy(logits, torch.tensor([x_0]), torch.tensor([i / T]).double())
        assert found.item() == pytest.approx(T * kl, rel=1e-5)
        assert ce.item() == pytest.approx(-logits.log_softmax(-1)[0, x_0].item(), rel=1e-5)


def test_continuous_weight_is_the_schedules_rate() -> None:
    """sigma' / (e^sigma - 1), differentiated numerically."""
    for t in (0.01, 0.3, 0.9):
        sigma = [-math.log(1 - (1 - EPS) * (t + d)) for d in (-1e-6, 0, 1e-6)]
        rate = (sigma[2] - sigma[0]) / 2e-6 / math.expm1(sigma[1])
        found, ce = masked.weighted_cross_entropy(
            torch.zeros(1, 4), torch.tensor([1]), torch.tensor([t], dtype=torch.float64)
        )
        assert (found / ce).item() == pytest.approx(rate, rel=1e-4)


def test_subs_carries_over_and_normalises() -> None:
    logits = torch.randn(2, 3, 4, generator=stream())
    z = torch.tensor([[MASK, 2, MASK], [0, MASK, 3]])
    found = masked.log_p0(logits, z).exp()
    assert torch.allclose(found.sum(-1), torch.ones(2, 3))
    assert torch.equal(found[0, 1], torch.eye(4)[2])
    assert torch.equal(found[1, 2], torch.eye(4)[3])
    assert torch.allclose(found[0, 0], logits[0, 0].softmax(-1))


def test_random_subsets_are_even_and_of_free_tokens() -> None:
    free = torch.tensor([[True, True, False, True]]).expand(30_000, -1)
    uniforms = torch.rand((30_000, 4), generator=stream(), dtype=torch.float64)
    chosen = masked.random_subset(free, torch.full((30_000,), 2), uniforms)
    assert (chosen.sum(1) == 2).all()
    assert not chosen[:, 2].any()
    counts = np.array([(~chosen[:, c]).sum().item() for c in (0, 1, 3)])
    assert dense.p_value(counts, np.full(3, 1 / 3)) > 1e-3


def exact_bound(x_0: torch.Tensor) -> float:
    """The integral of the continuous-time bound over every mask, in closed form: weight B(n, L - n + 1)."""
    total, size = 0.0, len(x_0)
    for pattern in itertools.product([False, True], repeat=size):
        hidden = torch.tensor(pattern)
        if n := int(hidden.sum()):
            log_p = masked.log_p0(tiny_joint.bayes(torch.where(hidden, MASK, x_0)[None]), torch.full((1, size), MASK))
            lost = -log_p[0].gather(-1, x_0[:, None])[:, 0][hidden].sum().item()
            total += lost * math.gamma(n) * math.gamma(size - n + 1) / math.gamma(size + 1)
    return total


def test_bound_with_bayes_denoiser_is_the_exact_entropy() -> None:
    p = tiny_joint.probabilities()
    mean = sum(p[c].item() * exact_bound(x_0) for c, x_0 in enumerate(tiny_joint.CELLS) if p[c] > 0)
    assert mean == pytest.approx(tiny_joint.entropy(), rel=1e-9)


def test_estimates_agree_with_the_integral() -> None:
    """Both ways: subsets of a uniform size, and masks at antithetic times with weight 1/t."""
    count, draws, free = 1500, 4, torch.ones(1500, 3, dtype=torch.bool)
    for cell in (0, 7, 18):
        x_0 = tiny_joint.CELLS[cell].expand(count, -1)
        exact = exact_bound(x_0[0])
        found = masked.bounds(tiny_joint.bayes, x_0, free, generators(list(range(count)), free.device), draws)
        assert found.shape == (count, draws)
        error = found.mean(1).std().item() / math.sqrt(count)
        assert abs(found.mean().item() - exact) < 4 * error
        t = masked.antithetic_times(count, stream(cell))
        z = masked.mask_tokens(x_0, t[:, None], torch.rand((count, 3), generator=stream(1), dtype=torch.float64), 0.0)
        hidden = z == MASK
        terms, _ = masked.weighted_cross_entropy(
            tiny_joint.bayes(z)[hidden], x_0[hidden], t[:, None].expand(-1, 3)[hidden]
        )
        rows = torch.zeros(count).index_add_(0, hidden.nonzero()[:, 0], terms)
        assert abs(rows.mean().item() - exact) < 4 * rows.std().item() / math.sqrt(count) + 0.003  # MDLM's cut


def test_likelihood_of_a_known_distribution_holds_its_entropy() -> None:
    cells = categorical(
        tiny_joint.probabilities().log().expand(2000, -1), torch.rand(2000, generator=stream(3), dtype=torch.float64)
    )
    x_0, free = tiny_joint.CELLS[cells], torch.ones(2000, 3, dtype=torch.bool)
    found = masked.bounds(tiny_joint.bayes, x_0, free, generators(list(range(2000)), free.device), 2)
    got = masked.likelihood(found.numpy(), np.full(2000, 3))
    exact = tiny_joint.entropy() / 3
    assert got.low < exact < got.high
    assert got.high - got.low < 0.1 * exact
    assert 0 < got.noise < (got.high - got.low) / 2
    assert got.perplexity == pytest.approx((math.exp(got.nll), math.exp(got.low), math.exp(got.high)))
    assert (got.sequences, got.tokens, got.draws) == (2000, 6000, 2)


def test_bounds_hold_known_tokens_and_depend_on_their_row_alone() -> None:
    x_0 = tiny_joint.CELLS[[0, 9, 13]]
    free = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    found = masked.bounds(tiny_joint.bayes, x_0, free, generators([5, 6, 7], free.device), 300)
    assert (found[1] == 0).all()
    p = tiny_joint.probabilities()
    fits = tiny_joint.CELLS[:, 1] == x_0[0, 1]
    exact = -math.log(p[0] / p[fits].sum())  # -log p(free | known): Bayes' bound is tight only on average over x_0 ...
    given = p * fits / p[fits].sum()
    cells = [c for c in range(27) if given[c] > 0]
    rows = tiny_joint.CELLS[cells]
    each = masked.bounds(
        tiny_joint.bayes, rows, free[:1].expand(len(rows), -1), generators(list(range(len(rows))), rows.device), 400
    )
    entropy = -(given[cells] * given[cells].log()).sum().item()
    assert (given[cells] * each.mean(1)).sum().item() == pytest.approx(entropy, rel=0.03)  # ... and so it is here
    assert found[0].mean().item() >= exact - 0.1
    alone = masked.bounds(tiny_joint.bayes, x_0[2:], free[2:], generators([7], free.device), 300)
    assert torch.equal(alone[0], found[2])


def test_interval_is_a_ratios() -> None:
    """Its coverage over many small sets of sequences of unlike length."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(500):
        tokens = rng.integers(5, 60, 20)
        sums = tokens * (0.7 + 0.2 * rng.standard_normal(20)) + rng.standard_normal(20)
        got = masked.likelihood(sums[:, None], tokens)
        hits += got.low < 0.7 < got.high
    assert 0.92 < hits / 500 < 0.98


def test_a_likelihood_of_one_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="two sequences"):
        masked.likelihood(np.ones((1, 4)), np.array([3]))


def test_a_share_of_times_is_where_draws_begin() -> None:
    t, stream = masked.antithetic_times(4000, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    assert torch.equal(masked.with_all_hidden(t, 0.0, stream), t)
    found = masked.with_all_hidden(t, 0.25, stream)
    assert 900 < int((found == 1).sum()) < 1100
    assert ((found == t) | (found == 1)).all()
