"""Samplers of masked diffusion: a denoiser and a partly masked start -> tokens. Each is one visible loop.

    ancestral           q(z_s | z_t, p(x_0 | z_t)) at T even times; several tokens may open at once, each by itself
    ancestral(cached)   the same draws; the network runs only after z has changed (Sahoo et al., arXiv 2406.07524)
    first_hitting       one token a call, in random order: ancestral with T -> infinity (Zheng et al., 2409.02908)
    confidence_ordered  the tokens first whose distribution is sharpest
    adaptive            all tokens that are certain, else one; then what the others make unlikely is drawn anew
    remasking           ancestral, but open tokens may be hidden and drawn anew (ReMDM, Wang et al., 2503.00307)

start: MASK where a token is to be drawn; everything else is known and never changes, and each draw is conditioned on
it. Classes come from inverse CDFs in float64 (no Gumbel noise). A row of the result depends on its own stream and start
alone, given that the denoiser's rows do. watch sees z after every step.

In log-linear time a mask opens on the way from t to s with probability 1 - s/t: neither eps nor the times' scale is in
it. ReMDM's probabilities are taken at eps = 0, alpha_t = 1 - t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.diffusion.masked import MASK, Denoise
from pipeline.diffusion.sampling import categorical, uniform_rows

Watch = Callable[[Int64[Tensor, "b l"]], None]
PARTS = 8  # of the tokens, that `adaptive` doubts one after the other
_BELOW_ONE = 1 - 2.0**-53


def ancestral(
    denoise: Denoise,
    start: Int64[Tensor, "b l"],
    streams: Sequence[torch.Generator],
    steps: int,
    *,
    top_p: float = 1.0,
    watch: Watch | None = None,
) -> Int64[Tensor, "b l"]:
    """Tokens in `steps` = T steps; a token whose uniform opens it takes its class from what is left of the uniform."""
    z = start
    for i in range(steps, 0, -1):  # t = i/T, s = (i - 1)/T
        logits, uniforms = denoise(z), uniform_rows(streams, z.shape[1])
        opens = (z == MASK) & (uniforms * i < 1)
        z = opened(z, logits, opens, uniforms * i, top_p)
        if watch:
            watch(z)
    return z


def cached(denoise: Denoise) -> Denoise:
    """The denoiser, run only if z differs from the last one; the whole batch, so that results stay the same bits."""
    last: list[tuple[Tensor, Tensor]] = []

    def remembering(z: Int64[Tensor, "b l"]) -> Float[Tensor, "b l k"]:
        if not last or not torch.equal(last[0][0], z):
            last[:] = [(z.clone(), denoise(z))]
        return last[0][1]

    return remembering


def first_hitting(
    denoise: Denoise,
    start: Int64[Tensor, "b l"],
    streams: Sequence[torch.Generator],
    calls: int | None = None,
    *,
    top_p: float = 1.0,
    watch: Watch | None = None,
) -> Int64[Tensor, "b l"]:
    """Each token opens at a time of its own, uniform on (0, 1), from 1 down. calls: of the network, so that
    neighbours in this order open together; None: one token a call and row, which adds no error to the network's."""
    z, free = start, start == MASK
    hits, uniforms = (uniform_rows(streams, z.shape[1]) for _ in range(2))
    ranks = torch.where(free, -hits, torch.inf).argsort(-1).argsort(-1)
    for first, end in _turns(free, calls):
        opens = free & (ranks >= first[:, None]) & (ranks < end[:, None])
        z = opened(z, denoise(z), opens, uniforms, top_p)
        if watch:
            watch(z)
    return z


def confidence_ordered(
    denoise: Denoise,
    start: Int64[Tensor, "b l"],
    streams: Sequence[torch.Generator],
    calls: int | None = None,
    *,
    by: Literal["probability", "margin", "entropy"] = "probability",
    chance: int = 0,
    top_p: float = 1.0,
    watch: Watch | None = None,
) -> Int64[Tensor, "b l"]:
    """The likeliest class's probability, its lead over the second, or a low entropy says which tokens open next.

    calls: as in `first_hitting`. The order looks at distributions, not at classes drawn (as MaskGIT's does), so one
    token a call still draws from the model's own joint distribution. But a network that has learned from tokens hidden
    at random takes the surest ones, open before all others, for what the whole is like, and draws grow alike. chance:
    so many tokens open before, one a call and in random order, and settle what kind of whole it is to be.
    """
    z, free = start, start == MASK
    uniforms = uniform_rows(streams, z.shape[1])
    drawn = uniform_rows(streams, z.shape[1]) if chance else None
    early = [(torch.clamp(free.sum(1), max=i), torch.clamp(free.sum(1), max=i + 1)) for i in range(chance)]
    for turn, (first, end) in enumerate([*early, *_turns(free, calls, chance)]):
        logits = denoise(z)
        score = confidence(logits, by) if drawn is None or turn >= chance else drawn
        score = score.masked_fill(z != MASK, -torch.inf)
        ranks = score.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        opens = (z == MASK) & (ranks < (end - first)[:, None])
        z = opened(z, logits, opens, uniforms, top_p)
        if watch:
            watch(z)
    return z


@dataclass(frozen=True)
class Adaptive:
    """How `adaptive` draws. sure: a class this likely is certain; order: of what isn't, "random" or as in
    `confidence_ordered`, then with `chance`; least: classes less likely are never drawn (epsilon sampling, Hewitt et
    al., 2210.15191), but for a token's likeliest; rounds: of doubt; doubt: at most so likely a class is drawn anew."""

    sure: float = 0.995
    order: Literal["random", "probability", "margin", "entropy"] = "random"
    chance: int = 0
    least: float = 0.0
    rounds: int = 0
    doubt: float = 0.0


def adaptive(
    denoise: Denoise,
    start: Int64[Tensor, "b l"],
    streams: Sequence[torch.Generator],
    how: Adaptive,
    *,
    watch: Watch | None = None,
) -> Int64[Tensor, "b l"]:
    """All tokens that are certain open at once, or, where none is, the one whose turn it is. In rounds, each is then
    asked for as if it were hidden, an eighth of them at a time, and those whose class is doubtful are drawn again (an
    informed corrector, Zhao et al., 2407.21243, with a threshold)."""
    z, free = start, start == MASK
    z = _by_certainty(denoise, z, streams, how, watch)
    for _ in range(how.rounds):
        parts = (uniform_rows(streams, z.shape[1]) * PARTS).long()
        likely = own_probabilities(denoise, z, free, parts)
        z = _by_certainty(denoise, torch.where(free & (likely < how.doubt), MASK, z), streams, how, watch)
    return z


def _by_certainty(
    denoise: Denoise, z: Int64[Tensor, "b l"], streams: Sequence[torch.Generator], how: Adaptive, watch: Watch | None
) -> Int64[Tensor, "b l"]:
    order, uniforms = (uniform_rows(streams, z.shape[1]) for _ in range(2))  # drawn whether there is a mask or not
    call = 0
    while (hidden := z == MASK).any():
        logits = denoise(z)
        early = call < how.chance and how.order != "random"
        turn = order if early or how.order == "random" else confidence(logits, how.order)
        turn = torch.nn.functional.one_hot(turn.masked_fill(~hidden, -torch.inf).argmax(-1), z.shape[1]).bool()
        sure = hidden & (confidence(logits, "probability") >= how.sure) & (not early)
        opens = torch.where(sure.any(-1, keepdim=True), sure, hidden & turn)
        z, call = opened(z, likely_enough(logits, how.least), opens, uniforms), call + 1
        if watch:
            watch(z)
    return z


def own_probabilities(
    denoise: Denoise, z: Int64[Tensor, "b l"], free: Bool[Tensor, "b l"], parts: Int64[Tensor, "b l"]
) -> Float[Tensor, "b l"]:
    """How likely each free token's class is given the tokens of the other parts; 1 for one that isn't free."""
    found = torch.ones(z.shape, device=z.device)
    for part in range(PARTS):
        asked = free & (parts == part)
        p = denoise(torch.where(asked, MASK, z)).float().softmax(-1).gather(-1, z.clamp_min(0)[..., None])[..., 0]
        found = torch.where(asked, p, found)
    return found


def likely_enough(logits: Float[Tensor, "*n k"], least: float) -> Float[Tensor, "*n k"]:
    """-inf for classes less likely than `least`, but for the likeliest."""
    if least <= 0:
        return logits
    p = logits.float().softmax(-1)
    return logits.masked_fill(p < p.amax(-1, keepdim=True).clamp(max=least), -torch.inf)


def remasking(
    denoise: Denoise,
    start: Int64[Tensor, "b l"],
    streams: Sequence[torch.Generator],
    steps: int,
    *,
    eta: float,
    rule: Literal["rescale", "cap"] = "rescale",
    top_p: float = 1.0,
    watch: Watch | None = None,
) -> Int64[Tensor, "b l"]:
    """Of the open tokens a share sigma is hidden again at each step: eta sigma_max ("rescale") or min(eta, sigma_max)
    ("cap"), sigma_max = min(1, (1 - alpha_s) / alpha_t). eta = 0 is `ancestral`."""
    z, free = start, start == MASK
    for i in range(steps, 0, -1):
        left, before = 1 - (i - 1) / steps, 1 - i / steps  # alpha_s, alpha_t
        highest = min(1.0, (1 - left) / before) if before else 1.0
        sigma = eta * highest if rule == "rescale" else min(eta, highest)
        opening = (left - (1 - sigma) * before) / (1 - before)
        logits, uniforms = denoise(z), uniform_rows(streams, z.shape[1])
        hides = free & (z != MASK) & (uniforms < sigma)
        opens = (z == MASK) & (uniforms < opening)
        z = torch.where(hides, MASK, opened(z, logits, opens, uniforms / opening, top_p))
        if watch:
            watch(z)
    return z


def opened(
    z: Int64[Tensor, "b l"],
    logits: Float[Tensor, "b l k"],
    opens: Bool[Tensor, "b l"],
    uniforms: Float64[Tensor, "b l"],
    top_p: float = 1.0,
) -> Int64[Tensor, "b l"]:
    """z with the tokens of `opens` drawn from their distributions."""
    chosen = nucleus(logits[opens].float(), top_p)
    z = z.clone()
    z[opens] = categorical(chosen, uniforms[opens].clamp(max=_BELOW_ONE))
    return z


def nucleus(logits: Float[Tensor, "n k"], top_p: float) -> Float[Tensor, "n k"]:
    """-inf for all but the fewest likeliest classes that together have at least top_p (Holtzman et al., 1904.09751)."""
    if top_p >= 1 or not len(logits):
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    p = ordered.double().softmax(-1)
    outside = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, p.cumsum(-1) - p >= top_p)
    return logits.masked_fill(outside, -torch.inf)


def confidence(logits: Float[Tensor, "*n k"], by: str) -> Float[Tensor, "*n"]:
    """How sharp each distribution is; higher is sharper. by: see `confidence_ordered`."""
    log_p = logits.float().log_softmax(-1)
    p = log_p.exp()
    if by == "entropy":
        return torch.where(p > 0, p * log_p, 0).sum(-1)
    best = p.topk(min(2, p.shape[-1]), -1).values
    return best[..., 0] - best[..., 1] if by == "margin" and p.shape[-1] > 1 else best[..., 0]


def _turns(free: Bool[Tensor, "b l"], calls: int | None, before: int = 0) -> list[tuple[Tensor, Tensor]]:
    """How many of each row's free tokens are open before and after each call; one a call, or spread over `calls`.

    before: so many are open already, and not counted.
    """
    size = (free.sum(1) - before).clamp_min(0)
    last = int(size.max()) if calls is None else calls
    after = [torch.clamp(size, max=i) if calls is None else size * i // last for i in range(last + 1)]
    return list(pairwise(after))
