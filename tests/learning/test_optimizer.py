"""Which optimiser a run has, what it must have for it, and that the usual one leaves digests as they were."""

import importlib.util

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pipeline.learning import loop
from pipeline.learning.checkpoint import load_part
from pipeline.learning.config import TrainConfig
from pipeline.learning.loop import train
from pipeline.learning.optimizer import check_optimizer, new_optimizer
from pipeline.scene.errors import InputError
from tests.learning.toy_run import Points, plain_loss

BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
EIGHT = {"batch_size": 4, "learning_rate": 1e-2, "optimizer": "adamw_8bit", "torch_threads": 1}


def wide() -> nn.Module:
    """One layer of 4,096 weights, the fewest that have moments of 8 bits."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def test_the_usual_one_is_not_written_down_so_that_old_runs_go_on() -> None:
    plain = TrainConfig(steps=1, batch_size=1)
    assert plain.optimizer == "adamw"
    assert TrainConfig.model_fields.keys() - plain.model_dump(mode="json").keys() == {"optimizer"}
    eight = TrainConfig(steps=1, batch_size=1, optimizer="adamw_8bit")
    assert TrainConfig.model_validate(eight.model_dump(mode="json")) == eight
    with pytest.raises(ValidationError):
        TrainConfig(steps=1, batch_size=1, optimizer="sgd")


def test_groups_decay_weights_and_spare_vectors() -> None:
    config = TrainConfig(steps=1, batch_size=1, weight_decay=0.1, decay_vectors=False, betas=(0.8, 0.9))
    optimizer = new_optimizer(wide(), config, torch.device("cpu"))
    assert type(optimizer) is torch.optim.AdamW
    groups = [({p.ndim for p in g["params"]}, g["weight_decay"], g["betas"]) for g in optimizer.param_groups]
    assert groups == [({2}, 0.1, (0.8, 0.9)), ({1}, 0.0, (0.8, 0.9))]


@pytest.mark.parametrize("there", [False, True])
def test_8_bits_need_the_package_and_a_gpu(tmp_path, monkeypatch, there) -> None:
    if there != BITSANDBYTES:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if there else None)
    config = TrainConfig(steps=2, device="cpu", **EIGHT)
    words = r"a GPU \(CUDA\), found cpu" if there else "the package bitsandbytes, found none; pip install"
    with pytest.raises(InputError, match=words) as fault:
        train(wide(), plain_loss, Points(), config, tmp_path / "run")
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not BITSANDBYTES, reason="needs bitsandbytes")
@pytest.mark.parametrize("device", ["cpu", pytest.param("auto", marks=pytest.mark.gpu)])
def test_8_bits_learn_and_resume_to_equal_weights(tmp_path, monkeypatch, device) -> None:
    if device == "cpu":  # the package does it there too, slowly
        monkeypatch.setattr(loop, "check_optimizer", lambda *_: None)
    elif not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    config = TrainConfig(steps=12, device=device, log_every=6, checkpoint_every=6, **EIGHT)
    whole = wide()
    losses = train(whole, plain_loss, Points(), config, tmp_path / "whole").losses
    assert losses[-1]["loss"] < losses[0]["loss"]
    train(wide(), plain_loss, Points(), config.model_copy(update={"steps": 6}), tmp_path / "parts")
    again = wide()
    found = train(again, plain_loss, Points(), config, tmp_path / "parts")
    assert all(torch.equal(value.cpu(), again.state_dict()[name].cpu()) for name, value in whole.state_dict().items())
    moments = load_part(found.checkpoint, "optimizer")
    assert moments["state1/2.weight"].dtype == torch.uint8
    check_optimizer(TrainConfig(steps=1, batch_size=1), torch.device("cpu"))
