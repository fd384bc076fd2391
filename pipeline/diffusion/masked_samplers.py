"""Samplers of masked diffusion: a denoiser and a partly masked start -> tokens. Each is one visible loop.

    ancestral           q(z_s | z_t, p(x_0 | z_t)) at T even times; several tokens may open at once, each by itself
    ancestral(cached)   the same draws; the network runs only after z has changed (Sahoo et al., arXiv 2406.07524)
    first_hitting       one token a call, in random order: ancestral with T -> infinity (Zheng et al., 2409.02908)
    confidence_ordered  the tokens first whose distribution is sharpest
    remasking           ancestral, but open tokens may be hidden and drawn anew (ReMDM, Wang et al., 2503.00307)

start: MASK where a token is to be drawn; everything else is known and never changes, and each draw is conditioned on
it. Classes come from inverse CDFs in float64 (no Gumbel noise). A row of the result depends on its own stream and start
alone, given that the denoiser's rows do. watch sees z after every step.

In log-linear time a mask opens on the way from t to s with probability 1 - s/t: neither eps nor the times' scale is in
it. ReMDM's probabilities are taken at eps = 0, alpha_t = 1 - t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.diffusion.masked import MASK, Denoise
from pipeline.diffusion.sampling import categorical, uniform_rows

Watch = Callable[[Int64[Tensor, "b l"]], None]
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
