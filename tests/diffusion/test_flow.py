"""Flows between sets of classes against sums over brute-force posteriors."""

import numpy as np
import pytest
import torch

from pipeline.diffusion import d3pm
from pipeline.diffusion.flow import Flow, FlowMeter, group_probability, teacher_forced
from pipeline.diffusion.schedules import pairs, respaced
from pipeline.diffusion.stage import Stage, StageConfig, StageData
from pipeline.learning.config import TrainConfig

K = 5
FOREGROUND = torch.tensor([False, False, True, False, True])
BACKGROUND = torch.tensor([False, True, False, True, False])
NOT_FOREGROUND = ~FOREGROUND
BOTH = {"solid": BACKGROUND, "all": NOT_FOREGROUND}
STEPS = [(1, 0), (2, 1), (6, 5), (6, 2), (12, 11), (12, 0), (12, 4)]


def process_of(kind: d3pm.ProcessKind) -> d3pm.Process:
    return d3pm.process_of(kind, "cosine", K, 12)


def posterior(process: d3pm.Process, p0: np.ndarray, x_t: int, times: tuple[int, int]) -> np.ndarray:
    """p(x_s | x_t) = sum_k p0_k q(x_s | x_t, k), each q by Bayes' rule on dense matrices, in float64."""
    t, s = times

    def transition(keep: float) -> np.ndarray:
        matrix = np.eye(process.states) * keep
        if process.kind == "uniform":
            return matrix + (1 - keep) / K
        matrix[:, K] += 1 - keep
        return matrix

    bars = process.alpha_bar.numpy()
    first, then = transition(bars[s]), transition(bars[t] / bars[s])
    total = np.zeros(process.states)
    for k in range(K):
        joint = first[k] * then[:, x_t]
        total += p0[k] * joint / joint.sum() if joint.sum() else 0
    return total


def random_case(process: d3pm.Process, seed: int, n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (2, n, K)))
    return torch.from_numpy(rng.integers(0, process.states, (2, n))), logits


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
@pytest.mark.parametrize("times", STEPS)
def test_group_probability_is_the_posteriors_sum_over_the_group(kind: d3pm.ProcessKind, times: tuple[int, int]) -> None:
    process = process_of(kind)
    x_t, logits = random_case(process, 1)
    if kind == "absorbing":
        x_t[0] = K
    p0 = logits.softmax(-1)
    same = torch.cat([p0, torch.zeros(2, 40, 1)], -1).gather(-1, x_t[..., None])[..., 0]
    for group in (FOREGROUND, BACKGROUND, NOT_FOREGROUND):
        found = group_probability(process, x_t, p0[..., group].sum(-1), same, times, group)
        for b, n in np.ndindex(*x_t.shape):
            if kind == "absorbing" and x_t[b, n] < K:
                expected = float(group[x_t[b, n]])
            else:
                expected = posterior(process, p0[b, n].numpy(), int(x_t[b, n]), times)[:K][group.numpy()].sum()
            assert found[b, n].item() == pytest.approx(expected, abs=1e-12)


def test_groups_that_cover_all_classes_add_up_to_one() -> None:
    process = process_of("uniform")
    x_t, logits = random_case(process, 2)
    p0 = logits.softmax(-1)
    same = p0.gather(-1, x_t[..., None])[..., 0]
    parts = [
        group_probability(process, x_t, p0[..., group].sum(-1), same, (9, 3), group)
        for group in (FOREGROUND, NOT_FOREGROUND)
    ]
    assert torch.allclose(parts[0] + parts[1], torch.ones(2, 40, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("times", STEPS)
def test_meter_agrees_with_the_log_posterior(times: tuple[int, int]) -> None:
    process = process_of("uniform")
    x_t, logits = random_case(process, 3)
    valid = torch.from_numpy(np.random.default_rng(0).random((2, 40)) < 0.8)
    meter = FlowMeter(process, FOREGROUND, BOTH)
    meter.see(x_t, logits, times, valid)
    t, s = (torch.full((2,), time) for time in times)
    exact = d3pm.log_posterior(process, x_t, logits.log_softmax(-1), t, s).exp()
    for name, background in BOTH.items():
        flow = meter.flows()[name]
        leaves, enters = FOREGROUND[x_t] & valid, background[x_t] & valid
        assert np.allclose(flow.alpha[0], (exact[..., background].sum(-1) * leaves).sum(1), atol=1e-9)
        assert np.allclose(flow.beta[0], (exact[..., FOREGROUND].sum(-1) * enters).sum(1), atol=1e-9)
        assert flow.foreground[0].tolist() == leaves.sum(1).tolist()
        assert flow.background[0].tolist() == enters.sum(1).tolist()
        assert flow.voxels[0].tolist() == valid.sum(1).tolist()


def test_exact_posterior_is_the_meter_of_a_certain_model() -> None:
    process = process_of("uniform")
    x_t, logits = random_case(process, 4)
    x_0, valid = logits.argmax(-1), torch.ones(2, 40, dtype=torch.bool)
    certain = torch.full_like(logits, -torch.inf).scatter_(-1, x_0[..., None], 0.0)
    model, exact = FlowMeter(process, FOREGROUND, BOTH), FlowMeter(process, FOREGROUND, BOTH)
    for times in STEPS:
        model.see(x_t, certain, times)
        exact.see_exact(x_t, x_0, times, valid)
    for name in BOTH:
        assert np.allclose(model.flows()[name].alpha, exact.flows()[name].alpha)
        assert np.allclose(model.flows()[name].beta, exact.flows()[name].beta)


def test_a_calibrated_prediction_flows_as_the_exact_posterior_does() -> None:
    """With p(x_0 | x_t) by Bayes' rule, alpha and beta agree with the exact ones in expectation, at every step."""
    process = process_of("uniform")
    share = torch.tensor([0.8, 0.14, 0.03, 0.02, 0.01], dtype=torch.float64)
    streams = torch.Generator().manual_seed(0)
    x_0 = torch.multinomial(share, 60_000, replacement=True, generator=streams)[None]
    for times in [(12, 8), (8, 4), (4, 1), (1, 0)]:
        uniforms = torch.rand(x_0.shape, generator=streams, dtype=torch.float64)
        x_t = d3pm.corrupt(process, x_0, torch.tensor([times[0]]), uniforms)
        end = process.alpha_bar[times[0]]
        likelihood = end * torch.eye(K, dtype=torch.float64) + (1 - end) / K
        model, exact = FlowMeter(process, FOREGROUND, BOTH), FlowMeter(process, FOREGROUND, BOTH)
        model.see(x_t, (share.log() + likelihood.log()[:, x_t[0]].T)[None], times)
        exact.see_exact(x_t, x_0, times, torch.ones_like(x_t, dtype=torch.bool))
        for name in BOTH:
            a, b = model.flows()[name], exact.flows()[name]
            for found, expected in ((a.alpha, b.alpha), (a.beta, b.beta)):
                assert abs(found.item() - expected.item()) < 5 * np.sqrt(expected.item() + 1)


def test_flow_figures() -> None:
    two = np.ones((2, 3))
    flow = Flow(((2, 1), (1, 0)), 2 * two, two, 8 * two, 10 * two, 20 * two)
    assert flow.alpha_rate.tolist() == [0.25, 0.25]
    assert flow.beta_rate.tolist() == [0.1, 0.1]
    assert flow.lost.tolist() == [1, 2]
    assert flow.share.tolist() == [0.4, 0.4]
    assert flow.first(2).alpha.shape == (2, 2)


def tiny_stage(**fields: object) -> Stage:
    settings = {"width": 32, "depth": 1, "channels": 4, "patch": 2, "steps": 12} | fields
    return Stage(StageConfig(training=TrainConfig(steps=1, batch_size=1), **settings), (4, 4, 2), K)  # type: ignore[arg-type]


def measured(stage: Stage, data: StageData, batch: int, seed: int = 3) -> tuple[Flow, Flow]:
    model, exact = (FlowMeter(stage.process, FOREGROUND, BOTH) for _ in range(2))
    teacher_forced(stage, data, pairs(respaced(12, 4)), seed, (model, exact), batch)
    return model.flows()["all"], exact.flows()["all"]


def test_teacher_forced_counts_valid_voxels_and_depends_on_scene_and_seed_alone() -> None:
    target = np.random.default_rng(0).integers(0, K, (3, 4, 4, 2)).astype(np.uint8)
    target[0, 0] = 255
    data = StageData(target, np.where(target == 255, 0, target).astype(np.uint8))
    stage = tiny_stage(self_condition=True)
    model, exact = measured(stage, data, batch=2)
    assert model.times == tuple(pairs(respaced(12, 4)))
    assert (model.voxels == [[24, 32, 32]]).all()
    assert np.array_equal(model.foreground, exact.foreground)
    alone = measured(stage, StageData(data.target[:1], data.filled[:1]), batch=1)[0]
    assert np.allclose(alone.alpha[:, 0], model.alpha[:, 0])
    assert np.array_equal(model.alpha, measured(stage, data, batch=2)[0].alpha)
    assert not np.array_equal(exact.alpha, measured(stage, data, batch=2, seed=4)[1].alpha)


def test_a_stages_watch_sees_every_step_it_draws() -> None:
    stage = tiny_stage()
    meter = FlowMeter(stage.process, FOREGROUND, BOTH)
    plain = stage.sample([torch.Generator().manual_seed(0)], steps=4)
    stage.watch = meter.see
    watched = stage.sample([torch.Generator().manual_seed(0)], steps=4)
    assert torch.equal(plain, watched)
    flow = meter.flows()["all"]
    assert flow.times == tuple(pairs(respaced(12, 4)))
    # an untrained network believes in all classes alike: x_T is uniform, and every step leaves it so
    assert flow.foreground[0] == pytest.approx(32 * 2 / 5, abs=10)
