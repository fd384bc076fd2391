"""A small real training: used in the tests' process, as a script that is killed, and under `accelerate launch`.

    python toy_run.py OUT [config fields as JSON]

It draws all kinds of randomness: dropout, the loss's generator, and augmentation in the data set.
"""

import atexit
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.learning.config import TrainConfig
from pipeline.learning.loop import train

SAMPLES = 22


class Points:
    """Sample i is (six numbers, their sum), with a little noise a draw."""

    def __init__(self, noise=0.1):
        self.noise = noise

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return self.draw(index, np.random.default_rng(0))

    def draw(self, index, rng):
        time.sleep(float(os.environ.get("TOY_SECONDS_A_SAMPLE", "0")))
        x = np.random.default_rng(1000 + index).normal(size=6)
        noisy = (x + self.noise * rng.normal(size=6)).astype(np.float32)
        return {"x": noisy, "y": np.float32(x.sum()), "index": index}


def network(dropout=0.2, norm=False):
    torch.manual_seed(5)
    middle = nn.BatchNorm1d(16) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(6, 16), middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1))


def noisy_loss(model, batch, generator):
    x = batch["x"]
    x = x + 0.05 * torch.randn(x.shape, generator=generator, device=x.device)
    error = model(x)[:, 0] - batch["y"]
    return error.square().mean(), {"mean_error": error.mean()}


def plain_loss(model, batch, generator):
    """No randomness at all; notes what it was shown in the file that TOY_SEEN names, one line a call."""
    if "TOY_SEEN" in os.environ:
        with open(os.environ["TOY_SEEN"] + os.environ.get("RANK", ""), "a") as seen:
            print(*batch["index"].tolist(), file=seen)
    error = model(batch["x"])[:, 0] - batch["y"]
    return error.square().mean(), {"mean_error": error.mean()}


def config(**fields):
    small = {"steps": 12, "batch_size": 4, "learning_rate": 1e-2, "ema_decay": 0.9, "torch_threads": 1, "device": "cpu"}
    return TrainConfig(**{**small, "log_every": 1, "checkpoint_every": 3, "clip_norm": 5.0, **fields})


def run(out, plain=False, **fields):
    """Plain: without any noise, so that batches may be cut in other ways."""
    model = network(dropout=0.0) if plain else network()
    loss, noise = (plain_loss, 0.0) if plain else (noisy_loss, 0.1)
    return model, train(model, loss, Points(noise), config(**fields), Path(out))


def note_whether_processes_are_joined() -> None:
    """In a file of each process: lines of two on one pipe may mix."""
    with open(os.environ["TOY_AT_EXIT"] + os.environ["RANK"], "w") as noted:
        noted.write(str(torch.distributed.is_initialized()))


if __name__ == "__main__":
    if "TOY_AT_EXIT" in os.environ:  # handlers run last in, first out: this one after the training's
        atexit.register(note_whether_processes_are_joined)
    run(sys.argv[1], **json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
