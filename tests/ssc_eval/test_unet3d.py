"""The 3D parts: receptive fields, shapes, and the relation prior's product against loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssc_eval.unet3d import ASPP, RELATIONS, DDRBlock, RelationPrior, UNet3D


def reach(block: nn.Module, channels: int, size: int, at: int) -> set[tuple[int, ...]]:
    """Offsets of the inputs on which the output at (at, at, at) depends, in one of 16 draws or more."""
    x = torch.randn(16, channels, size, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(block.eval()(x)[..., at, at, at].sum(), x)
    return {tuple(place) for place in gradient.abs().sum((0, 1)).nonzero().sub(at).tolist()}


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_a_ddr_block_reaches_the_27_places_of_its_dilated_cube(dilation: int) -> None:
    torch.manual_seed(0)
    steps = (-dilation, 0, dilation)
    assert reach(DDRBlock(32, 32, dilation=dilation), 32, 9, 4) == {
        (x, y, z) for x in steps for y in steps for z in steps
    }


def test_a_strided_ddr_block_halves_the_volume() -> None:
    assert DDRBlock(8, 16, stride=2)(torch.zeros(2, 8, 4, 6, 2)).shape == (2, 16, 2, 3, 1)


def test_a_ddr_block_is_built_of_one_dimensional_convolutions() -> None:
    sizes = [p.kernel_size for p in DDRBlock(8, 8).modules() if isinstance(p, nn.Conv3d)]
    assert sorted(sizes) == [(1, 1, 1), (1, 1, 1), (1, 1, 3), (1, 3, 1), (3, 1, 1)]


def test_aspp_is_the_rectified_sum_of_its_branches() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4, (1, 2)).eval()
    x = torch.randn(1, 4, 6, 6, 6)
    assert torch.equal(aspp(x), (x + aspp.branches[0](x) + aspp.branches[1](x)).clamp(min=0))


def test_the_relation_prior_equals_loops_over_voxels_and_mega_voxels() -> None:
    torch.manual_seed(0)
    prior = RelationPrior(4, (4, 2, 4), (1,)).eval()
    x = torch.randn(2, 4, 4, 2, 4)
    joined: list[Tensor] = []
    prior.resize.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    out, logits = prior(x)
    assert out.shape == x.shape
    assert logits.shape == (2, RELATIONS, 4, 32)

    aggregated = prior.aspp(x)
    mega = prior.mega(aggregated)  # (2, 8, 2, 1, 2)
    weight, bias = prior.relations.weight.view(RELATIONS, 4, 4), prior.relations.bias.view(RELATIONS, 4)
    expected = torch.zeros(2, RELATIONS, 8, 4, 2, 4)
    for place in range(32):
        i, j, k = place // 8, place // 4 % 2, place % 4
        for relation in range(RELATIONS):
            for block in range(4):
                logit = aggregated[:, :, i, j, k] @ weight[relation, block] + bias[relation, block]  # (2,)
                assert torch.allclose(logits[:, relation, block, place], logit, atol=1e-5)
                found = mega[:, :, block // 2, 0, block % 2]
                expected[:, relation, :, i, j, k] += logit.sigmoid()[:, None] * found
    assert torch.equal(joined[0][:, :4], x)
    assert torch.allclose(joined[0][:, 4:], expected.flatten(1, 2), atol=1e-5)


@pytest.mark.parametrize(("depth", "scale", "prior"), [(2, 2, True), (1, 1, False), (2, 4, False), (3, 1, False)])
def test_logits_have_the_labels_resolution(depth: int, scale: int, prior: bool) -> None:
    net = UNet3D(8, (8, 16, 8), 5, depth, scale, (1,), prior)
    logits, relations = net(torch.randn(2, 8, 8, 16, 8))
    assert logits.shape == (2, 5, 8 * scale, 16 * scale, 8 * scale)
    assert (relations is not None) == prior
    if relations is not None:
        assert relations.shape == (2, 4, 2, 16)
