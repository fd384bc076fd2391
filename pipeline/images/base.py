"""The small latent diffusion pipeline of our own: new networks in diffusers' format, and a pipeline's folder on disk.

    image (3, H, W) in -1..1  <-VAE->  latent (C, H/f, W/f)      f = 2 ** (levels - 1), latents scaled to unit variance
    UNet: predicts noise, or velocity, from a noisy latent, the time step, the prompt's tokens and the ControlNet's sums

High-resolution image synthesis with latent diffusion models (Rombach et al., 2022); Adding conditional control to
text-to-image diffusion models (Zhang et al., 2023). Deviations: the text encoder is CLIP's architecture over whole
words of a small vocabulary, learned with the rest; the ControlNet starts with its UNet and is learned beside it.
What `save_pipeline` writes, diffusers' own `from_pretrained` opens. Weights are safetensors files, never pickles.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.images.config import check_conditioning_channels
from pipeline.images.palettes import Palettes
from pipeline.learning.checkpoint import CARD_NAME
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, sha256_file, write_json
from pipeline.scene.seeds import integer_seed

Size = Annotated[int, Field(ge=1)]
FORMAT = "occfactory-images-1"
INDEX_NAME = "model_index.json"
CONTROLNET_NAME = "controlnet"  # its folder, in a pipeline's and alone
PAPERS_CHANNELS = (16, 32, 96, 256)  # of ControlNet's embedding
PAD, START, UNKNOWN, END = "[pad]", "[start]", "[unknown]", "[end]"  # ids 0..3; CLIP takes an end of 2 for a legacy


class BaseConfig(BaseModel):
    """Sizes of the small pipeline's networks. The UNet's channels are those of each level, finest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # residual blocks of the decoder's levels, coarsest first
    vae_blocks: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)]
    vae_width: Size = 32  # the decoder's channels; the image is doubled between levels
    latent_channels: Size = 4
    unet_channels: tuple[Size, ...]  # the latent is halved between levels; the ControlNet has the same
    unet_attention: tuple[bool, ...]  # levels that look at the prompt; costly at the finest
    unet_layers: Size = 1  # residual blocks a level
    control_channels: tuple[Size, Size, Size, Size] = PAPERS_CHANNELS  # of the control image, whole to an eighth
    heads: Size = 4  # of attention, each level
    norm_groups: Size = 8
    text_width: Size = 64  # the prompt's channels, of the UNet's cross-attention too
    text_layers: Size = 2
    text_tokens: Annotated[int, Field(ge=3)] = 64  # longest prompt [words], start and end included
    train_timesteps: Annotated[int, Field(ge=2)] = 1000
    prediction: Literal["epsilon", "v_prediction"] = "v_prediction"
    seed: Annotated[int, Field(ge=0)] = 0  # of the initial weights

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.unet_attention) != len(self.unet_channels):
            raise ValueError("unet_attention needs one entry a level of unet_channels")
        if any(width % self.norm_groups for width in self.unet_channels) or self.text_width % self.heads:
            raise ValueError("unet_channels must be multiples of norm_groups, text_width one of heads")
        if self.latent_channels > 3 * 4 ** (len(self.vae_blocks) - 1):
            raise ValueError("latent_channels must be at most a patch's values, 3 * 4^halvings")
        if any(width % self.heads for width in self.unet_channels):
            raise ValueError("unet_channels must be multiples of heads")
        return self


TINY = BaseConfig(
    vae_blocks=(1, 0),
    vae_width=16,
    unet_channels=(16, 32),
    unet_attention=(False, True),
    heads=2,
    norm_groups=4,
    text_width=16,
    text_layers=1,
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, diffusers and transformers print neither bars nor remarks about packages that aren't needed."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(library, library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, bars in before:
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def new_pipeline(config: BaseConfig, vocabulary: Sequence[str], conditioning_channels: int) -> Any:
    """A diffusers StableDiffusionControlNetPipeline with new weights, float32, on the CPU.

    vocabulary: the words prompts are made of (case and punctuation don't matter). Raises InputError.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(config.seed, "image networks", 0))
        vae, unet, words = _vae(config), _unet(config), _tokenizer(vocabulary, config.text_tokens)
        networks = {
            "vae": vae,
            "text_encoder": _text_encoder(config, len(words)),
            "tokenizer": words,
            "unet": unet,
            "controlnet": new_controlnet(unet, vae, conditioning_channels, config.control_channels),
        }
        return assemble(networks | {"scheduler": _scheduler(config)})


def assemble(components: Mapping[str, Any]) -> Any:
    """The diffusers pipeline of these components, without a safety checker and without a progress bar."""
    with quiet():
        from diffusers import StableDiffusionControlNetPipeline

        parts = {
            name: components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "controlnet", "scheduler")
        }
        pipeline = StableDiffusionControlNetPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def new_controlnet(
    unet: Any, vae: Any, conditioning_channels: int, widths: tuple[int, int, int, int] = PAPERS_CHANNELS
) -> Any:
    """A ControlNet that starts with the UNet's weights and adds nothing yet (its last convolutions are zero).

    Its embedding halves the control image as often as the VAE halves the image, with as many of `widths` channels.
    Raises InputError.
    """
    check_conditioning_channels(conditioning_channels)
    from diffusers import ControlNetModel

    embedding = tuple(widths[min(level, 3)] for level in range(len(vae.config.block_out_channels)))
    with quiet():
        return ControlNetModel.from_unet(
            unet, conditioning_channels=conditioning_channels, conditioning_embedding_out_channels=embedding
        )


def _vae(config: BaseConfig) -> Any:
    """No blocks in the encoder, whose layers are then linear: see autoencoder.fit_encoder."""
    from diffusers import AutoencoderTiny

    levels = len(config.vae_blocks)
    whole_patch = 3 * 4 ** (levels - 2)  # values of a patch before the last halving
    return AutoencoderTiny(
        encoder_block_out_channels=(max(whole_patch, config.latent_channels),) * levels,
        decoder_block_out_channels=(config.vae_width,) * levels,
        num_encoder_blocks=(0,) * levels,
        num_decoder_blocks=config.vae_blocks,
        latent_channels=config.latent_channels,
    )


def _unet(config: BaseConfig) -> Any:
    from diffusers import UNet2DConditionModel

    down = ["CrossAttnDownBlock2D" if looks else "DownBlock2D" for looks in config.unet_attention]
    up = ["CrossAttnUpBlock2D" if looks else "UpBlock2D" for looks in reversed(config.unet_attention)]
    return UNet2DConditionModel(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=config.unet_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=config.unet_layers,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # in diffusers, the number of heads
        norm_num_groups=config.norm_groups,
    )


def _text_encoder(config: BaseConfig, words: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=config.text_width,
            intermediate_size=2 * config.text_width,
            projection_dim=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.text_tokens,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=3,
        )
    )


def _tokenizer(vocabulary: Sequence[str], tokens: int) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys(word for entry in vocabulary for word in re.findall(r"[\w\-]+", entry.lower()))
    if not words:
        raise InputError("vocabulary", "the words prompts are made of", "none")
    ids = {word: index for index, word in enumerate((PAD, START, UNKNOWN, END, *words))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\-]+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, ids[token]) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        unk_token=UNKNOWN,
        eos_token=END,
        model_max_length=tokens,
    )


def _scheduler(config: BaseConfig) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=config.train_timesteps,
        beta_start=0.00085,  # Stable Diffusion's
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=config.prediction,
        rescale_betas_zero_snr=config.prediction == "v_prediction",  # or the last step betrays an image's brightness,
        timestep_spacing="trailing",  # and sampling, which begins there with noise alone, can't set it
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def save_pipeline(pipeline: Any, folder: Path, card: Mapping[str, Any], palettes: Palettes | None = None) -> None:
    """Write a pipeline's folder with card.json (what it learned from, base model and licence), whole or not at all.

    card: anything JSON can hold; `format` and `files` (SHA-256 of each) are added. palettes: of the photographs learned
    from, for control images that have them. What stands at `folder` is replaced only if it was written here. Raises
    InputError.
    """

    def write(temporary: Path) -> None:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        _name_the_tokenizer(temporary)
        if palettes is not None:
            palettes.write(temporary / CONTROLNET_NAME)

    _save(write, Path(folder), card)


def save_controlnet(controlnet: Any, folder: Path, card: Mapping[str, Any], palettes: Palettes | None = None) -> Path:
    """Write folder/controlnet, which diffusers' ControlNetModel opens, and folder/card.json as `save_pipeline` does."""

    def write(temporary: Path) -> None:
        controlnet.save_pretrained(temporary / CONTROLNET_NAME)
        if palettes is not None:
            palettes.write(temporary / CONTROLNET_NAME)

    _save(write, Path(folder), card)
    return Path(folder) / CONTROLNET_NAME


def _save(write: Callable[[Path], None], folder: Path, card: Mapping[str, Any]) -> None:
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and read_card(folder) is None)):
        raise InputError(folder, "a new folder, or a pipeline written here", "something else", "choose another")
    with quiet(), atomic_folder(folder) as temporary:
        write(temporary)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        digests = {path.relative_to(temporary).as_posix(): sha256_file(path) for path in files}
        write_json(temporary / CARD_NAME, {**card, "format": FORMAT, "files": digests})


def _name_the_tokenizer(folder: Path) -> None:
    """transformers 5 writes its class under a name that older ones lack; both know this one."""
    for path in (folder / INDEX_NAME, folder / "tokenizer" / "tokenizer_config.json"):
        path.write_text(path.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))


def read_card(folder: Path) -> dict[str, Any] | None:
    """The card that `save_pipeline` wrote; None where there is none of its format."""
    try:
        card = json.loads((Path(folder) / CARD_NAME).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    good = isinstance(card, dict) and card.get("format") == FORMAT and isinstance(card.get("files"), dict)
    return card if good else None
