"""Masked (absorbing) diffusion of token sequences in continuous time (MDLM, Sahoo et al., arXiv 2406.07524).

Tokens are classes 0..K-1; z_t holds MASK where a token is hidden. Time t lies in (0, 1]; the schedule is log-linear:

    alpha_t = 1 - (1 - eps) t                  the share that is left;  sigma(t) = -log alpha_t
    q(z_s | z_t, x_0)    (alpha_s - alpha_t) / (1 - alpha_t) of the masks open, and 1 - s/t that is; s < t
    -log p(x_0) <= E_t [1/t * sum over masked tokens of -log p(x_0 | z_t)],   1/t = sigma' / (e^sigma - 1)

SUBS: the network has no logit for the mask, and what isn't masked is carried over, so only masked tokens count. In
discrete time t is a multiple of 1/T and the weight T (alpha_s - alpha_t) / (1 - alpha_t) at s = t - 1/T is 1/t again.
p(x_0 | z_t) does not depend on t, so denoisers take z_t alone.

The bound doesn't depend on the schedule: masking n tokens, n uniform on 1..L, with weight L/n has the same expectation
and far less variance (Nie et al., arXiv 2502.09992). Likelihoods are estimated in that way, without eps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.diffusion.sampling import uniform_rows
from pipeline.scene.errors import InputError

MASK = -1  # in z_t: hidden
Denoise = Callable[[Int64[Tensor, "b l"]], Float[Tensor, "b l k"]]  # z_t -> logits of x_0; read at masked tokens alone


def antithetic_times(
    rows: int, generator: torch.Generator, *, smallest: float = 1e-3, steps: int | None = None
) -> Float64[Tensor, "b"]:
    """A time a row, one in each of `rows` equal parts of (smallest, 1], or of the `steps` multiples of 1/T.

    smallest: MDLM's cut; without it the weight 1/t has no finite variance.
    """
    device = generator.device
    place = torch.rand(rows, generator=generator, dtype=torch.float64, device=device) + torch.arange(
        rows, device=device
    )
    if steps is not None:
        return ((place / rows * steps).floor().clamp_max(steps - 1) + 1) / steps
    return 1 - (1 - smallest) * place / rows


def with_all_hidden(t: Float64[Tensor, "b"], share: float, generator: torch.Generator) -> Float64[Tensor, "b"]:
    """The times, a share of them 1 in place of what they are: the network sees more of where draws begin.

    What it ought to say of a z_t is the same at all times, so only how well it is learned where changes.
    """
    if not share:
        return t
    chosen = torch.rand(len(t), generator=generator, dtype=t.dtype, device=t.device) < share
    return torch.where(chosen, 1.0, t)


def mask_tokens(
    x_0: Int64[Tensor, "*n"], t: Float64[Tensor, "*n"], uniforms: Float64[Tensor, "*n"], eps: float = 1e-3
) -> Int64[Tensor, "*n"]:
    """z_t ~ q(z_t | x_0), one uniform a token; t broadcasts against x_0."""
    return torch.where(uniforms < (1 - eps) * t, MASK, x_0)


def log_p0(logits: Float[Tensor, "*n k"], z_t: Int64[Tensor, "*n"]) -> Float[Tensor, "*n k"]:
    """log p(x_0 | z_t) in the SUBS parameterisation: normalised where masked, certain of z_t elsewhere."""
    carried = torch.nn.functional.one_hot(z_t.clamp_min(0), logits.shape[-1]).to(logits).log()
    return torch.where((z_t == MASK)[..., None], logits.log_softmax(-1), carried)


def weighted_cross_entropy(
    logits: Float[Tensor, "c k"], x_0: Int64[Tensor, "c"], t: Float64[Tensor, "c"]
) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """(terms of the bound, cross-entropies) of masked tokens [nats]. Their sum is divided by all tokens.

    The simplified objective; its discrete-time form differs in the times alone.
    """
    cross_entropy = torch.nn.functional.cross_entropy(logits.float(), x_0, reduction="none")
    return cross_entropy / t.to(cross_entropy), cross_entropy


def random_subset(
    free: Bool[Tensor, "b l"], counts: Int64[Tensor, "b"], uniforms: Float64[Tensor, "b l"]
) -> Bool[Tensor, "b l"]:
    """`counts` of each row's free tokens, every such set as likely: those with the lowest uniforms."""
    ranks = torch.where(free, uniforms, torch.inf).argsort(-1).argsort(-1)
    return free & (ranks < counts[:, None])


@torch.no_grad()
def bounds(
    denoise: Denoise,
    x_0: Int64[Tensor, "b l"],
    free: Bool[Tensor, "b l"],
    streams: Sequence[torch.Generator],
    draws: int,
) -> Float64[Tensor, "b d"]:
    """`draws` estimates of each row's bound on -log p(free tokens | the others) [nats]; 0 for a row without free ones.

    The number of masked tokens is stratified over a row's draws. Every estimate depends on its row's stream alone.
    """
    size, found = free.sum(1), []
    for draw in range(draws):
        place = (uniform_rows(streams, 1)[:, 0] + draw) / draws
        counts = torch.minimum((place * size).long() + 1, size)  # uniform on 1..size
        masked = random_subset(free, counts, uniform_rows(streams, x_0.shape[1]))
        log_p = denoise(torch.where(masked, MASK, x_0)).double().log_softmax(-1)
        lost = -log_p.gather(-1, x_0.clamp_min(0)[..., None])[..., 0]
        found.append(torch.where(masked, lost, 0).sum(1) * size / counts.clamp_min(1))
    return torch.stack(found, 1)


@dataclass(frozen=True)
class Likelihood:
    """A bound on the negative log-likelihood [nats a token] of a set of sequences, with its 95 % interval.

    The interval is over sequences, as a sample of their kind, and holds the noise of the estimate as well; noise is the
    latter's standard error alone. tokens: in all; draws: estimates a sequence.
    """

    nll: float
    low: float
    high: float
    noise: float
    sequences: int
    tokens: int
    draws: int

    @property
    def perplexity(self) -> tuple[float, float, float]:
        """exp(nll), and its 95 % interval."""
        return float(np.exp(self.nll)), float(np.exp(self.low)), float(np.exp(self.high))


def likelihood(estimates: Float64[np.ndarray, "s d"], tokens: Int64[np.ndarray, "s"]) -> Likelihood:
    """Sum of bounds over sum of tokens. Interval: a ratio's standard error by linearisation, Student's t.

    estimates: of `bounds`, all sequences'; tokens: how many each is over. Raises InputError below two sequences.
    """
    from scipy.stats import t as student

    count, draws = estimates.shape
    if count < 2 or tokens.min() < 1:
        raise InputError("likelihood", "at least two sequences with a token each", f"{count}, of {tokens.tolist()}")
    total, sums = int(tokens.sum()), estimates.mean(1)
    nll = float(sums.sum() / total)
    error = float(np.sqrt(count / (count - 1) * np.square(sums - nll * tokens).sum()) / total)
    noise = float(np.sqrt((estimates.var(1, ddof=1) / draws).sum()) / total) if draws > 1 else float("nan")
    half = float(student.ppf(0.975, count - 1)) * error
    return Likelihood(nll, nll - half, nll + half, noise, count, total, draws)
