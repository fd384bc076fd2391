"""Batch norms' running statistics, taken anew on other images: adaptation without labels.

What a network normalises by in evaluation then is the mean of the given batches' own statistics (Li et al., AdaBN,
2016), which need images and calibrations alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def reestimate_batch_norm(model: nn.Module, views: Iterable[tuple[Tensor, ...]]) -> int:
    """Replace all running means and variances by their plain averages over `views`; how many batches there were.

    views: images, pixels and so on as the network takes them, on its device. Weights, modes and momenta stay as they
    were; without any view the statistics do too.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    mode, batches = model.training, 0
    try:
        model.eval()
        for view in views:
            if not batches:
                for norm in norms:
                    norm.train()
                    norm.reset_running_stats()
                    norm.momentum = None  # a plain average over batches
            with torch.no_grad():
                model(*view)
            batches += 1
    finally:
        model.train(mode)
        for norm, momentum, training in before:
            norm.momentum = momentum
            norm.train(training)
    return batches
