"""Draws have exactly the probabilities asked for, rare classes included, and depend on their own stream alone."""

import numpy as np
import pytest
import torch

from pipeline.diffusion import inverse_cdf, sampling
from pipeline.diffusion.sampling import categorical, categorical_in_torch, generators, uniform_rows
from tests.diffusion.dense import p_value

LARGEST = 1 - 2.0**-53  # the largest float64 below 1


def uniforms(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(probabilities: list[float], count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log().to(dtype).expand(count, -1).clone()


@pytest.mark.parametrize("offset", [0.0, 30.0, -40.0])  # logits needn't be normalised
def test_frequencies_of_rare_classes(offset: float) -> None:
    p = [1e-4, 0.6, 0.0, 0.3, 3e-4, 0.0996]
    drawn = categorical(rows(p, 400_000) + offset, uniforms(400_000))
    counts = np.bincount(drawn.numpy(), minlength=len(p))
    assert p_value(counts, np.array(p)) > 1e-3


def test_a_class_of_a_billionth_has_its_exact_share() -> None:
    """Of evenly spaced uniforms exactly that share falls into it: float32 Gumbel noise would never draw it.

    Only the uniforms near its interval are drawn, a thousand to a billionth.
    """
    spaced = (torch.arange(4000, dtype=torch.float64) + 0.5) * 1e-12
    first = categorical(rows([1e-9, 1 - 1e-9], 4000), spaced)
    assert abs(int((first == 0).sum()) - 1000) <= 1
    last = categorical(rows([1 - 1e-9, 1e-9], 4000, torch.float64), 1 - spaced)
    assert abs(int((last == 1).sum()) - 1000) <= 1


def test_zero_probability_is_never_drawn_not_even_at_the_ends() -> None:
    ends = torch.tensor([0.0, LARGEST, 2.0**-53, 0.5], dtype=torch.float64)
    assert categorical(rows([0, 0.5, 0.5, 0], 4), ends).tolist() == [1, 2, 1, 2]
    assert categorical(rows([0, 0, 1, 0, 0], 4), ends).tolist() == [2, 2, 2, 2]
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20_000, 20, generator=generator) * 4
    logits[torch.rand(logits.shape, generator=generator) < 0.4] = -torch.inf
    logits[:, 7] = 0.0
    for end in (0.0, LARGEST):
        drawn = categorical(logits.clone(), torch.full((20_000,), end, dtype=torch.float64))
        chosen = logits.gather(1, drawn[:, None])
        assert torch.isfinite(chosen).all()


def test_the_first_class_whose_cumulated_probability_exceeds_the_uniform() -> None:
    generator = torch.Generator().manual_seed(2)
    logits, u = torch.randn(500, 6, generator=generator), uniforms(500, 3)
    p = logits.double().softmax(-1).numpy()
    twin = [next(k for k in range(6) if row[: k + 1].sum() > x) for row, x in zip(p, u.numpy(), strict=True)]
    assert categorical(logits, u).tolist() == twin


def test_logits_are_left_as_they_are_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, u = torch.randn(1000, 5, generator=torch.Generator().manual_seed(4)), uniforms(1000)
    before = logits.clone()
    whole = categorical(logits, u)
    assert torch.equal(logits, before)
    assert torch.equal(categorical_in_torch(logits, u), whole)
    for module in (sampling, inverse_cdf):
        monkeypatch.setattr(module, "_CHUNK", 130)
    assert torch.equal(categorical(logits, u), whole)
    assert torch.equal(categorical_in_torch(logits, u), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("min_p", [0.0, 0.01])
def test_compiled_and_torch_twins_draw_the_same(dtype: torch.dtype, min_p: float) -> None:
    generator = torch.Generator().manual_seed(6)
    logits = (torch.randn(40_000, 20, generator=generator) * 5).to(dtype)
    logits[torch.rand(logits.shape, generator=generator) < 0.2] = -torch.inf
    logits[:, 3] = 1.0
    spaced = logits.repeat(1, 2)[:, :20]  # not contiguous
    for rows_of in (logits, spaced, logits[:1]):
        u = uniforms(len(rows_of), 8)
        assert torch.equal(categorical(rows_of, u, min_p), categorical_in_torch(rows_of, u, min_p))


def test_min_p_leaves_out_the_unlikely_and_nothing_else() -> None:
    p = [0.5, 0.3, 0.04, 0.16, 0.0]
    drawn = categorical(rows(p, 50_000), uniforms(50_000), 0.1)  # 0.04 < 0.1 * 0.5 <= 0.16
    counts = np.bincount(drawn.numpy(), minlength=5)
    assert p_value(counts, np.array([0.5, 0.3, 0, 0.16, 0]) / 0.96) > 1e-3


def test_streams_are_their_seeds_alone() -> None:
    device = torch.device("cpu")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = uniform_rows(generators([5, 2**62, 9], device), 50)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.dtype == torch.float64
    assert found.min() >= 0
    assert found.max() < 1
    turned = uniform_rows(generators([9, 5], device), 50)
    assert torch.equal(turned, found[[2, 0]])
    assert not torch.equal(found[0], found[1])
