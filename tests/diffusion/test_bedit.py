"""BEDiT: which voxel goes where, what it starts as, and that its options change nothing but cost."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pipeline.diffusion.bedit import BEDiT, Block, Neighbours, Volume, fold, frequencies, positions, unfold

K = 5
INPUTS = (Volume(K, 3, (2, 1)), Volume(K + 1, 2, (1, 3)))  # a condition of its own shape on the same token grid


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def network(depth: int = 2, **options: int) -> BEDiT:
    torch.manual_seed(1)
    return BEDiT(INPUTS, K, width=32, depth=depth, channels=4, **options)


def lively(model: BEDiT) -> BEDiT:
    """The same with nothing left at zero."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) * 0.1)
    return model


def volumes(tokens: tuple[int, int], batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(v.states, (batch, *tokens, v.voxels), generator=generator) for v in INPUTS]


def test_fold_puts_a_footprint_and_all_heights_into_a_token() -> None:
    x, y, z, (p, q) = 6, 4, 3, (3, 2)
    labels = torch.arange(2 * x * y * z).view(2, x, y, z)
    folded = fold(labels, (p, q))
    assert folded.shape == (2, 2, 2, p * q * z)
    for i, j, a, c, k in itertools.product(range(2), range(2), range(p), range(q), range(z)):
        assert folded[1, i, j, (a * q + c) * z + k] == labels[1, i * p + a, j * q + c, k]
    assert torch.equal(unfold(folded, (p, q)), labels)


def test_logits_come_out_at_their_voxels() -> None:
    """A bias for voxel v's class v mod K, and the volume shows it where `fold` would have taken voxel v from."""
    model = network()
    with torch.no_grad():
        model.leave.bias.view(-1, K)[torch.arange(6), torch.arange(6) % K] = 1.0
    drawn = unfold(model(torch.tensor([3, 4]), *volumes((2, 3))).argmax(-1), (2, 1))
    assert drawn.shape == (2, 4, 3, 3)
    for a, k in itertools.product(range(2), range(3)):
        assert (drawn[:, a::2, :, k] == (a * 3 + k) % K).all()


@pytest.mark.parametrize("which", [0, 1])
def test_a_token_sees_its_own_voxels_each_by_its_own_weights(which: int) -> None:
    """Without blocks there is no attention: a voxel changes its token alone, and only through its own columns."""
    model, given, channels = lively(network(depth=0)), volumes((2, 3)), 4
    offset = which * INPUTS[0].voxels * channels
    weight = model.enter.weight.detach().clone()
    t = torch.tensor([1, 9])
    for v in range(INPUTS[which].voxels):
        columns = slice(offset + v * channels, offset + (v + 1) * channels)
        with torch.no_grad():
            model.enter.weight.zero_()[:, columns] = weight[:, columns]
        before = model(t, *given)
        for other in range(INPUTS[which].voxels):
            changed = [labels.clone() for labels in given]
            changed[which][1, 1, 2, other] = (changed[which][1, 1, 2, other] + 1) % INPUTS[which].states
            moved = (model(t, *changed) != before).flatten(3).any(-1)
            assert moved.sum() == (other == v)
            assert moved[1, 1, 2] == (other == v)


def test_attention_reaches_every_token_of_its_own_sample_alone() -> None:
    model, given = lively(network(depth=1)), volumes((3, 2))
    t = torch.tensor([5, 5])
    before = model(t, *given)
    given[1][0, 0, 0, 0] = (given[1][0, 0, 0, 0] + 1) % (K + 1)
    moved = (model(t, *given) != before).flatten(3).any(-1)
    assert moved[0].all()
    assert not moved[1].any()


def test_time_and_position_matter() -> None:
    model = lively(network())
    same = [labels[:1, :1, :1].expand(2, 2, 3, -1) for labels in volumes((2, 3))]
    logits = model(torch.tensor([1, 2]), *same).flatten(1, 2)  # b n v k
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    gaps = (logits[0][:, None] - logits[0][None]).abs().amax((-1, -2)) + torch.eye(6)
    assert gaps.min() > 1e-4  # no two places are alike


def test_positions_by_hand_and_times_told_apart() -> None:
    table = positions(2, 3, 8, torch.device("cpu"))
    assert table.shape == (6, 8)
    x, y = torch.tensor(1.0), torch.tensor(2.0)  # the last token: row 1, column 2
    rates = torch.tensor([1.0, 0.01])
    by_hand = torch.cat([(x * rates).sin(), (x * rates).cos(), (y * rates).sin(), (y * rates).cos()])
    assert torch.allclose(table[5], by_hand)
    codes = frequencies(torch.arange(1001))
    assert codes.shape == (1001, 256)
    assert torch.cdist(codes, codes).add(torch.eye(1001) * 9).min() > 0.3


def test_chosen_voxels_are_a_part_of_all() -> None:
    model, given, t = lively(network()), volumes((2, 2)), torch.tensor([1, 7])
    chosen = torch.tensor([0, 2, 5])
    whole = model(t, *given)
    assert whole.shape == (2, 2, 2, 6, K)
    assert torch.allclose(model(t, *given, chosen=chosen), whole[..., chosen, :], atol=1e-6)


def test_number_of_weights() -> None:
    w, c, depth = 32, 4, 2
    v_in, v_out = 2 * 1 * 3 + 1 * 3 * 2, 2 * 1 * 3
    block = 18 * w**2 + 15 * w  # qkv 3, out 1, MLP 8, modulation 6 matrices
    by_hand = (K + K + 1) * c + (v_in * c + 1) * w + (256 + w + 2) * w + depth * block + 2 * (w**2 + w)
    by_hand += (w + 1) * v_out * K
    assert sum(weights.numel() for weights in network().parameters()) == by_hand


def test_starts_at_uniform_predictions_and_with_blocks_that_do_nothing() -> None:
    logits = network()(torch.tensor([1, 50]), *volumes((2, 2)))
    assert not logits.any()
    block, x = Block(32, 1), torch.randn(2, 6, 32)
    assert torch.equal(block(x, torch.randn(2, 32)), x)
    with torch.no_grad():
        block.modulation.bias[64:96] = 1.0  # attention's gate
    assert not torch.allclose(block(x, torch.randn(2, 32)), x)


def test_the_zero_start_still_learns() -> None:
    model = network()
    logits = model(torch.tensor([1, 50]), *volumes((2, 2)))
    nn.functional.cross_entropy(logits.flatten(0, 3), volumes((2, 2))[0].flatten()).backward()
    assert model.leave.weight.grad is not None
    assert model.leave.weight.grad.abs().max() > 0


def test_neighbours_begin_as_no_change() -> None:
    model, plain = network(1, reach=1), network(1)
    with torch.no_grad():
        for weights in (plain.leave.weight, model.leave.weight):
            weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(3)))
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["neighbours.0.convolution.weight", "neighbours.0.convolution.bias"]
    given = torch.tensor([3, 8]), *volumes((3, 4))
    assert torch.equal(model(*given), plain(*given))
    assert model(*given).any()


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_a_token_is_told_its_neighbours_as_far_as_it_reaches(reach: int) -> None:
    """With attention's and the MLP's gates closed, what changes in one token shows in those up to `reach` away."""
    model = lively(network(1, reach=reach))
    with torch.no_grad():
        model.blocks[0].modulation.weight.zero_()
        model.blocks[0].modulation.bias.zero_()
    first = volumes((6, 7), batch=1)
    other = [first[0].clone(), first[1]]
    other[0][0, 2, 3, 0] = (other[0][0, 2, 3, 0] + 1) % K
    differs = (model(torch.tensor([5]), *first) != model(torch.tensor([5]), *other)).flatten(3).any(-1)[0]
    near = {(i, j) for i in range(2 - reach, 3 + reach) for j in range(3 - reach, 4 + reach)}
    assert {tuple(place) for place in differs.nonzero().tolist()} == {p for p in near if min(p) >= 0 and p[0] < 6}


def test_neighbours_equal_a_plain_loop() -> None:
    torch.manual_seed(4)
    layer, x = Neighbours(8, 1), torch.randn(2, 3, 4, 8)
    with torch.no_grad():
        layer.convolution.weight.copy_(torch.randn(8, 8, 3, 3))
        layer.convolution.bias.copy_(torch.randn(8))
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    expected = x + layer.convolution.bias
    for i, j, a, c in itertools.product(range(3), range(4), (-1, 0, 1), (-1, 0, 1)):
        if 0 <= i + a < 3 and 0 <= j + c < 4:
            expected[:, i, j] += normed[:, i + a, j + c] @ layer.convolution.weight[:, :, a + 1, c + 1].T
    assert torch.allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("reach", [0, 1])
def test_recomputing_gives_the_same_gradients(reach: int) -> None:
    found = []
    for recompute in (False, True):
        model = lively(network(recompute=recompute, reach=reach)).train()
        model(torch.tensor([3, 8]), *volumes((3, 2))).square().mean().backward()
        found.append([weights.grad for weights in model.parameters()])
    for plain, again in zip(*found, strict=True):
        assert torch.allclose(plain, again, rtol=1e-5, atol=1e-8)
        assert plain.any()


def test_bf16_blocks_keep_norms_in_float32() -> None:
    model, given, t = lively(network(reach=1)), volumes((2, 2)), torch.tensor([1, 9])
    seen: dict[str, set[torch.dtype]] = {"norm": set(), "linear": set()}
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda _, args, out: seen["norm"].update({args[0].dtype, out.dtype}))
        elif isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _, args, out: seen["linear"].add(out.dtype))
    exact = model(t, *given)
    seen["linear"].clear()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(t, *given)
        logits.float().square().mean().backward()
    assert seen == {"norm": {torch.float32}, "linear": {torch.bfloat16}}
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(torch.isfinite(weights.grad).all() for weights in model.parameters() if weights.grad is not None)


@pytest.mark.parametrize("tokens", [(1, 1), (5, 1), (3, 4)])
def test_the_same_weights_take_any_token_grid(tokens: tuple[int, int]) -> None:
    assert lively(network())(torch.tensor([2, 2]), *volumes(tokens)).shape == (2, *tokens, 6, K)
