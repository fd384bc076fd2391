"""A new ControlNet that sees its condition, and that alone."""

import torch

from pipeline.images.condition import show_condition
from pipeline.images.pairs import Pairs
from tests.images.toy_pairs import Boxes, tiny


def first_features(controlnet, noisy, control):
    found = []
    handle = controlnet.down_blocks[0].register_forward_pre_hook(
        lambda _module, args, kwargs: found.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    words = torch.zeros(len(noisy), 3, controlnet.config.cross_attention_dim)
    with torch.no_grad():
        sums = controlnet(noisy, 500, words, control, return_dict=False)
    handle.remove()
    return found[0], sums


def test_its_features_are_the_conditions_of_unit_spread_whatever_the_noise() -> None:
    pipeline = tiny()
    pairs = Pairs(Boxes(8), pipeline, mirror=False)
    control = torch.stack([pairs[index]["control"] for index in range(8)])
    noise = torch.randn(2, 8, pipeline.unet.config.in_channels, 8, 16)
    before = [first_features(pipeline.controlnet, noisy, control)[0] for noisy in noise]
    assert (before[0] - before[1]).abs().max() > 0.1
    show_condition(pipeline.controlnet, pairs, seed=3)
    (one, sums), (other, _) = (first_features(pipeline.controlnet, noisy, control) for noisy in noise)
    assert torch.equal(one, other)
    torch.testing.assert_close(one.mean(dim=(0, 2, 3)), torch.zeros(one.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.std(dim=(0, 2, 3)), torch.ones(one.shape[1]), atol=1e-3, rtol=0)
    assert all(part.abs().max() == 0 for part in (*sums[0], sums[1]))  # it adds nothing yet


def test_the_seed_alone_decides() -> None:
    weights = []
    for seed in (1, 1, 2):
        pipeline = tiny()
        state = torch.get_rng_state()
        show_condition(pipeline.controlnet, Pairs(Boxes(), pipeline, mirror=False), seed)
        assert torch.equal(state, torch.get_rng_state())
        weights.append(pipeline.controlnet.controlnet_cond_embedding.conv_out.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
