"""Distances between two sets of features, as functions of arrays; they know no encoder and no scene.

    Frechet   |m_a - m_b|^2 + tr(S_a + S_b) - 2 tr (S_a S_b)^(1/2)         (Heusel et al., 2017; F3D, FID)
    kernel    unbiased MMD^2 with k(x, y) = (x . y / d + 1)^3              (Binkowski et al., 2018; K3D, KID)
    inception exp of the mean over x of KL(p(y | x) || p(y))               (Salimans et al., 2016; IS)

All is float64. What is undefined for the samples at hand is refused instead of regularised.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from pipeline.scene.errors import InputError


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Between the Gaussians of two feature sets, with unbiased covariances; symmetric and never negative.

    Biased upwards by about d / n, so figures compare at equal n only. Raises InputError unless both sets hold more
    samples than features: a covariance of fewer is singular.
    """
    a, b = _pair(a, b)
    for features in (a, b):
        if len(features) <= features.shape[1]:
            found = f"{len(features)} of dimension {features.shape[1]}"
            remedy = "give more scenes, or take an encoder with fewer features"
            raise InputError("Frechet distance", "more samples than features", found, remedy)
    mean_gap = a.mean(0) - b.mean(0)
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    spread = np.square(root_a).sum() + np.square(root_b).sum()  # tr(S_a + S_b)
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return max(float(mean_gap @ mean_gap + spread - 2 * overlap), 0.0)


def _covariance_root(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """R with R'R = S. The eigenvalues of S_a S_b are the squared singular values of R_a R_b'.

    So their roots are had without squaring the data first, which would cost half of the digits.
    """
    return np.linalg.qr(features - features.mean(0), mode="r") / np.sqrt(len(features) - 1)


def kernel_distance(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    rng: np.random.Generator,
    subsets: int,
    subset_size: int,
) -> tuple[float, float]:
    """Mean and standard deviation over `subsets` draws (without replacement) of `subset_size` samples of each set.

    Unbiased, so it may be a little below zero. Raises InputError where a subset is larger than a set.
    """
    a, b = _pair(a, b)
    if not 2 <= subset_size <= min(len(a), len(b)):
        expected = f"subsets of 2 to {min(len(a), len(b))} samples, as many as both sets have"
        raise InputError("kernel distance", expected, str(subset_size), "give more scenes or take smaller subsets")
    if subsets < 1:
        raise InputError("kernel distance", "at least one subset", str(subsets))
    found = [
        _unbiased_mmd(a[rng.permutation(len(a))[:subset_size]], b[rng.permutation(len(b))[:subset_size]])
        for _ in range(subsets)
    ]
    return float(np.mean(found)), float(np.std(found))


def _unbiased_mmd(a: Float[np.ndarray, "s d"], b: Float[np.ndarray, "s d"]) -> float:
    size = len(a)
    within = [kernel.sum() - np.trace(kernel) for kernel in (_cubic(a, a), _cubic(b, b))]
    return float(sum(within) / (size * (size - 1)) - 2 * _cubic(a, b).mean())


def _cubic(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    return (a @ b.T / a.shape[1] + 1) ** 3


def inception_score(probabilities: Float[np.ndarray, "n k"], splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation over `splits` consecutive parts of nearly equal size; between 1 and k.

    probabilities: a classifier's, a row a sample. Raises InputError on fewer samples than parts, or rows that are no
    distributions.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not np.isfinite(p).all() or (p < 0).any() or np.abs(p.sum(-1) - 1).max(initial=0) > 1e-4:
        raise InputError("inception score", "rows of class probabilities that sum to one", f"array of shape {p.shape}")
    if not 1 <= splits <= len(p):
        raise InputError("inception score", f"1 to {len(p)} parts, a sample each at least", str(splits))
    scores = [_exp_mean_divergence(part) for part in np.array_split(p, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _exp_mean_divergence(p: Float[np.ndarray, "n k"]) -> float:
    """exp(H(mean of p) - mean of H(p)), which is the mean divergence from the mean."""
    return float(np.exp(_entropy(p.mean(0, keepdims=True))[0] - _entropy(p).mean()))


def _entropy(p: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    return -np.where(p > 0, p * np.log(np.maximum(p, np.finfo(float).tiny)), 0).sum(1)


def _pair(
    a: Shaped[np.ndarray, "n d"], b: Shaped[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(*a.shape, *b.shape) < 1:
        raise InputError("feature sets", "two arrays (samples, features) of equal width", f"{a.shape} and {b.shape}")
    for name, features in (("first", a), ("second", b)):
        if not np.isfinite(features).all():
            raise InputError(f"{name} feature set", "finite features", "others")
    return a, b
