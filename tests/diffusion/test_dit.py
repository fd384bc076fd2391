"""The network: nothing leaks between packed sequences, every way of attention is the same, positions tell places."""

from typing import Any

import pytest
import torch

from pipeline.diffusion import dit
from pipeline.diffusion.dit import DiT, DiTConfig, around, attention, census, denoiser, sincos
from pipeline.diffusion.masked import MASK
from pipeline.scene.errors import InputError

K, PLACES, LENGTHS = 5, (6, 6, 6), [7, 3, 12, 1]


def network(seed: int = 0, causal: bool = False, **fields: Any) -> DiT:
    """Weights far from the zero start, in eval mode."""
    torch.manual_seed(seed)
    made = DiT(K, DiTConfig(**{"width": 24, "depth": 2, "heads": 2} | fields), PLACES, causal)
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(torch.randn(weights.shape) * 0.2)
    return made.eval()


def sequences(lengths: list[int] = LENGTHS, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(MASK, K, (sum(lengths),), generator=generator)
    return tokens, torch.randint(6, (sum(lengths), 3), generator=generator)


def test_a_new_network_says_nothing() -> None:
    made = DiT(K, DiTConfig(width=24, depth=1, heads=2), PLACES)
    assert (made(*sequences(), LENGTHS) == 0).all()


@pytest.mark.parametrize(("causal", "reach"), [(False, 0), (True, 0), (False, 2)])
def test_packed_sequences_do_not_see_each_other(causal: bool, reach: int) -> None:
    made, (tokens, positions) = network(causal=causal, reach=reach, rotary=reach > 0), sequences()
    packed, first = made(tokens, positions, LENGTHS), 0
    for length in LENGTHS:
        part = slice(first, first + length)
        alone = made(tokens[part], positions[part], [length])
        assert torch.allclose(packed[part], alone, atol=1e-5)
        first += length
    other = tokens.clone()
    other[7:10] = (other[7:10] + 2) % K
    changed = (made(other, positions, LENGTHS) != packed).any(-1)
    assert changed[7:10].all()
    assert not changed[:7].any()
    assert not changed[10:].any()


@pytest.mark.filterwarnings("ignore")  # on a CPU FlexAttention runs uncompiled, and says so
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [6, 6, 6]])
def test_flex_and_slices_are_attention_by_hand(causal: bool, lengths: list[int]) -> None:
    owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    mask = owner[:, None] == owner
    mask = mask.tril() if causal else mask
    q, k, v = torch.randn(3, len(owner), 2, 16, generator=torch.Generator().manual_seed(0))
    weights = torch.einsum("nhe,mhe->hnm", q, k) / 16**0.5
    expected = torch.einsum("hnm,mhe->nhe", weights.masked_fill(~mask, -torch.inf).softmax(-1), v)
    for kind in ("slices", "flex"):
        found = attention(kind, tuple(lengths), causal, q.device)(q, k, v)
        assert torch.allclose(found, expected, atol=1e-5)


def test_causal_sees_no_later_token() -> None:
    made, (tokens, positions) = network(causal=True), sequences([8])
    before, other = made(tokens, positions, [8]), tokens.clone()
    other[5] = (other[5] + 2) % K
    changed = (made(other, positions, [8]) != before).any(-1)
    assert changed.tolist() == [False] * 5 + [True] * 3


@pytest.mark.parametrize("kind", ["sincos", "learned"])
def test_order_means_nothing_and_place_much(kind: Any) -> None:
    made, (tokens, positions) = network(positions=kind), sequences([12])
    order = torch.randperm(12)
    found = made(tokens, positions, [12])
    assert torch.allclose(made(tokens[order], positions[order], [12]), found[order], atol=1e-5)
    for axis in range(3):
        moved = positions.clone()
        moved[0, axis] = (moved[0, axis] + 1) % 6
        assert not torch.allclose(made(tokens, moved, [12])[0], found[0], atol=1e-4)


def test_turned_scores_know_offsets_alone() -> None:
    """A query and a key, turned by their cells: their product stays if both move, and changes with each axis."""
    q, k = torch.randn(2, 1, 1, 14, generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([[0, 0, 0], [3, 7, 2], [5, 5, 5], [8, 12, 7], [4, 7, 2], [3, 9, 2], [3, 7, 3]])

    def attend(a: torch.Tensor, b: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ie,je->ij", a[:, 0], b[:, 0])

    scores = dit._turned(q.expand(7, 1, 14), k.expand(7, 1, 14), q, dit.turns(cells, 14), attend)
    assert torch.allclose(scores[0, 1], scores[2, 3], atol=1e-5)
    assert torch.allclose(scores.diagonal(), (q * k).sum().expand(7), atol=1e-5)
    assert len({round(float(scores[0, j]), 3) for j in (1, 4, 5, 6)}) == 4
    cos, sin = dit.turns(torch.tensor([[1, 0, 1]]), 14)
    assert torch.allclose(
        torch.atan2(sin, cos)[0, 0], torch.tensor([1, 0.5, 0, 0, 1, 0.5, 0]) * torch.pi / 2, atol=1e-6
    )


def test_sincos_codes_by_hand_and_all_different() -> None:
    codes = sincos(torch.tensor([[1, 0, 2]]), 14)
    one, two, slow = torch.tensor([1.0, 2.0, 0.01])
    expected = [one.sin(), slow.sin(), one.cos(), slow.cos(), 0, 0, 1, 1, two.sin(), (2 * slow).sin()]
    assert torch.allclose(codes[0, :10], torch.tensor(expected))
    assert codes[0, 12:].tolist() == [0, 0]
    cube = torch.cartesian_prod(*[torch.arange(12)] * 3)
    found = sincos(cube, 48)
    assert torch.cdist(found, found).fill_diagonal_(9).min() > 0.1


def test_times_conditions_and_chosen_tokens() -> None:
    made, inputs = network(), sequences()
    t = torch.tensor([0.0, 3, 7, 9])
    found = made(*inputs, LENGTHS, t=t)
    plain = made(*inputs, LENGTHS)
    assert torch.allclose(found[:7], plain[:7], atol=1e-5)  # told 0, as by default
    assert not torch.allclose(found[7:10], plain[7:10], atol=1e-3)
    chosen = torch.tensor([2, 8, 22])
    assert torch.allclose(made(*inputs, LENGTHS, t=t, chosen=chosen), found[chosen], atol=1e-6)
    assert not torch.allclose(made(*inputs, LENGTHS, extra=torch.randn(23, 24)), plain, atol=1e-3)


def test_recomputing_gives_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        made = network(recompute=recompute).train()
        made(*sequences(), LENGTHS).square().sum().backward()
        gradients.append([p.grad for p in made.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_norms_stay_in_float32_under_bf16() -> None:
    made, seen = network(), []
    for block in made.blocks:
        block.norms[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    exact = made(*sequences(), LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        near = made(*sequences(), LENGTHS)
    assert set(seen) == {torch.float32}
    assert (near.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("lengths", [(5, 3), (4, 4)])
def test_attention_stays_in_float32_on_a_cpu(lengths: tuple[int, ...]) -> None:
    q, k, v = (torch.randn(8, 2, 6, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(3))
    attend = attention("slices", lengths, False, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(q, k, v)
    assert found.dtype == torch.float32
    assert torch.equal(found, attend(q.float(), k.float(), v.float()))


def test_rows_are_filled_up_without_a_trace() -> None:
    made, (tokens, positions) = network(), sequences([4, 9])
    z, places = torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9, 3, dtype=torch.int64)
    z[0, :4], z[1], places[0, :4], places[1] = tokens[:4], tokens[4:], positions[:4], positions[4:]
    found = denoiser(made, places, [4, 9])(z)
    assert found.shape == (2, 9, K)
    assert torch.allclose(found[0, :4], made(tokens[:4], positions[:4], [4]), atol=1e-5)
    assert torch.allclose(found[1], made(tokens[4:], positions[4:], [9]), atol=1e-5)


def test_neighbours_are_those_of_the_same_sequence() -> None:
    cells = torch.tensor([[0, 0, 0], [0, 0, 1], [3, 3, 3], [0, 0, 0], [0, 1, 2]])
    found = around(torch.tensor([4, MASK, 0, 1, 2]), cells, [3, 2], 1)
    assert found.shape == (5, 26)
    up, down = 26 // 2, 26 // 2 - 1  # (0, 0, 1) and (0, 0, -1), the cell itself left out
    assert found[0, up] == 1
    assert found[1, down] == 4 + 2
    assert [int((row > 0).sum()) for row in found] == [1, 1, 0, 0, 0]
    assert int((around(torch.tensor([1, 2]), cells[3:], [2], 2) > 0).sum()) == 2


def test_a_token_is_told_its_neighbours() -> None:
    torch.manual_seed(0)
    made = DiT(K, DiTConfig(width=24, depth=1, heads=2, reach=1), PLACES)
    torch.nn.init.normal_(made.leave.weight)  # blocks still do nothing
    cells = torch.tensor([[1, 1, 1], [1, 1, 2], [4, 4, 4]])
    changed = made(torch.tensor([MASK, 1, MASK]), cells, [3]) != made(torch.tensor([MASK, 2, MASK]), cells, [3])
    assert changed.any(-1).tolist() == [True, True, False]
    for said in ({"reach": 1}, {"rotary": True}, {"census": True}):
        with pytest.raises(InputError, match="reach 0, nothing rotary and no census"):
            network(causal=True, **said)
    with pytest.raises(ValueError, match="even number"):
        DiTConfig(width=21, heads=3, rotary=True)


def test_a_census_counts_each_sequence() -> None:
    tokens = torch.tensor([MASK, 0, 0, 2, MASK, MASK, 1])
    assert census(tokens, [4, 3], 4).tolist() == [[1, 2, 0, 1], [2, 0, 1, 0]]
    made = DiT(K, DiTConfig(width=24, depth=1, heads=2, census=True), PLACES)
    torch.nn.init.normal_(made.leave.weight)  # blocks still do nothing
    tokens, cells = torch.tensor([MASK, 1, MASK, MASK]), torch.tensor([[0, 0, 0], [5, 5, 5], [1, 1, 1], [5, 5, 5]])
    other = tokens.clone()
    other[1] = 2
    assert torch.equal(made(tokens, cells, [2, 2])[0], made(other, cells, [2, 2])[0])  # begins at 0
    assert made.census is not None
    torch.nn.init.normal_(made.census.weight)
    changed = (made(tokens, cells, [2, 2]) != made(other, cells, [2, 2])).any(-1)
    assert changed.tolist() == [True, True, False, False]
