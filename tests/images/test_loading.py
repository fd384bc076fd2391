"""Folders of ours and of others; every way to be no pipeline fails in one line, before weights are read if it can."""

import json
import os
import shutil

import pytest
import torch

from pipeline.images.base import save_pipeline
from pipeline.images.loading import check_size, find_pipeline, load_pipeline
from pipeline.scene.errors import InputError
from tests.images.stock import stock_pipeline
from tests.images.toy_pairs import CHANNELS, tiny

OURS = {"conditioning_channels": CHANNELS, "size": (32, 16)}
STOCK = {"conditioning_channels": 3, "size": (48, 32)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """ours, stock (a pipeline without a ControlNet, as Stable Diffusion's) and control (a ControlNet for it)."""
    from diffusers import StableDiffusionPipeline

    root = tmp_path_factory.mktemp("folders")
    save_pipeline(tiny(), root / "ours", {})
    stock = stock_pipeline(root / "letters")
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    plain = {name: getattr(stock, name) for name in names}
    plain |= {"safety_checker": None, "feature_extractor": None}
    StableDiffusionPipeline(**plain, requires_safety_checker=False).save_pretrained(root / "stock")
    stock.controlnet.save_pretrained(root / "control")
    return root


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of them all that a test may break."""
    shutil.copytree(folders, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_ours_comes_back_as_it_was(folders) -> None:
    loaded, made = load_pipeline(folders / "ours", **OURS), tiny()
    for name in ("vae", "unet", "controlnet", "text_encoder"):
        expected = getattr(made, name).state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in getattr(loaded, name).state_dict().items())
    assert loaded.tokenizer("car, building").input_ids == made.tokenizer("car, building").input_ids
    assert loaded.scheduler.config.prediction_type == "v_prediction"


def test_a_stock_folder_gets_a_new_controlnet_or_anyones(folders) -> None:
    new = load_pipeline(folders / "stock", conditioning_channels=5, size=(48, 32))
    assert new.controlnet.config.conditioning_channels == 5
    assert torch.equal(new.controlnet.conv_in.weight, new.unet.conv_in.weight)
    assert not new.controlnet.controlnet_mid_block.weight.any()
    theirs = load_pipeline(folders / "stock", folders / "control", **STOCK)
    assert theirs.controlnet.config.conditioning_channels == 3
    ours = load_pipeline(folders / "ours", folders / "ours" / "controlnet", **OURS)
    assert ours.controlnet.config.conditioning_channels == CHANNELS


def test_half_precision_weights_are_widened(folders, tmp_path) -> None:
    half = tiny()
    half.to(dtype=torch.float16)
    save_pipeline(half, tmp_path / "half", {})
    loaded = load_pipeline(tmp_path / "half", **OURS)
    assert {p.dtype for p in loaded.unet.parameters()} == {torch.float32}
    assert torch.equal(loaded.unet.conv_in.weight, half.unet.conv_in.weight.float())


def refused(match: str, *arguments, **options) -> None:
    with pytest.raises(InputError, match=match) as fault:
        load_pipeline(*arguments, **options)
    assert "\n" not in str(fault.value)


def test_what_is_no_pipeline(folders, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    refused("a diffusers folder with model_index.json", tmp_path / "empty", **OURS)
    refused("a diffusers folder with model_index.json", folders / "control", **STOCK)
    refused("a diffusers folder with model_index.json", tmp_path / "not" / "there", **OURS)
    refused("allow the download", "nobody/no-such-pipeline", **OURS)
    refused("a diffusers folder with config.json", folders / "stock", folders / "ours", **STOCK)
    (tmp_path / "empty" / "model_index.json").write_text("[1]")
    refused("JSON object", tmp_path / "empty", **OURS)
    (tmp_path / "empty" / "model_index.json").write_bytes(os.urandom(64))
    refused("JSON", tmp_path / "empty", **OURS)


def test_channels_widths_and_sizes_that_do_not_match(folders, copy) -> None:
    refused("expected 5 control channels, found 3", folders / "stock", folders / "control", **STOCK | OURS)
    refused("latents|3, 5 or more", folders / "stock", conditioning_channels=4, size=(48, 32))
    refused("cross_attention_dim 8, the UNet's", folders / "stock", folders / "ours" / "controlnet", **STOCK)
    refused(
        "image width: expected a multiple of 16 px, found 40; the nearest",
        folders / "stock",
        **STOCK | {"size": (40, 32)},
    )
    refused("image height", folders / "ours", **OURS | {"size": (32, 0)})
    edit(copy / "control" / "config.json", conditioning_embedding_out_channels=[4, 8])
    refused("expected 3 halvings, the VAE's, found 1", copy / "stock", copy / "control", **STOCK)
    edit(copy / "stock" / "text_encoder" / "config.json", hidden_size=12)
    refused("the text encoder's width", copy / "stock", **STOCK)
    edit(copy / "stock" / "unet" / "config.json", in_channels=9)
    refused("in_channels 4, the VAE's latent channels", copy / "stock", **STOCK)


def test_pipelines_of_other_kinds(copy) -> None:
    index = copy / "stock" / "model_index.json"
    edit(index, text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    refused("two text encoders", copy / "stock", **STOCK)
    edit(index, text_encoder_2=[None, None], unet=["diffusers", "UNet2DModel"])
    refused("unet a UNet2DConditionModel, found UNet2DModel", copy / "stock", **STOCK)
    edit(index, unet=["my_code", "UNet"])
    refused("of diffusers or transformers, found one of 'my_code'", copy / "stock", **STOCK)
    edit(index, unet=[None, None])
    refused("none with a part 'unet'", copy / "stock", **STOCK)


def test_pickles_and_damage(copy) -> None:
    path = copy / "ours" / "unet" / "diffusion_pytorch_model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    refused("SHA-256", copy / "ours", **OURS)
    path.unlink()
    refused("weights as safetensors", copy / "ours", **OURS)
    weights = copy / "stock" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])  # a folder of others has no card: it fails where it is read
    refused("a part that loads", copy / "stock", **STOCK)
    shutil.copy(copy / "control" / "diffusion_pytorch_model.safetensors", weights)
    refused("a part that loads|weights for all", copy / "stock", **STOCK)


def test_a_size_is_checked_without_weights(copy) -> None:
    for path in copy.rglob("*.safetensors"):
        path.write_bytes(b"")
    source = find_pipeline(copy / "stock")
    assert source.multiple == 16
    check_size(source, 64, 32)
    refused("a multiple of 16 px", copy / "stock", conditioning_channels=3, size=(40, 32))
