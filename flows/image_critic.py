"""`occfactory images train-critic`: the critic of a root's photographs, and the structure check's thresholds.

OUT/training         checkpoints and logs, from which a stopped run goes on
OUT/weights          the critic and its card
OUT/thresholds.json  quantiles of its agreement with the held-out split's photographs
OUT/renders          the renders it learned from, by digest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.changes import apply_changes, table_of
from flows.image_pairs import ImagePairs, PairsConfig
from flows.recipes import SplitSource, validated
from pipeline.images.config import FidelityConfig
from pipeline.images.critic import Critic, CriticConfig, small, tiny
from pipeline.images.critic_training import fit_critic
from pipeline.images.fidelity import Thresholds, agreements, thresholds, write_thresholds
from pipeline.scene.errors import InputError

THRESHOLDS_NAME = "thresholds.json"


@dataclass(frozen=True)
class Splits:
    """train: what the critic learns from; held_out: what its thresholds come from."""

    train: str = "train"
    held_out: str = "val"


def train_critic(
    root: Path,
    out: Path,
    size_px: tuple[int, int],
    *,
    splits: Splits,
    toy: bool = False,
    changes: Sequence[str] = (),
    fidelity: FidelityConfig | None = None,
) -> tuple[Critic, Thresholds]:
    """Train, or go on training, and measure. toy: the tiny network; changes: "path=value" on its config.

    size_px: (width, height) of photographs and renders. Raises InputError, where it can before training.
    """
    if splits.train == splits.held_out:
        raise InputError("held-out split", "another one than the critic learns from", repr(splits.held_out))
    shape, renders = PairsConfig(width_px=size_px[0], height_px=size_px[1]), Path(out) / "renders"
    train, held_out = (
        ImagePairs(SplitSource(root=root, split=split), shape, renders) for split in (splits.train, splits.held_out)
    )
    config, fidelity = _config(train, toy, changes), fidelity or FidelityConfig()
    if len(held_out) < fidelity.min_photographs:
        what = f"at least {fidelity.min_photographs} photographs in split {splits.held_out}"
        raise InputError(root, what, str(len(held_out)), "thresholds need them")
    critic = fit_critic(train, train.taxonomy, config, Path(out), held_out)
    bounds = thresholds(agreements(critic, held_out, train.taxonomy, fidelity), fidelity)
    write_thresholds(bounds, Path(out) / THRESHOLDS_NAME)
    return critic, bounds


def _config(pairs: ImagePairs, toy: bool, changes: Sequence[str]) -> CriticConfig:
    table = table_of((tiny if toy else small)(pairs.taxonomy))
    apply_changes(table, tuple(changes))
    return validated(CriticConfig, table)


def summary(critic: Critic, bounds: Thresholds) -> list[str]:
    """A few lines for a terminal."""
    held_out = critic.card["held_out"]
    recall = ", ".join(f"{name} {value:.2f}" for name, value in held_out["recall"].items())
    least = ", ".join(f"{name} {value:.2f}" for name, value in bounds.recall.items()) or "none"
    return [
        f"critic: {critic.card['data']['pairs']} pairs, {critic.card['steps']} steps",
        f"held-out photographs: {held_out['pairs']}, mIoU {held_out['miou']:.3f}, depth error "
        f"{held_out['depth_error']:.3f}, recall {recall or 'of no foreground'}",
        f"thresholds at quantile {bounds.quantile}: mIoU {bounds.miou:.3f}, depth error {bounds.depth_error:.3f}, "
        f"recall {least}; {bounds.passed} of {bounds.photographs} photographs pass",
    ]
