"""Probability that a reverse step moves between two sets of classes (Comp-D3PM's "flow collapse", eqs. 3-5).

Over the step from t to s, given x_t, a voxel of set A goes to set B with probability sum_{j in B} p(x_s = j | x_t).
  alpha_t  this, summed over the voxels whose x_t is foreground, B the background: what leaves the foreground;
  beta_t   the same from background to foreground.
A step changes the foreground by beta_t - alpha_t voxels in expectation (plus what other classes give and take).
Uniform noise is foreground in as large a share as there are foreground classes, far more than a street is, so alpha_t
exceeds beta_t in every sound reverse process. What tells a bias is the difference to q(x_s | x_t, x_0) on real scenes:
the two agree in expectation, at every t, if p(x_0 | x_t) is right. "mixed" version (see d3pm), O(1) a voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from pipeline.diffusion import d3pm
from pipeline.diffusion.bedit import fold
from pipeline.diffusion.d3pm import Process
from pipeline.diffusion.sampling import generators, uniform_rows
from pipeline.diffusion.stage import Stage, StageData
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import IGNORE

Times = tuple[int, int]  # (t, s), s < t


@dataclass(frozen=True, eq=False)
class Flow:
    """What moved at each step of each scene, in expected voxels; arrays are (steps, scenes).

    alpha: foreground to background; beta: back; foreground, background: voxels of x_t that could; voxels: of the scene.
    """

    times: tuple[Times, ...]
    alpha: Float64[np.ndarray, "s b"]
    beta: Float64[np.ndarray, "s b"]
    foreground: Float64[np.ndarray, "s b"]
    background: Float64[np.ndarray, "s b"]
    voxels: Float64[np.ndarray, "s b"]

    @property
    def alpha_rate(self) -> Float64[np.ndarray, "s"]:
        """alpha_t a foreground voxel of x_t, over all scenes; 0 where there is none."""
        return self.alpha.sum(1) / np.maximum(self.foreground.sum(1), 1)

    @property
    def beta_rate(self) -> Float64[np.ndarray, "s"]:
        """beta_t a background voxel of x_t, over all scenes; 0 where there is none."""
        return self.beta.sum(1) / np.maximum(self.background.sum(1), 1)

    @property
    def lost(self) -> Float64[np.ndarray, "s"]:
        """Voxels a scene that the foreground has lost to the background, net, from T to after each step."""
        return np.cumsum((self.alpha - self.beta).mean(1))

    @property
    def share(self) -> Float64[np.ndarray, "s"]:
        """The foreground's share of x_t."""
        return self.foreground.sum(1) / np.maximum(self.voxels.sum(1), 1)

    def first(self, scenes: int) -> Flow:
        """Of the first scenes alone: a padded batch holds others at its end."""
        arrays = (self.alpha, self.beta, self.foreground, self.background, self.voxels)
        return Flow(self.times, *(array[:, :scenes] for array in arrays))


def group_probability(
    process: Process,
    x_t: Int64[Tensor, "b n"],
    p_group: Float[Tensor, "b n"],
    p_same: Float[Tensor, "b n"],
    times: Times,
    group: Bool[Tensor, "k"],
) -> Float64[Tensor, "b n"]:
    """P(x_s in group | x_t). p_group: p(x_0 in group); p_same: p(x_0 = x_t), 0 where x_t is the mask.

    Uniform: p(x_s = j) = A_j (b p0_j / Z_j + v S) with A_j = q(x_t | x_s = j) = a [j = x_t] + u, Z_k = q(x_t | x_0 = k)
    = abar_t [k = x_t] + w, and S = sum_k p0_k / Z_k; so the sum over a group needs p0 of the group and of x_t alone.
    """
    t, s = times
    b, end = float(process.alpha_bar[s]), float(process.alpha_bar[t])
    p_group, p_same, K = p_group.double(), p_same.double(), process.classes
    inside = torch.cat([group, group.new_zeros(1)])[x_t].double()
    if process.kind == "absorbing":
        return torch.where(x_t == K, (b - end) / (1 - end) * p_group, inside)
    a = end / b
    u, v, w = (1 - a) / K, (1 - b) / K, (1 - end) / K
    S = (1 - p_same) / w + p_same / (end + w)
    others = (p_group - inside * p_same).clamp_min(0)  # float32 sums may be a rounding below
    elsewhere = u * (b * others / w + (group.sum() - inside) * v * S)
    return elsewhere + inside * (a + u) * (b * p_same / (end + w) + v * S)


class FlowMeter:
    """Adds up flows step by step; `see` has the form of a stage's `watch`.

    foreground: (K,) bool; backgrounds: sets of classes by name, all measured against the one foreground.
    """

    def __init__(self, process: Process, foreground: Bool[Tensor, "k"], backgrounds: Mapping[str, Bool[Tensor, "k"]]):
        self.process, self.foreground, self.backgrounds = process, foreground, dict(backgrounds)
        self.seen: dict[str, dict[Times, list[np.ndarray]]] = {name: {} for name in backgrounds}

    def see(
        self,
        x_t: Int64[Tensor, "b n"],
        logits: Float[Tensor, "b n k"],
        times: Times,
        valid: Bool[Tensor, "b n"] | None = None,
    ) -> None:
        """One step of a model. logits: of x_0; valid: which voxels count (None: all)."""
        rows = [self._believed(row, beliefs) for row, beliefs in zip(x_t, logits, strict=True)]  # one scene at a time
        groups, same = torch.stack([g for g, _ in rows], 1), torch.stack([p for _, p in rows])
        self._add(x_t, groups, same, times, valid)

    def see_exact(
        self, x_t: Int64[Tensor, "b n"], x_0: Int64[Tensor, "b n"], times: Times, valid: Bool[Tensor, "b n"]
    ) -> None:
        """One step of q(x_s | x_t, x_0)."""
        groups = torch.stack([table.to(x_0.device)[x_0] for table in self._tables]).double()
        self._add(x_t, groups, (x_t == x_0).double(), times, valid)

    @property
    def _tables(self) -> list[Tensor]:
        return [self.foreground, *self.backgrounds.values()]

    def _believed(self, x_t: Int64[Tensor, "n"], logits: Float[Tensor, "n k"]) -> tuple[Tensor, Tensor]:
        """p(x_0 in each table), (tables, n), and p(x_0 = x_t), (n,)."""
        p0 = logits.double().softmax(-1)
        masked = x_t >= self.process.classes
        same = p0.gather(-1, x_t.masked_fill(masked, 0)[:, None])[:, 0].masked_fill(masked, 0)
        return torch.stack(self._tables).to(p0) @ p0.T, same

    def _add(self, x_t: Tensor, groups: Tensor, same: Tensor, times: Times, valid: Tensor | None) -> None:
        counted = torch.ones_like(x_t, dtype=torch.bool) if valid is None else valid
        states = self.process.states
        foreground, *backgrounds = [
            torch.cat([table, table.new_zeros(states - len(table))]).to(x_t.device) for table in self._tables
        ]
        K, is_foreground = self.process.classes, counted & foreground[x_t]
        back = group_probability(self.process, x_t, groups[0], same, times, foreground[:K])
        for index, (name, table) in enumerate(zip(self.backgrounds, backgrounds, strict=True), 1):
            is_background = counted & table[x_t]
            away = group_probability(self.process, x_t, groups[index], same, times, table[:K])
            moved = [(away * is_foreground).sum(1), (back * is_background).sum(1)]
            counts = [members.sum(1).double() for members in (is_foreground, is_background, counted)]
            self.seen[name].setdefault(times, []).append(torch.stack(moved + counts).cpu().numpy())

    def flows(self) -> dict[str, Flow]:
        """What was seen so far, by the background's name; steps from T down, scenes in the order seen."""
        found = {}
        for name, steps in self.seen.items():
            times = tuple(sorted(steps, reverse=True))
            stacked = np.stack([np.concatenate(steps[pair], 1) for pair in times], 1)  # 5 steps scenes
            found[name] = Flow(times, *stacked)
        return found


@torch.no_grad()
def teacher_forced(
    stage: Stage, data: StageData, steps: Sequence[Times], seed: int, meters: tuple[FlowMeter, FlowMeter], batch: int
) -> None:
    """Feed the meters of (model, exact posterior) with x_t ~ q(x_t | x_0) of real scenes; conditions are the real ones.

    Noise depends on seed, step and scene alone. A self-conditioned stage sees its own first estimate, as in training.
    """
    device = next(stage.network.parameters()).device
    for first in range(0, len(data), batch):
        rows = range(first, min(first + batch, len(data)))
        valid, x_0 = (_folded(volumes[rows.start : rows.stop], stage, device) for volumes in (data.target, data.filled))
        valid = valid != IGNORE
        conditions = stage._folded([torch.from_numpy(c[rows.start : rows.stop]).to(device) for c in data.conditions])
        for t, s in steps:
            streams = generators([integer_seed(seed, "flow", row, t) for row in rows], device)
            at = torch.full((len(rows),), t, device=device)
            x_t = d3pm.corrupt(stage.process, x_0, at, uniform_rows(streams, x_0.shape[1]))
            logits = stage._logits(x_t, t, conditions, None)
            if stage.config.self_condition:
                logits = stage._logits(x_t, t, conditions, logits.argmax(-1))
            meters[0].see(x_t, logits, (t, s), valid)
            meters[1].see_exact(x_t, x_0, (t, s), valid)


def _folded(labels: np.ndarray, stage: Stage, device: torch.device) -> Int64[Tensor, "b n"]:
    return fold(torch.from_numpy(labels).to(device, torch.int64), stage.patch).flatten(1)
