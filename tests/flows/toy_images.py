"""A street root, and a critic and a pipeline that learned a few steps from it; made once a test process."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flows.image_critic import Splits, train_critic
from flows.image_recipes import base_recipe
from flows.image_training import train_base
from pipeline.images.config import FidelityConfig
from tests.flows.street_root import write_street_root

SIZE = (40, 20)  # of the root's photographs
STEPS = ("vae.train.steps=8", "control.train.steps=6", "control.train.validate_every=3")


@dataclass(frozen=True)
class ToyImages:
    """root: a data set with photographs; critic: a folder of `train-critic`; weights: a pipeline's folder."""

    root: Path
    critic: Path
    weights: Path
    run: Path  # of the pipeline's training


@functools.cache
def toy_images() -> ToyImages:
    """Thresholds have so much slack that about any image passes; tests set their own."""
    folder = Path(tempfile.mkdtemp(prefix="occfactory-test-images-"))
    root = write_street_root(folder / "root", train=6, val=10)
    fidelity = FidelityConfig(slack=0.99)
    train_critic(
        root, folder / "critic", SIZE, splits=Splits(), toy=True, changes=("train.steps=20",), fidelity=fidelity
    )
    weights = train_base(root, folder / "base", base_recipe("tiny", STEPS))
    return ToyImages(root, folder / "critic", weights, folder / "base")
