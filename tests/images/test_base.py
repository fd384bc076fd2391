"""A pipeline of ours in plain diffusers, its words, and its folder."""

import json
import warnings

import numpy as np
import pytest
import torch

from pipeline.images.base import TINY, BaseConfig, new_pipeline, read_card, save_pipeline
from pipeline.scene.errors import InputError
from tests.images.toy_pairs import CHANNELS, WORDS, Boxes, tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipeline = tiny()
    save_pipeline(pipeline, folder, {"licence": "Apache-2.0"})
    return pipeline, folder


def test_plain_diffusers_opens_and_runs_it(saved) -> None:
    from diffusers import ControlNetModel, DiffusionPipeline, StableDiffusionControlNetPipeline

    pipeline, folder = saved
    theirs = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert type(theirs) is StableDiffusionControlNetPipeline
    alone = ControlNetModel.from_pretrained(folder / "controlnet", local_files_only=True, use_safetensors=True)
    for ours, found in ((pipeline.unet, theirs.unet), (pipeline.vae, theirs.vae), (pipeline.controlnet, alone)):
        assert all(torch.equal(value, found.state_dict()[name]) for name, value in ours.state_dict().items())
    theirs.set_progress_bar_config(disable=True)
    pair = Boxes()[0]
    control = torch.from_numpy(pair["control"])[None]
    options = {"num_inference_steps": 2, "output_type": "np", "height": 16, "width": 32}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        images = [
            p(pair["prompt"], control, generator=torch.Generator().manual_seed(1), **options).images
            for p in (pipeline, theirs)
        ]
    assert images[0].shape == (1, 16, 32, 3)
    assert np.array_equal(*images)


def test_only_safetensors_and_a_card_with_every_file(saved) -> None:
    _, folder = saved
    card = read_card(folder)
    weights = [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    assert not weights
    assert card["licence"] == "Apache-2.0"
    assert {"unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"} <= set(card["files"])
    named = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert named == "PreTrainedTokenizerFast"


def test_words_whatever_their_case_and_punctuation() -> None:
    words = tiny().tokenizer
    ids = words("A traffic scene, with: car; other-vehicle").input_ids
    assert words.convert_ids_to_tokens(ids)[1:-1] == ["a", "traffic", "scene", "with", "car", "other-vehicle"]
    assert words.unk_token_id in words("a cow").input_ids


def test_weights_are_the_seeds_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b, c = tiny(), tiny(), tiny(seed=1)
    assert torch.equal(torch.rand(1), expected)
    weights = [p.text_encoder.state_dict() for p in (a, b, c)]
    name = next(name for name in weights[0] if name.endswith("q_proj.weight"))
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_a_folder_of_others_is_not_replaced(saved, tmp_path) -> None:
    pipeline, folder = saved
    (tmp_path / "mine.txt").write_text("dear")
    with pytest.raises(InputError, match="a new folder"):
        save_pipeline(pipeline, tmp_path, {})
    assert (tmp_path / "mine.txt").exists()
    save_pipeline(pipeline, folder, {"licence": "Apache-2.0"})  # its own is


@pytest.mark.parametrize("channels", [0, 4])
def test_control_channels_that_diffusers_takes_for_latents(channels) -> None:
    with pytest.raises(InputError, match="control image"):
        new_pipeline(TINY, WORDS, channels)


def test_no_words_and_sizes_that_cannot_be() -> None:
    with pytest.raises(InputError, match="vocabulary"):
        new_pipeline(TINY, (), CHANNELS)
    with pytest.raises(ValueError, match="unet_attention"):
        BaseConfig(vae_blocks=(1, 0), unet_channels=(8, 8), unet_attention=(True,))
    with pytest.raises(ValueError, match="norm_groups"):
        BaseConfig(vae_blocks=(1, 0), unet_channels=(9,), unet_attention=(True,))
    with pytest.raises(ValueError, match="latent_channels"):
        BaseConfig(vae_blocks=(1, 0), latent_channels=13, unet_channels=(8,), unet_attention=(True,))
