"""Samplers against exact joint distributions, with Bayes' denoiser; draws against exact frequencies."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.diffusion import d3pm
from pipeline.diffusion import masked_samplers as samplers
from pipeline.diffusion.masked import MASK, Denoise
from pipeline.diffusion.sampling import categorical, generators
from tests.diffusion import dense, tiny_joint
from tests.diffusion.tiny_joint import bayes, counts_of

CPU = torch.device("cpu")
Sample = Callable[..., torch.Tensor]


def _a_token_a_call(denoise: Denoise, start: torch.Tensor, streams: list[torch.Generator], _calls: int) -> torch.Tensor:
    return samplers.adaptive(denoise, start, streams, samplers.Adaptive(sure=1))


EVERY: dict[str, tuple[Sample, int]] = {
    "ancestral": (samplers.ancestral, 12),
    "first_hitting": (samplers.first_hitting, 2),
    "confidence": (samplers.confidence_ordered, 2),
    "adaptive": (_a_token_a_call, 3),
    "remasking": (functools.partial(samplers.remasking, eta=0.5), 12),
    "capped": (functools.partial(samplers.remasking, eta=0.1, rule="cap"), 12),
}
every_sampler = pytest.mark.parametrize("name", EVERY)


def masks(rows: int, length: int = 3) -> torch.Tensor:
    return torch.full((rows, length), MASK)


def streams(rows: int, first: int = 0) -> list[torch.Generator]:
    return generators(list(range(first, first + rows)), CPU)


def side_by_side(denoise: Denoise) -> Denoise:
    """Many sequences of three in one row, for samplers whose tokens open independently: one stream draws them all."""
    return lambda z: denoise(z.view(-1, 3)).view(1, -1, 3)


def joint_p_value(x: torch.Tensor) -> float:
    counts, p = counts_of(x), tiny_joint.probabilities().numpy()
    rare = (p > 0) & (p * len(x) < 5)
    assert not rare.any()
    return dense.p_value(counts, p)


@pytest.mark.parametrize("step", [(1, 0), (4, 3), (7, 6)])
def test_an_ancestral_step_is_the_dense_posterior(step: tuple[int, int]) -> None:
    """T = 7: the share that opens on the way from t to s, and its classes, by Bayes' rule on matrices."""
    t, s = step
    process = d3pm.Process("absorbing", 3, 1 - torch.arange(8, dtype=torch.float64) / 7 * (1 - 1e-3))
    p0, count = torch.tensor([0.7, 0.299, 0.001], dtype=torch.float64), 60_000
    exact = p0.numpy() @ dense.posterior(process, t, s)[3]
    seen: list[torch.Tensor] = []
    logits = p0.log().float().expand(1, count, 3)
    if step == (7, 6):
        samplers.ancestral(lambda z: logits, masks(1, count), streams(1), 7, watch=seen.append)
        counts = np.bincount(seen[0].flatten().numpy() % 4, minlength=4)  # MASK -> 3
    else:  # what is masked before this step, followed one step further
        samplers.ancestral(lambda z: logits, masks(1, count), streams(1), 7, watch=seen.append)
        before, after = seen[7 - t - 1], seen[7 - t]
        counts = np.bincount(after[before == MASK].numpy() % 4, minlength=4)
    assert dense.p_value(counts, exact) > 1e-3


def test_ancestral_and_first_hitting_draw_the_joint_distribution() -> None:
    """400 steps leave a chance of 0.7 % that two of three tokens open together."""
    rows = 4000
    for x in (
        samplers.first_hitting(bayes, masks(rows), streams(rows)),
        samplers.ancestral(side_by_side(fast_bayes), masks(1, 3 * rows), streams(1), 400).view(-1, 3),
    ):
        assert joint_p_value(x) > 1e-3


@functools.cache
def _table() -> torch.Tensor:
    found = bayes(torch.cartesian_prod(*[torch.arange(-1, 3)] * 3))
    return torch.nan_to_num(found, nan=0.0, neginf=-torch.inf)


def fast_bayes(z: torch.Tensor) -> torch.Tensor:
    """The same from a table of all 64 states; those that can't be (their tokens opened together) get even odds."""
    return _table()[((z + 1) * torch.tensor([16, 4, 1])).sum(-1)]


@pytest.mark.parametrize(("by", "chance"), [("probability", 0), ("margin", 0), ("entropy", 0), ("margin", 2)])
def test_confidence_order_with_a_token_a_call_keeps_the_joint_distribution(by: Any, chance: int) -> None:
    x = samplers.confidence_ordered(bayes, masks(3000), streams(3000), by=by, chance=chance)
    assert joint_p_value(x) > 1e-3


@pytest.mark.parametrize("calls", [None, 4])
def test_some_open_by_chance_before_the_surest_do(calls: int | None) -> None:
    logits = torch.zeros(1, 20, 3)
    logits[..., 0] = torch.linspace(0, 8, 20)  # the surest last
    first: list[int] = []
    for seed in range(40):
        seen: list[torch.Tensor] = []
        x = samplers.confidence_ordered(
            lambda z: logits, masks(1, 20), streams(1, seed), calls, chance=3, watch=seen.append
        )
        hidden = [z[0] == MASK for z in seen]
        assert (x != MASK).all()
        assert [int(h.sum()) for h in hidden[:3]] == [19, 18, 17]
        assert len(seen) == 3 + (17 if calls is None else calls)
        rest = hidden[2].nonzero()[:, 0]
        opened = hidden[2] & ~hidden[3]
        assert opened.nonzero()[:, 0].tolist() == rest[-int(opened.sum()) :].tolist()
        first.append(int((~hidden[0]).nonzero()[0, 0]))
    assert len(set(first)) > 10


def adaptive(denoise: Denoise, start: torch.Tensor, **how: Any) -> torch.Tensor:
    return samplers.adaptive(denoise, start, streams(len(start)), samplers.Adaptive(**how))


@pytest.mark.parametrize(("order", "chance"), [("random", 0), ("margin", 0), ("probability", 2)])
def test_what_is_certain_opens_at_once_and_the_joint_distribution_stays(order: Any, chance: int) -> None:
    x = adaptive(bayes, masks(3000), order=order, chance=chance, sure=1 - 1e-9)
    assert joint_p_value(x) > 1e-3


def test_certain_tokens_take_one_call() -> None:
    logits, calls = torch.zeros(2, 12, 3), [0]
    logits[:, 2:, 1] = 9.0

    def counting(z: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return logits

    x = adaptive(counting, masks(2, 12), sure=0.99)
    assert calls[0] == 3
    assert (x[:, 2:] == 1).float().mean() > 0.9
    assert torch.equal(adaptive(counting, masks(2, 12), sure=0.99, least=0.01)[:, 2:], torch.ones(2, 10).long())


def test_doubtful_tokens_are_drawn_anew_until_they_fit() -> None:
    """All twelve tokens are alike, and what has opened is at first not looked at."""
    calls = [0]

    def alike(z: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        counts = torch.nn.functional.one_hot(z + 1, 4)[..., 1:].sum(1, keepdim=True).float()
        return (counts * (2.0 if calls[0] > 12 else 0.0)).expand(len(z), 12, 3)

    rough = adaptive(alike, masks(1, 12), sure=1.0)
    assert len(rough.unique()) == 3
    calls[0] = 0
    start = masks(1, 12)
    start[0, 5] = 2
    mended = adaptive(alike, start, sure=1.0, rounds=4, doubt=0.3)
    assert len(mended.unique()) == 1 or (mended[0] != mended.mode()[0]).nonzero().flatten().tolist() == [5]
    assert mended[0, 5] == 2


def test_likely_enough_keeps_the_likeliest() -> None:
    p = torch.tensor([[0.9, 0.06, 0.04], [0.34, 0.33, 0.33]])
    assert (samplers.likely_enough(p.log(), 0.05) > -torch.inf).tolist() == [[True, True, False], [True] * 3]
    assert (samplers.likely_enough(p.log(), 0.5) > -torch.inf).sum(1).tolist() == [1, 1]
    assert torch.equal(samplers.likely_enough(p.log(), 0.0), p.log())


@pytest.mark.parametrize(("eta", "rule"), [(0.4, "rescale"), (0.02, "cap")])
def test_remasking_keeps_the_marginals(eta: float, rule: Any) -> None:
    """At every time a token is hidden with probability t and else distributed as the data are."""
    steps = 100
    seen: list[torch.Tensor] = []
    samplers.remasking(
        side_by_side(fast_bayes), masks(1, 18_000), streams(1), steps, eta=eta, rule=rule, watch=seen.append
    )
    assert any(((a != MASK) & (b == MASK)).any() for a, b in itertools.pairwise(seen))
    marginal = torch.einsum(
        "c,clk->lk", tiny_joint.probabilities(), torch.nn.functional.one_hot(tiny_joint.CELLS).double()
    )
    for i in (10, 50, 90, 99):
        left = (i + 1) / steps
        for token in range(3):
            counts = np.bincount(seen[i].view(-1, 3)[:, token].numpy() % 4, minlength=4)
            expected = np.append(left * marginal[token].numpy(), 1 - left)
            assert dense.p_value(counts, expected) > 1e-4
    assert (seen[-1] != MASK).all()


def test_remasking_of_nothing_is_ancestral() -> None:
    one = samplers.remasking(bayes, masks(40), streams(40), 20, eta=0.0)
    assert torch.equal(one, samplers.ancestral(bayes, masks(40), streams(40), 20))


def test_remasking_draws_the_joint_distribution_in_many_steps() -> None:
    remasking = functools.partial(samplers.remasking, eta=0.3)
    x = remasking(side_by_side(fast_bayes), masks(1, 9000), streams(1), 400)
    assert joint_p_value(x.view(-1, 3)) > 1e-3


@every_sampler
def test_cached_gives_the_same_samples(name: str) -> None:
    sample, _ = EVERY[name]
    calls = [0]

    def counting(z: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return fast_bayes(z)

    plain = sample(fast_bayes, masks(4), streams(4), 200)
    assert torch.equal(sample(samplers.cached(counting), masks(4), streams(4), 200), plain)
    assert calls[0] < 200
    if name == "ancestral":
        assert calls[0] <= 13  # of four rows with three tokens each, and the start


@every_sampler
def test_known_tokens_survive_and_are_conditioned_on(name: str) -> None:
    sample, steps = EVERY[name]
    rows, p = 2000, tiny_joint.probabilities()
    start = masks(rows)
    start[:, 1] = 2
    if name in ("first_hitting", "confidence", "adaptive"):
        x = sample(fast_bayes, start, streams(rows), steps)  # two tokens, a token a call
    else:
        x = sample(side_by_side(fast_bayes), start.view(1, -1), streams(1), 200).view(-1, 3)
    assert (x[:, 1] == 2).all()
    given = torch.where(tiny_joint.CELLS[:, 1] == 2, p, 0)
    assert dense.p_value(counts_of(x), (given / given.sum()).numpy()) > 1e-3
    whole = tiny_joint.CELLS[[13, 26]]
    assert torch.equal(sample(bayes, whole, streams(2), steps), whole)


@every_sampler
def test_a_row_depends_on_its_stream_and_start_alone(name: str) -> None:
    sample, steps = EVERY[name]
    start = masks(5)
    start[1, 0], start[3] = 1, torch.tensor([0, 0, 0])
    together = sample(fast_bayes, start, streams(5), steps)
    for row in range(5):
        alone = sample(fast_bayes, start[row : row + 1], streams(1, row), steps)
        assert torch.equal(alone[0], together[row])


RARE = torch.tensor([0.6, 0.39, 9e-3, 8e-4, 2e-4], dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "adaptive"])  # which takes a call a token here
def test_frequencies_of_independent_tokens_include_rare_ones(name: str) -> None:
    """Whatever the order, classes come at their rates; Gumbel noise in float32 would lose the tail."""
    sample, steps = EVERY[name]
    logits = RARE.log().float().expand(4, 15_000, 5)
    x = sample(lambda z: logits, masks(4, 15_000), streams(4), steps)
    assert dense.p_value(np.bincount(x.flatten().numpy(), minlength=5), RARE.numpy()) > 1e-3


def test_entropy_at_a_thousand_steps_is_that_of_exact_draws() -> None:
    """Estimated from counts (Miller and Madow's correction), within the estimate's error; so is torch's multinomial."""
    p = (torch.arange(1, 65, dtype=torch.float64) ** -2.0).div_(
        (torch.arange(1, 65, dtype=torch.float64) ** -2.0).sum()
    )
    n, logits = 20_000, p.log().float().expand(2, 10_000, 64)
    x = samplers.ancestral(samplers.cached(lambda z: logits), masks(2, 10_000), streams(2), 1000)
    exact = -(p * p.log()).sum().item()
    error = math.sqrt(((p * p.log().square()).sum().item() - exact**2) / n)
    direct = categorical(
        logits.flatten(0, 1), torch.rand(n, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    )
    for found in (x.flatten(), direct):
        shares = np.bincount(found.numpy(), minlength=64) / n
        estimate = -(shares[shares > 0] * np.log(shares[shares > 0])).sum() + 63 / (2 * n)
        assert abs(estimate - exact) < 3 * error


def test_nucleus_keeps_the_fewest_likeliest() -> None:
    p = torch.tensor([[0.1, 0.5, 0.05, 0.35], [0.25, 0.25, 0.25, 0.25]])
    kept = samplers.nucleus(p.log(), 0.8).softmax(-1)
    assert torch.allclose(kept[0], torch.tensor([0.0, 0.5, 0, 0.35]) / 0.85)
    assert (kept[1] > 0).sum() == 4
    assert (samplers.nucleus(p.log(), 1e-9).softmax(-1)[0] == torch.tensor([0.0, 1, 0, 0])).all()
    assert torch.equal(samplers.nucleus(p.log(), 1.0), p.log())
    drawn = samplers.ancestral(lambda z: p[:1].log().expand(1, 5000, 4), masks(1, 5000), streams(1), 8, top_p=0.8)
    assert set(drawn.unique().tolist()) == {1, 3}


def test_calls_are_spread_over_a_rows_own_tokens() -> None:
    start = masks(2, 10)
    start[1, 4:] = 0
    seen: list[torch.Tensor] = []
    samplers.first_hitting(lambda z: torch.zeros(2, 10, 3), start, streams(2), 4, watch=seen.append)
    left = [(z == MASK).sum(1).tolist() for z in seen]
    assert left == [[8, 3], [5, 2], [3, 1], [0, 0]]
