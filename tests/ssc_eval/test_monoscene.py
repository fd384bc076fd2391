"""The whole network: the published size, any grid and taxonomy, seeds, gradients, checkpointing, pretrained weights."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.scene.errors import InputError
from pipeline.scene.grid import COMPARISON_GRID, SEMANTIC_KITTI_GRID, VoxelGrid
from ssc_eval.encoder import Encoder2D, UNet2D, encoder_config, load_pretrained
from ssc_eval.monoscene import LOGITS, RELATION_LOGITS, MonoScene, MonoSceneConfig, build, published, tiny

GRID = VoxelGrid((16, 32, 16), 0.4, (0.0, -6.4, -2.0))
NARROW = MonoSceneConfig(encoder="tiny", decoder=32, scales=(2, 8), feature=8, dilations=(1, 2))


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def inputs(batch: int = 2, grid: VoxelGrid = GRID, scale: int = 2) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(0)
    shape = [n // scale for n in grid.shape]
    return torch.rand(batch, 3, 40, 70, generator=noise), torch.randint(0, 40, (batch, *shape, 2), generator=noise)


def test_the_published_setting_has_149_6_million_parameters() -> None:
    with torch.device("meta"):
        model = MonoScene(published(), SEMANTIC_KITTI_GRID, 20)
    assert model.volume.prior is not None
    assert millions(model) == pytest.approx(149.6, rel=0.005)
    assert millions(model.image.encoder) == pytest.approx(63.8, rel=0.005)
    assert millions(model.image) - millions(model.image.encoder) == pytest.approx(68.9, rel=0.005)
    assert millions(model.volume) == pytest.approx(16.9, rel=0.005)
    assert millions(model.volume.prior) == pytest.approx(15.4, rel=0.005)
    assert model.image.encoder.channels == {1: 3, 2: 32, 4: 48, 8: 80, 16: 224, 32: 2560}


def test_the_tiny_twin_runs_on_the_comparison_grid_and_trains() -> None:
    model = build(tiny(), COMPARISON_GRID, 20, seed=0)
    image = torch.rand(1, 3, 128, 384, generator=torch.Generator().manual_seed(0))
    out = model(image, torch.zeros(1, 32, 32, 8, 2, dtype=torch.int32))
    assert out[LOGITS].shape == (1, 20, 64, 64, 16)
    assert out[RELATION_LOGITS].shape == (1, 4, 16, 128)
    (out[LOGITS].square().mean() + out[RELATION_LOGITS].square().mean()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unused == []  # or training on many devices would wait for them


def test_a_few_steps_learn_one_frame() -> None:
    model = build(NARROW, GRID, 3, seed=1)
    image, pixels = inputs(1)
    target = (torch.arange(32) // 11)[None, None, :, None].expand(1, 16, 32, 16)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(image, pixels)[LOGITS], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_images_of_odd_size_give_features_that_cover_them_edge_to_edge() -> None:
    features = UNet2D("tiny", 32, 4, (1, 4, 16))(torch.rand(1, 3, 37, 122))
    assert {s: tuple(f.shape) for s, f in features.items()} == {
        16: (1, 4, 4, 8), 4: (1, 4, 16, 32), 1: (1, 4, 64, 128)
    }  # fmt: skip


def test_features_answer_where_the_image_changes() -> None:
    """A bright square at (u, v) = (96..111, 32..47) moves full-resolution features most around it, not mirrored."""
    torch.manual_seed(0)
    net = UNet2D("tiny", 64, 4, (1,)).eval()
    image = torch.full((1, 3, 96, 160), 0.5)
    spotted = image.clone()
    spotted[:, :, 32:48, 96:112] = 1.0
    with torch.no_grad():
        change = (net(spotted)[1] - net(image)[1]).abs().sum(1)[0]
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(160.0), indexing="ij")
    assert float((change * rows).sum() / change.sum()) == pytest.approx(39.5, abs=6)
    assert float((change * columns).sum() / change.sum()) == pytest.approx(103.5, abs=6)


def test_random_encoders_pass_signals_on() -> None:
    torch.manual_seed(0)
    taps = Encoder2D("small")(torch.rand(2, 3, 64, 64))
    assert all(0.05 < float(tap.detach().std()) < 50 for tap in taps.values())


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build(NARROW, GRID, 3, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["volume.head.classify.weight"], other["volume.head.classify.weight"])


def test_samples_of_a_batch_do_not_mix_when_evaluated() -> None:
    model = build(NARROW, GRID, 3, seed=0).eval()
    image, pixels = inputs(2)
    with torch.no_grad():
        both = model(image, pixels)
        for b in range(2):
            alone = model(image[b : b + 1], pixels[b : b + 1])
            assert all(torch.allclose(both[key][b : b + 1], alone[key], atol=1e-4) for key in both)


def test_recomputing_changes_neither_gradients_nor_running_statistics() -> None:
    kept = build(NARROW, GRID, 3, seed=0)
    thrifty = MonoScene(NARROW.model_copy(update={"recompute": True}), GRID, 3)
    thrifty.load_state_dict(copy.deepcopy(kept.state_dict()))
    saved = []
    for model in (kept, thrifty):
        count = [0]

        def pack(tensor: Tensor, count: list[int] = count) -> Tensor:
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(*inputs())[LOGITS].square().mean().backward()
        saved.append(count[0])
    assert saved[1] < 0.5 * saved[0]
    for (name, ours), theirs in zip(thrifty.named_parameters(), kept.parameters(), strict=True):
        if theirs.grad is not None:
            assert ours.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4), name
    assert all(torch.equal(a, b) for a, b in zip(thrifty.buffers(), kept.buffers(), strict=True))


def test_without_the_prior_grids_may_be_smaller_and_no_relations_come_out() -> None:
    config = NARROW.model_copy(update={"relation_prior": False, "project_scale": 1, "depth": 1})
    grid = VoxelGrid((6, 10, 2), 1.0, (0.0, 0.0, 0.0))
    assert set(build(config, grid, 7, 0)(*inputs(1, grid, 1))) == {LOGITS}
    with pytest.raises(InputError, match="divisible by 8"):
        MonoScene(NARROW.model_copy(update={"depth": 1}), grid, 7)


def test_wrong_inputs_are_named() -> None:
    model = build(NARROW, GRID, 3, seed=0)
    image, pixels = inputs()
    for bad, subject in (
        ((image, pixels[:, :4]), "projections"),
        ((image[:, :1], pixels), "image"),
        ((image.byte(), pixels), "image"),
        ((image[..., :20], pixels), "projection"),
    ):
        with pytest.raises(InputError, match=subject):
            model(*bad)
    with pytest.raises(InputError, match="two classes"):
        MonoScene(NARROW, GRID, 1)


def test_bfloat16_gives_finite_logits() -> None:
    model = build(NARROW, GRID, 3, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(*inputs())
    assert all(value.isfinite().all() for value in out.values())


def test_pretrained_weights_come_from_a_local_folder(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = Encoder2D("tiny")
    source.net.save_pretrained(tmp_path / "tiny")
    config = NARROW.model_copy(update={"weights": str(tmp_path / "tiny")})
    loaded = build(config, GRID, 3, seed=0).image.encoder
    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(InputError, match="tensors absent or of another shape"):
        load_pretrained(Encoder2D("small"), str(tmp_path / "tiny"))
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError):
        load_pretrained(Encoder2D("tiny"), str(tmp_path / "tiny"))


def test_a_classifier_s_folder_serves_too(tmp_path: Path) -> None:
    """google/efficientnet-b7 is one: its tensors have a prefix, and a classifier comes with them."""
    from transformers import EfficientNetForImageClassification

    torch.manual_seed(4)
    source = EfficientNetForImageClassification(encoder_config("tiny"))
    source.save_pretrained(tmp_path / "tiny")
    encoder = Encoder2D("tiny")
    load_pretrained(encoder, str(tmp_path / "tiny"))
    expected = source.efficientnet.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.net.state_dict().items())
    assert all(norm.momentum == 0.1 for norm in encoder.modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize("weights", ["nobody/no-such-weights", "/no/such/folder"])
def test_absent_weights_are_one_line_and_ask_no_network(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        warnings.warn("the network was asked", RuntimeWarning, stacklevel=2)  # an error under pytest
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(InputError) as caught:
        load_pretrained(Encoder2D("tiny"), weights)
    assert weights in str(caught.value)
    assert "\n" not in str(caught.value)
