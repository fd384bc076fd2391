"""Marginals, posteriors and losses against dense matrices and Bayes' rule by hand; draws against both."""

import itertools

import numpy as np
import pytest
import torch

from pipeline.diffusion import d3pm
from pipeline.diffusion.sampling import categorical
from pipeline.diffusion.schedules import ScheduleKind, pairs, respaced
from tests.diffusion import dense

K, T = 4, 7
PROCESSES = [
    d3pm.process_of(kind, schedule, K, T)
    for kind in ("uniform", "absorbing")
    for schedule in ("cosine", "cosine_squared", "linear")
]
UNIFORM, ABSORBING = PROCESSES[0], PROCESSES[3]
every_process = pytest.mark.parametrize("process", PROCESSES)
STEPS = [(t, t - 1) for t in range(1, T + 1)] + pairs(respaced(T, 3)) + [(T, 0), (6, 1)]


def draws(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, count), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def even(count: int) -> torch.Tensor:
    """Evenly spaced uniforms: every event of probability p has count * p of them, to one at each end of an interval."""
    return ((torch.arange(count, dtype=torch.float64) + 0.5) / count)[None]


def shares(x: torch.Tensor, states: int) -> np.ndarray:
    return np.bincount(x.flatten().numpy(), minlength=states) / x.numel()


def times(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def predictions(seed: int = 0, rows: int = 6) -> torch.Tensor:
    """Log-probabilities of x_0, some of them nearly certain, (rows, K)."""
    scale = torch.tensor([0.0, 1, 1, 3, 3, 8])[:rows, None]
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, K, generator=generator, dtype=torch.float64) * scale).log_softmax(-1)


def test_steps_and_states() -> None:
    assert (UNIFORM.steps, UNIFORM.states, ABSORBING.states) == (T, K, K + 1)
    assert UNIFORM.at(times(0, 3)).shape == (2, 1)


@every_process
def test_corruption_is_the_matrices_product(process: d3pm.Process) -> None:
    count = 2000
    for t, x_0 in itertools.product(range(1, T + 1), range(K)):
        x_t = d3pm.corrupt(process, torch.full((1, count), x_0), times(t), even(count))
        exact = dense.product(process, 0, t)[x_0]
        assert np.abs(shares(x_t, process.states) - exact).max() <= 2.5 / count


@every_process
def test_corruption_by_chi_square(process: d3pm.Process) -> None:
    x_0 = torch.full((1, 100_000), 2)
    for t in (1, 3, T):
        x_t = d3pm.corrupt(process, x_0, times(t), draws(100_000, t))
        counts = np.bincount(x_t.flatten().numpy(), minlength=process.states)
        exact = dense.product(process, 0, t)[2]
        if (rare := exact * 100_000 < 5).any():  # nearly nothing is left at T
            counts, exact = np.append(counts[~rare], counts[rare].sum()), np.append(exact[~rare], exact[rare].sum())
            assert counts[-1] < 100_000 * exact[-1] + 30
            counts, exact = counts[:-1], exact[:-1]
        assert dense.p_value(counts, exact) > 1e-3


def test_each_sample_of_a_batch_is_corrupted_to_its_own_time() -> None:
    x_0 = torch.randint(K, (2, 3000), generator=torch.Generator().manual_seed(0))
    u = draws(6000).view(2, 3000)
    both = d3pm.corrupt(UNIFORM, x_0, times(1, 6), u)
    for row, t in enumerate((1, 6)):
        assert torch.equal(both[row : row + 1], d3pm.corrupt(UNIFORM, x_0[row : row + 1], times(t), u[row : row + 1]))


def test_corruption_at_the_ends_of_the_uniforms() -> None:
    ends = torch.tensor([[0.0, 1 - 2.0**-53]], dtype=torch.float64)
    x_0 = torch.tensor([[3, 3]])
    for t in range(1, T + 1):
        assert d3pm.corrupt(UNIFORM, x_0, times(t), ends).tolist() == [[3, K - 1]]
        assert d3pm.corrupt(ABSORBING, x_0, times(t), ends).tolist() == [[3, K]]


def test_prior() -> None:
    assert np.abs(shares(d3pm.prior(UNIFORM, even(4000)), K) - 1 / K).max() < 1e-12
    assert d3pm.prior(UNIFORM, torch.tensor([[1 - 2.0**-53]], dtype=torch.float64)).tolist() == [[K - 1]]
    assert (d3pm.prior(ABSORBING, even(10)) == K).all()


@every_process
@pytest.mark.parametrize("step", STEPS)
def test_posterior_of_a_certain_x0_is_bayes_rule(process: d3pm.Process, step: tuple[int, int]) -> None:
    t, s = step
    exact = dense.posterior(process, t, s)
    for x_t, x_0 in itertools.product(range(process.states), range(K)):
        if not exact[x_t, x_0].any():  # absorbing: another class than x_0 can't appear
            continue
        certain = torch.full((1, 1, K), -torch.inf, dtype=torch.float64)
        certain[..., x_0] = 0
        for version in ("mixed", "soft"):
            found = d3pm.log_posterior(process, torch.tensor([[x_t]]), certain, times(t), times(s), version).exp()
            assert np.abs(found[0, 0].numpy() - exact[x_t, x_0]).max() < 1e-12


@every_process
@pytest.mark.parametrize("step", STEPS)
def test_both_versions_of_an_uncertain_x0(process: d3pm.Process, step: tuple[int, int]) -> None:
    """Mixed: the average of Bayes' posteriors; soft: x_0 as a soft row in x_t Q^T * x_0 Qbar (eq. 2)."""
    t, s = step
    exact, log_p0 = dense.posterior(process, t, s), predictions()
    first, then = dense.product(process, 0, s), dense.product(process, s, t)
    for x_t in range(process.states):
        rows = torch.full((1, len(log_p0)), x_t)
        p0 = log_p0.exp().numpy()
        mixed = p0 @ exact[x_t]
        found = d3pm.log_posterior(process, rows, log_p0[None], times(t), times(s)).exp()[0].numpy()
        assert np.allclose(found.sum(-1), 1, atol=1e-12)
        if process.kind == "absorbing" and x_t < K:
            assert np.array_equal(found, np.tile(np.eye(K + 1)[x_t], (len(p0), 1)))
            continue
        assert np.abs(found - mixed).max() < 1e-12
        soft = (p0 @ first[:K]) * then[:, x_t]
        soft /= soft.sum(-1, keepdims=True)
        found = d3pm.log_posterior(process, rows, log_p0[None], times(t), times(s), "soft").exp()[0].numpy()
        assert np.abs(found - soft).max() < 1e-12


def test_the_versions_are_not_equal_and_a_batch_has_its_own_times() -> None:
    x_t, log_p0 = torch.tensor([[0, 1, 2], [0, 1, 2]]), predictions()[None, 3:].expand(2, -1, -1)
    t, s = times(5, 2), times(4, 0)
    mixed, soft = (d3pm.log_posterior(UNIFORM, x_t, log_p0, t, s, version) for version in ("mixed", "soft"))  # type: ignore[arg-type]
    assert (mixed[0].exp() - soft[0].exp()).abs().max() > 1e-2
    for row in range(2):
        one = (a[row : row + 1] for a in (x_t, log_p0, t, s))
        assert torch.equal(d3pm.log_posterior(UNIFORM, *one)[0], mixed[row])
    assert torch.allclose(mixed[1].exp(), log_p0[1].exp(), atol=1e-12)  # at s = 0 it is x_0 itself


@every_process
@pytest.mark.parametrize("step", STEPS)
def test_a_drawn_step_has_the_posteriors_shares(process: d3pm.Process, step: tuple[int, int]) -> None:
    t, s = step
    exact, count = dense.posterior(process, t, s), 1000
    for x_t, x_0 in itertools.product(range(process.states), range(K)):
        if not exact[x_t, x_0].any():
            continue
        x_s = d3pm.draw_previous(process, torch.full((1, count), x_t), torch.full((1, count), x_0), (t, s), even(count))
        assert np.abs(shares(x_s, process.states) - exact[x_t, x_0]).max() <= 4 / count


@pytest.mark.parametrize(("process", "step"), [(UNIFORM, (4, 3)), (UNIFORM, (T, 2)), (ABSORBING, (5, 2))])
def test_drawing_x0_and_then_xs_is_the_mixed_version(process: d3pm.Process, step: tuple[int, int]) -> None:
    p0 = torch.tensor([0.6, 2e-3, 0.3, 0.098], dtype=torch.float64)  # a rare class among them
    count, x_t = 200_000, 1 if process.kind == "uniform" else K
    x_0 = categorical(p0.log().float().repeat(count, 1), draws(count, 1)[0])[None]
    x_s = d3pm.draw_previous(process, torch.full((1, count), x_t), x_0, step, draws(count, 2))
    log_p = d3pm.log_posterior(process, torch.tensor([[x_t]]), p0.log()[None, None], times(step[0]), times(step[1]))
    counts = np.bincount(x_s.flatten().numpy(), minlength=process.states)
    assert dense.p_value(counts, log_p.exp()[0, 0].numpy()) > 1e-3


def test_an_unmasked_voxel_never_changes_and_the_last_step_leaves_no_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randint(K + 1, (1, 5000), generator=generator)
    x_0 = torch.randint(K, (1, 5000), generator=generator)
    for step in STEPS:
        x_s = d3pm.draw_previous(ABSORBING, x_t, x_0, step, draws(5000))
        assert torch.equal(x_s[x_t < K], x_t[x_t < K])
        if step[1] == 0:
            assert torch.equal(x_s[x_t == K], x_0[x_t == K])


@every_process
@pytest.mark.parametrize("t", range(1, T + 1))
def test_divergence_is_the_dense_kl(process: d3pm.Process, t: int) -> None:
    exact, log_p0 = dense.posterior(process, t, t - 1), predictions()
    p0 = log_p0.exp().numpy()
    for x_t, x_0 in itertools.product(range(process.states), range(K)):
        q = exact[x_t, x_0]
        if not q.any():
            continue
        # absorbing: what isn't masked stays, whatever is predicted
        p = np.tile(q, (len(p0), 1)) if process.kind == "absorbing" and x_t < K else p0 @ exact[x_t]
        some = q > 0
        direct = (q[some] * (np.log(q[some]) - np.log(p[:, some]))).sum(-1)
        rows = len(log_p0)
        kl, ce = d3pm.divergence(
            process, 3 + log_p0[None], torch.full((1, rows), x_0), torch.full((1, rows), x_t), times(t)
        )
        assert np.abs(kl[0].numpy() - direct).max() < 1e-11
        assert np.allclose(ce[0].numpy(), -log_p0[:, x_0].numpy())
        if t == 1 and (process.kind == "uniform" or x_t == K):
            assert np.allclose(kl[0].numpy(), ce[0].numpy(), atol=1e-11)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
@pytest.mark.parametrize("schedule", ["cosine", "cosine_squared", "linear"])
def test_float32_is_good_enough_at_a_thousand_steps(kind: d3pm.ProcessKind, schedule: ScheduleKind) -> None:
    process, rows = d3pm.process_of(kind, schedule, 20, 1000), 1000
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, 50, 20, generator=generator, dtype=torch.float64) * 4
    x_0 = torch.randint(20, (rows, 50), generator=generator)
    t = torch.arange(1, 1001)
    x_t = d3pm.corrupt(process, x_0, t, torch.rand((rows, 50), generator=generator, dtype=torch.float64))
    exact, single = (d3pm.divergence(process, a, x_0, x_t, t)[0] for a in (logits, logits.float()))
    error = (1000 * (single - exact)).abs()
    assert (error <= 0.01 + 0.01 * 1000 * exact.abs()).all()


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_gradient_is_finite_where_the_prediction_is_certain_and_wrong(kind: d3pm.ProcessKind) -> None:
    process = d3pm.process_of(kind, "cosine", K, T)
    logits = torch.zeros(T, K * K, K)
    logits[..., 0] = 300.0  # p(x_0) is 0 in float32 but for one class
    logits.requires_grad_()
    cells = torch.tensor(list(itertools.product(range(process.states), range(K))))[-K * K :]
    x_t, x_0 = cells.T[:, None].expand(-1, T, -1)
    kl, ce = d3pm.hybrid_loss(process, logits, x_0, x_t, torch.arange(1, T + 1), torch.ones(T, K * K, dtype=torch.bool))
    (kl + ce).backward()
    assert torch.isfinite(kl)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]
    assert logits.grad.abs().max() > 0  # type: ignore[union-attr]


def test_hybrid_loss_averages_valid_voxels_of_each_sample() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 5, K, generator=generator)
    x_0, x_t = torch.randint(K, (2, 3, 5), generator=generator)
    t = times(1, 4, 7)
    valid = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    kl, ce = d3pm.divergence(UNIFORM, logits, x_0, x_t, t)
    by_hand = [(term[0, [0, 1, 4]].mean() + 0 + term[2].mean()) / 3 for term in (kl, ce)]
    found = d3pm.hybrid_loss(UNIFORM, logits, x_0, x_t, t, valid)
    assert found[0].item() == pytest.approx(T * by_hand[0].item(), rel=1e-5)
    assert found[1].item() == pytest.approx(by_hand[1].item(), rel=1e-5)


@every_process
def test_own_evidence_is_the_likelihood_ratio(process: d3pm.Process) -> None:
    for t in range(1, T + 1):
        matrix = dense.product(process, 0, t)
        found = d3pm.own_evidence(process, times(t)).item()
        expected = np.log(matrix[0, 0] / matrix[1, 0]) if process.kind == "uniform" else 0.0
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
@pytest.mark.parametrize("samples", [1, 3, 20])
def test_the_reverse_process_with_bayes_denoiser_gives_the_data_back(kind: d3pm.ProcessKind, samples: int) -> None:
    """Three voxels that hang together; x_0 drawn from p(x_0 | x_t) jointly, so any number of steps is exact."""
    process, count = d3pm.process_of(kind, "cosine", 3, 20), 20_000
    cells = torch.tensor(list(itertools.product(range(3), repeat=3)))
    data = torch.where((cells[:, 0] == cells[:, 1]) & (cells[:, 2] <= cells[:, 1]), 8.0, 0.5).double()
    data[5] = 0.0
    data /= data.sum()
    generator = torch.Generator().manual_seed(samples)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    x = d3pm.prior(process, rand(count, 3))
    for t, s in pairs(respaced(20, samples)):
        likelihood = torch.from_numpy(dense.product(process, 0, t))[cells]  # cell, voxel, state
        log_joint = data.log() + sum(likelihood[:, v, x[:, v]].log() for v in range(3)).T
        x_0 = cells[categorical(log_joint, rand(count))]
        x = d3pm.draw_previous(process, x, x_0, (t, s), rand(count, 3))
    counts = np.bincount((x @ torch.tensor([9, 3, 1])).numpy(), minlength=27)
    assert dense.p_value(counts, data.numpy()) > 1e-3
