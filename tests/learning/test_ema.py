"""The moving average against its closed form."""

import pytest
import torch
from torch import nn

from pipeline.learning.ema import Ema


def set_to(model, value):
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(value)


def test_closed_form_with_constant_decay() -> None:
    # from a_0 = 1 with w = 3 ever after: a_n = 3 - 2 d^n
    model = nn.Linear(2, 2)
    set_to(model, 1.0)
    ema = Ema(model, 0.9, warmup=False)
    set_to(model, 3.0)
    for n in range(1, 30):
        ema.update(model)
        assert ema.average["weight"].numpy() == pytest.approx(3 - 2 * 0.9**n, rel=1e-6)


def test_warm_up_begins_with_a_tenth() -> None:
    model = nn.Linear(1, 1)
    set_to(model, 0.0)
    ema = Ema(model, 0.999)
    set_to(model, 1.0)
    ema.update(model)  # d_1 = 1 / 10
    assert float(ema.average["bias"]) == pytest.approx(0.9)
    ema.update(model)  # d_2 = 2 / 11
    assert float(ema.average["bias"]) == pytest.approx(0.9 * 2 / 11 + 9 / 11)


def test_buffers_are_copied_and_half_precision_is_averaged_wide() -> None:
    model = nn.BatchNorm1d(3).to(torch.bfloat16)
    ema = Ema(model, 0.999, warmup=False)
    model.num_batches_tracked += 7
    model.running_mean += 2
    ema.update(model)
    assert int(ema.average["num_batches_tracked"]) == 7
    assert ema.average["running_mean"].tolist() == [2, 2, 2]
    assert ema.average["weight"].dtype == torch.float32


def test_swapped_in_and_back_bit_for_bit() -> None:
    model = nn.Linear(4, 4)
    ema = Ema(model, 0.5, warmup=False)
    with torch.no_grad():
        model.weight.add_(0.1)
    ema.update(model)
    own = model.weight.detach().clone()
    with pytest.raises(KeyError), ema.swapped_in(model):  # noqa: PT012
        assert torch.equal(model.weight, ema.average["weight"])
        raise KeyError
    assert torch.equal(model.weight, own)
    assert model.weight.requires_grad
