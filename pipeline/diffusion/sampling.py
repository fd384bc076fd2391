"""Exact draws from categorical distributions, and one seeded stream a sample.

Inverse-CDF sampling with float64 uniforms: no Gumbel noise, whose float32 form cuts the tail off (Zheng et al.,
arXiv 2409.02908), and one uniform a voxel in place of K. A draw depends on its sample's own generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from pipeline.diffusion.inverse_cdf import categorical_on_cpu

_CHUNK = 1 << 16  # voxels at a time: bounds the memory for cumulated weights


def categorical(logits: Float[Tensor, "n k"], uniforms: Float64[Tensor, "n"], min_p: float = 0.0) -> Int64[Tensor, "n"]:
    """Class i with probability softmax(logits)_i: the first whose cumulated probability exceeds the uniform in [0, 1).

    Cumulated and compared in float64; a class of logit -inf is never drawn. min_p > 0 gives up exactness: classes less
    than min_p times as likely as the likeliest aren't drawn either (arXiv 2407.01082).
    """
    if logits.device.type == "cpu":
        return categorical_on_cpu(logits, uniforms, min_p)
    return categorical_in_torch(logits, uniforms, min_p)


def categorical_in_torch(
    logits: Float[Tensor, "n k"], uniforms: Float64[Tensor, "n"], min_p: float = 0.0
) -> Int64[Tensor, "n"]:
    """The same by torch's own operations, on any device."""
    if len(logits) > _CHUNK:
        chunks = zip(logits.split(_CHUNK), uniforms.split(_CHUNK), strict=True)
        return torch.cat([categorical_in_torch(part, u, min_p) for part, u in chunks])
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()  # unnormalised: the total joins the uniform
    if min_p:
        weights = torch.where(weights < min_p, 0, weights)
    cumulated = weights.cumsum(-1, dtype=torch.float64)
    drawn = (cumulated <= (uniforms * cumulated[:, -1])[:, None]).sum(-1)
    return drawn.clamp_(max=logits.shape[-1] - 1)


def generators(seeds: Sequence[int], device: torch.device) -> list[torch.Generator]:
    """One stream a sample."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def uniform_rows(streams: Sequence[torch.Generator], count: int) -> Float64[Tensor, "b count"]:
    """`count` float64 uniforms of each stream, a row a stream."""
    rows = [torch.rand(count, generator=g, dtype=torch.float64, device=g.device) for g in streams]
    return torch.stack(rows)
