"""The plain twin of d3pm.py: transition matrices multiplied out, and Bayes' rule by hand. All float64."""

import numpy as np
from scipy.stats import chisquare

from pipeline.diffusion import d3pm


def one_step(process: d3pm.Process, t: int) -> np.ndarray:
    """Q_t, (states, states), rows x_{t-1}; the mask, if there is one, is kept."""
    keep = float(process.alpha_bar[t] / process.alpha_bar[t - 1])
    matrix = np.eye(process.states) * keep
    if process.kind == "uniform":
        return matrix + (1 - keep) / process.classes
    matrix[:, process.classes] += 1 - keep
    return matrix


def product(process: d3pm.Process, s: int, t: int) -> np.ndarray:
    """Q_{s+1} Q_{s+2} ... Q_t: q(x_t | x_s), rows x_s."""
    matrix = np.eye(process.states)
    for time in range(s + 1, t + 1):
        matrix = matrix @ one_step(process, time)
    return matrix


def posterior(process: d3pm.Process, t: int, s: int) -> np.ndarray:
    """q(x_s | x_t, x_0) by Bayes' rule, indexed [x_t, x_0, x_s]; 0 throughout where x_t can't come from x_0."""
    first, then = product(process, 0, s), product(process, s, t)
    joint = first[None, : process.classes] * then.T[:, None]  # x_t, x_0, x_s
    total = joint.sum(-1, keepdims=True)
    return np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)


def p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square of counts against exact probabilities; classes of probability 0 must not have been drawn."""
    possible = probabilities > 0
    assert not counts[~possible].any()
    if possible.sum() == 1:
        return 1.0
    expected = probabilities[possible] / probabilities.sum() * counts.sum()
    assert expected.min() >= 5, "too few draws for a chi-square test"
    return float(chisquare(counts[possible], expected).pvalue)
