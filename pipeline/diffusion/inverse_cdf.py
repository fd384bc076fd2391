"""Compiled loops of `sampling.categorical` for CPUs; its torch form, which a GPU runs, is the twin."""

# mypy: allow-untyped-decorators

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numba
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

_CHUNK = 1 << 14  # voxels at a time: their weights stay in a core's cache


def categorical_on_cpu(
    logits: Float[Tensor, "n k"], uniforms: Float64[Tensor, "n"], min_p: float
) -> Int64[Tensor, "n"]:
    """See `sampling.categorical`; the same classes, in half of the time. As many threads as torch has."""
    logits, uniforms = logits.detach().contiguous(), uniforms.contiguous()
    drawn = torch.empty(len(logits), dtype=torch.int64)
    weights = torch.empty_like(logits[:_CHUNK])
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    # One thread doesn't go through numba's pool, whose other threads wait by spinning: on a busy machine that made
    # thousands of small calls twenty times as slow.
    lower, search = (_below_highest, _search) if threads > 1 else (_below_highest_alone, _search_alone)
    with _numba_threads(threads):
        for first in range(0, len(logits), _CHUNK):
            part = slice(first, first + _CHUNK)
            here = weights[: len(logits[part])]
            lower(logits[part].numpy(), here.numpy())
            here.exp_()  # vectorised, as a compiled loop's isn't
            search(here.numpy(), uniforms[part].numpy(), min_p, drawn[part].numpy())
    return drawn


@contextlib.contextmanager
def _numba_threads(count: int) -> Iterator[None]:
    """Numba's threads inside; it isn't asked for one, which alone would start its pool."""
    if count == 1:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@numba.njit(cache=True)
def _highest(logits: Float[np.ndarray, "k"]) -> float:
    highest = logits[0]
    for k in range(1, logits.shape[0]):
        highest = max(highest, logits[k])
    return highest


@numba.njit(cache=True)
def _first_above(weights: Float[np.ndarray, "k"], uniform: float, min_p: float) -> int:
    """The first class whose cumulated weight exceeds uniform x total, added in order in float64."""
    last, total = weights.shape[0] - 1, 0.0
    for k in range(last + 1):
        if weights[k] >= min_p:
            total += weights[k]
    target, cumulated, k = uniform * total, 0.0, -1
    while k < last and cumulated <= target:
        k += 1
        if weights[k] >= min_p:
            cumulated += weights[k]
    return k


@numba.njit(cache=True, parallel=True)
def _below_highest(logits: Float[np.ndarray, "n k"], out: Float[np.ndarray, "n k"]) -> None:
    """out = logits - their highest in the row."""
    for n in numba.prange(logits.shape[0]):
        out[n] = logits[n] - _highest(logits[n])


@numba.njit(cache=True, parallel=True)
def _search(
    weights: Float[np.ndarray, "n k"], uniforms: Float64[np.ndarray, "n"], min_p: float, drawn: Int64[np.ndarray, "n"]
) -> None:
    """drawn = the class of each row."""
    for n in numba.prange(weights.shape[0]):
        drawn[n] = _first_above(weights[n], uniforms[n], min_p)


@numba.njit(cache=True)
def _below_highest_alone(logits: Float[np.ndarray, "n k"], out: Float[np.ndarray, "n k"]) -> None:
    """The same in one thread."""
    for n in range(logits.shape[0]):
        out[n] = logits[n] - _highest(logits[n])


@numba.njit(cache=True)
def _search_alone(
    weights: Float[np.ndarray, "n k"], uniforms: Float64[np.ndarray, "n"], min_p: float, drawn: Int64[np.ndarray, "n"]
) -> None:
    """The same in one thread."""
    for n in range(weights.shape[0]):
        drawn[n] = _first_above(weights[n], uniforms[n], min_p)
