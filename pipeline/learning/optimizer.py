"""The optimiser of a run: AdamW, or AdamW with moments of 8 bits.

Decoupled weight decay regularization (Loshchilov and Hutter, 2019); 8-bit optimizers via block-wise quantization
(Dettmers et al., 2022), which is bitsandbytes' and needs it installed. Weights of fewer than 4,096 numbers keep moments
of 32 bits there.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pipeline.learning.config import TrainConfig
from pipeline.scene.errors import InputError


def check_optimizer(config: TrainConfig, device: torch.device) -> None:
    """Whether this machine can have the config's optimiser. Raises InputError."""
    if config.optimizer != "adamw_8bit":
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "pip install bitsandbytes, or optimizer=adamw"
        raise InputError("optimizer adamw_8bit", "the package bitsandbytes", "none", remedy)
    if device.type != "cuda":
        raise InputError("optimizer adamw_8bit", "a GPU (CUDA)", str(device), "use optimizer=adamw")


def new_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> Optimizer:
    """For the weights that learn. device: theirs; `check_optimizer` has passed."""
    rates: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas, "eps": config.eps}
    if config.optimizer == "adamw_8bit":
        found: Optimizer = importlib.import_module("bitsandbytes.optim").AdamW8bit(_groups(model, config), **rates)
        return found
    fused = device.type == "cuda" or None  # one kernel a step; None: torch's own choice
    return torch.optim.AdamW(_groups(model, config), fused=fused, **rates)


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    learned = [p for p in model.parameters() if p.requires_grad]
    vectors = [] if config.decay_vectors else [p for p in learned if p.ndim <= 1]
    others = learned if config.decay_vectors else [p for p in learned if p.ndim > 1]
    groups = [{"params": others, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
