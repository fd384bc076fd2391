"""Discrete diffusion with closed-form O(K) posteriors (D3PM, arXiv 2107.03006; Hoogeboom et al., arXiv 2102.05379).

With a = alpha_bar_t / alpha_bar_s and s < t, both processes have q(x_t | x_s) = a [x_t = x_s] + (1 - a) noise(x_t):
  uniform    noise is 1/K for each of the K classes;
  absorbing  noise is the mask, state K, which data never holds.
alpha_bar_0 = 1, so at s = 0 a posterior is x_0 itself. Labels are flattened to (B, N), t and s are (B,).

The model predicts p(x_0). There are two ways from it to p(x_s | x_t), and they are not equal:
  mixed  sum_k p(x_0 = k) q(x_s | x_t, x_0 = k): D3PM's, and what drawing x_0 and then x_s does;
  soft   q(x_s | x_t, x_0) with p(x_0) put in as a soft one-hot: Hoogeboom's, Lee's, PDD's.
Losses and samplers here use the mixed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.diffusion.schedules import ScheduleKind, alpha_bars, clock

ProcessKind = Literal["uniform", "absorbing"]
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Process:
    """A corruption process. classes: K; alpha_bar: (T + 1,) float64."""

    kind: ProcessKind
    classes: int
    alpha_bar: Float64[Tensor, "t_plus_1"]

    @property
    def steps(self) -> int:
        """T."""
        return len(self.alpha_bar) - 1

    @property
    def states(self) -> int:
        """How many values x_t can take: K, and the mask if there is one."""
        return self.classes + (self.kind == "absorbing")

    def at(self, t: Int64[Tensor, "b"]) -> Float64[Tensor, "b 1"]:
        """alpha_bar_t of each sample, for (B, N) arrays."""
        return self.alpha_bar.to(t.device)[t][:, None]

    @cached_property
    def _clock(self) -> Float[Tensor, "t_plus_1"]:
        return torch.from_numpy(clock(self.alpha_bar.cpu().numpy())).float()

    def told(self, t: Int64[Tensor, "b"]) -> Float[Tensor, "b"]:
        """What a network is told of time t; see `clock`."""
        return self._clock.to(t.device)[t]


def process_of(kind: ProcessKind, schedule: ScheduleKind, classes: int, steps: int) -> Process:
    """A process of T = `steps`."""
    return Process(kind, classes, torch.from_numpy(alpha_bars(schedule, steps)))


def corrupt(
    process: Process, x_0: Int64[Tensor, "b n"], t: Int64[Tensor, "b"], uniforms: Float64[Tensor, "b n"]
) -> Int64[Tensor, "b n"]:
    """x_t ~ q(x_t | x_0) (eq. 1), one float64 uniform a voxel: what is above alpha_bar_t also names the class."""
    kept = process.at(t)
    if process.kind == "absorbing":
        return torch.where(uniforms < kept, x_0, process.classes)
    noise = ((uniforms - kept) / (1 - kept).clamp_min(_TINY) * process.classes).long()
    return torch.where(uniforms < kept, x_0, noise.clamp(0, process.classes - 1))


def prior(process: Process, uniforms: Float64[Tensor, "b n"]) -> Int64[Tensor, "b n"]:
    """x_T when nothing is left of x_0: uniform noise, or masks."""
    if process.kind == "absorbing":
        return torch.full(uniforms.shape, process.classes, device=uniforms.device)
    return (uniforms * process.classes).long().clamp_(max=process.classes - 1)


def draw_previous(
    process: Process,
    x_t: Int64[Tensor, "b n"],
    x_0: Int64[Tensor, "b n"],
    times: tuple[int, int],
    uniforms: Float64[Tensor, "b n"],
) -> Int64[Tensor, "b n"]:
    """x_s ~ q(x_s | x_t, x_0) in O(1) a voxel; times: (t, s).

    Uniform: the product (a [x_s = x_t] + u)(b [x_s = x_0] + v) of eq. 2, with u = (1 - a)/K, b = alpha_bar_s and
    v = (1 - b)/K, is a mixture of x_t (a v), x_0 (u b), both at once (a b, if they agree) and all K classes (u v each).
    """
    t, s = times
    b, end = float(process.alpha_bar[s]), float(process.alpha_bar[t])
    a, K = end / b, process.classes
    if process.kind == "absorbing":
        return torch.where((x_t == K) & (uniforms < (b - end) / (1 - end)), x_0, x_t)
    u, v = (1 - a) / K, (1 - b) / K
    stays = a * v + a * b * (x_t == x_0)
    goes = stays + u * b
    place = uniforms * (goes + u * v * K)
    noise = ((place - goes) / max(u * v, _TINY)).clamp(0, K - 1).long()
    return torch.where(place < stays, x_t, torch.where(place < goes, x_0, noise))


def log_posterior(
    process: Process,
    x_t: Int64[Tensor, "b n"],
    log_p0: Float[Tensor, "b n k"],
    t: Int64[Tensor, "b"],
    s: Int64[Tensor, "b"],
    version: Literal["mixed", "soft"] = "mixed",
) -> Float[Tensor, "b n states"]:
    """log p(x_s | x_t) from log p(x_0), normalised; see above for the versions. O(K) a voxel, in log_p0's dtype."""
    if process.kind == "absorbing":
        return _log_posterior_absorbing(process, x_t, log_p0, t, s)
    b, end = process.at(s)[..., None].to(log_p0), process.at(t)[..., None].to(log_p0)
    a, K = end / b, process.classes
    same = torch.nn.functional.one_hot(x_t, K).bool()
    likelihood = torch.where(same, a + (1 - a) / K, (1 - a) / K)  # q(x_t | x_s)
    p0 = log_p0.exp()
    if version == "mixed":
        evidence = torch.where(same, end + (1 - end) / K, (1 - end) / K)  # q(x_t | x_0)
        weighted = p0 / evidence
        joint = likelihood * (b * weighted + (1 - b) / K * weighted.sum(-1, keepdim=True))
    else:
        joint = likelihood * (b * p0 + (1 - b) / K)
    logs = joint.clamp_min(torch.finfo(joint.dtype).tiny).log()
    return logs - logs.logsumexp(-1, keepdim=True)


def _log_posterior_absorbing(process: Process, x_t: Tensor, log_p0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    b, end = process.at(s)[..., None].to(log_p0), process.at(t)[..., None].to(log_p0)
    unmasks = (b - end) / (1 - end)
    masked = torch.cat([log_p0 + unmasks.log(), (1 - unmasks).log().expand(*log_p0.shape[:-1], 1)], -1)
    stays = torch.nn.functional.one_hot(x_t, process.states).to(log_p0).log()
    return torch.where((x_t == process.classes)[..., None], masked, stays)


def own_evidence(process: Process, t: Int64[Tensor, "b"]) -> Float64[Tensor, "b 1"]:
    """log q(x_t = k | x_0 = k) - log q(x_t = k | x_0 = another): how far a voxel's own state speaks for it at time t.

    Uniform: log((alpha_bar_t + w) / w), w = (1 - alpha_bar_t)/K. Added to the logit of class x_t, the network is left
    with what the surroundings say. Absorbing: 0, a mask says nothing.
    """
    kept = process.at(t)
    if process.kind == "absorbing":
        return torch.zeros_like(kept)
    return torch.log1p(kept * process.classes / (1 - kept))


def divergence(
    process: Process,
    logits: Float[Tensor, "b n k"],
    x_0: Int64[Tensor, "b n"],
    x_t: Int64[Tensor, "b n"],
    t: Int64[Tensor, "b"],
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """(KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), -log p(x_0)) a voxel, mixed version, in nats.

    Uniform: q_j = A_j (b [j = x_0] + v) / Z_{x_0} and p_j = A_j r_j, r_j = b p0_j / Z_j + v sum_k p0_k / Z_k, so A_j
    cancels in the ratio; q has one value for all j but x_t and x_0. At t = 1 both terms are the cross-entropy.
    """
    log_p0 = logits.log_softmax(-1)
    cross_entropy = -log_p0.gather(-1, x_0[..., None])[..., 0]
    end, b = process.at(t).to(logits), process.at(t - 1).to(logits)
    if process.kind == "absorbing":
        return (x_t == process.classes) * (b - end) / (1 - end) * cross_entropy, cross_entropy
    a, K = end / b, process.classes
    u, v, w = (1 - a) / K, (1 - b) / K, (1 - end) / K
    p0 = log_p0.exp()
    p_xt, p_x0 = (p0.gather(-1, x[..., None])[..., 0] for x in (x_t, x_0))
    floor = v * (p_xt / (end + w) + (1 - p_xt) / w)  # v sum_k p0_k / Z_k
    log_r = (b[..., None] / w[..., None] * p0 + floor[..., None]).clamp_min(_TINY).log()  # right for all j but x_t
    same = x_t == x_0
    z_0 = torch.where(same, end + w, w)
    log_r_xt = (b * p_xt / (end + w) + floor).clamp_min(_TINY).log()
    log_r_x0 = torch.where(same, log_r_xt, (b * p_x0 / z_0 + floor).clamp_min(_TINY).log())
    q_rest = u * v / z_0
    q_x0 = torch.where(same, a + u, u) * (b + v) / z_0
    q_xt = torch.where(same, q_x0, (a + u) * v / z_0)
    rest = log_r.sum(-1) - log_r.gather(-1, x_t[..., None])[..., 0] - torch.where(same, 0, log_r_x0)
    cross = q_rest * rest + q_x0 * log_r_x0 + torch.where(same, 0, q_xt * log_r_xt)
    entropy = q_x0 * ((b + v) / z_0).log() + (1 - q_x0) * torch.where(v > 0, v / z_0, 1).log()
    return entropy - cross, cross_entropy


def hybrid_loss(
    process: Process,
    logits: Float[Tensor, "b n k"],
    x_0: Int64[Tensor, "b n"],
    x_t: Int64[Tensor, "b n"],
    t: Int64[Tensor, "b"],
    valid: Bool[Tensor, "b n"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Means over valid voxels of each sample, then over samples: (T x KL, cross-entropy). Weigh and add them."""
    kl, cross_entropy = divergence(process, logits, x_0, x_t, t)
    count = valid.sum(1).clamp_min(1)
    means = [(torch.where(valid, term, 0).sum(1) / count).mean() for term in (kl, cross_entropy)]
    return process.steps * means[0], means[1]
