"""Images from control images and prompts: a diffusers pipeline, batched, each image a function of its own seed.

A request's noise comes from a generator of its own on the CPU, in float32, so neither its place in a batch nor the
device changes it. Networks sum in an order that depends on batch size and threads, though, to about 1e-6: so both are
fields of the recipe, and a short batch is filled up with copies of its first request. Then the same requests give the
same bytes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from pipeline.images.base import quiet
from pipeline.images.config import SynthesisConfig
from pipeline.images.latents import means
from pipeline.images.loading import check_multiple
from pipeline.scene.errors import InputError
from pipeline.scene.seeds import integer_seed

CLASSES = {
    "unipc": "UniPCMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "lcm": "LCMScheduler",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Request:
    """One image to draw. control: 0..1; prompt and negative: in the words that the pipeline knows."""

    control: Float32[np.ndarray, "c h w"]
    prompt: str
    negative: str
    seed: int


def scene_requests(
    control_of: Callable[[int], Float32[np.ndarray, "c h w"]],
    prompt_of: Callable[[int], tuple[str, str]],
    *,
    build_seed: int,
    sample: int,
    images: int = 1,
    attempt: int = 0,
) -> list[Request]:
    """K images of one scene. control_of(seed): the control image, whose palette may be drawn; prompt_of(seed): (text,
    negative), as the prompts' own seed draws weather and time of day.

    Image k has its own seeds of both, which stay from attempt to attempt, and its own noise, which doesn't.
    """
    found = []
    for k in range(images):
        place = sample * images + k
        text, negative = prompt_of(integer_seed(build_seed, "image prompt", place))
        control = control_of(integer_seed(build_seed, "image palette", place))
        found.append(Request(control, text, negative, integer_seed(build_seed, "image noise", place, attempt)))
    return found


class Synthesizer:
    """A pipeline, set up once. It is changed (scheduler, device, precision), so it is the synthesizer's own from then.

    pipeline: a diffusers StableDiffusionControlNetPipeline, ours, loaded, or put together by its user.
    Raises InputError.
    """

    def __init__(self, pipeline: Any, config: SynthesisConfig, device: torch.device | None = None):
        self.pipeline, self.config = pipeline, config
        self.channels, self.multiple = _control_of(pipeline)
        pipeline.scheduler = _scheduler(pipeline, config)
        pipeline.set_progress_bar_config(disable=True)
        self.dtype = DTYPES[config.precision]
        if device is None:
            gpu = config.device == "auto" and torch.cuda.is_available()
            device = torch.device("cuda" if gpu else "cpu")
        with quiet():
            pipeline.to(device, self.dtype)
        for network in (pipeline.unet, pipeline.controlnet, pipeline.vae):
            network.to(memory_format=torch.channels_last if config.channels_last else torch.contiguous_format)
        if config.compile:
            pipeline.unet.compile()
            pipeline.controlnet.compile()

    def check(self, request: Request) -> None:
        """What would fail or quietly be something else later. Raises InputError."""
        shape = request.control.shape
        if request.control.ndim != 3 or shape[0] != self.channels:
            raise InputError("control image", f"{self.channels} channels, as the ControlNet takes", str(shape))
        check_multiple("height", shape[1], self.multiple)
        check_multiple("width", shape[2], self.multiple)
        if not (np.isfinite(request.control).all() and 0 <= request.control.min() <= request.control.max() <= 1):
            raise InputError("control image", "values in 0..1", "others")
        for text in (request.prompt, request.negative):
            check_words(self.pipeline.tokenizer, text)

    def images(self, requests: Sequence[Request]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """One image a request, in order; all requests are checked first. Raises InputError."""
        for request in requests:
            self.check(request)
        if len({request.control.shape for request in requests}) > 1:
            raise InputError("control images", "one size", "several", "draw them in calls of their own")
        return self._batches(requests)

    def _batches(self, requests: Sequence[Request]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        size = self.config.batch_size
        for first in range(0, len(requests), size):
            batch = list(requests[first : first + size])
            filled = batch + [batch[0]] * (size - len(batch))
            with torch_threads(self.config.torch_threads), warnings.catch_warnings():
                # numpy 2's on how diffusers' schedulers turn a tensor into an array: right, and not the user's
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                images = self._draw(filled)
            yield from images[: len(batch)]

    def _draw(self, batch: list[Request]) -> UInt8[np.ndarray, "b h w 3"]:
        generators = [torch.Generator().manual_seed(request.seed) for request in batch]
        control = torch.from_numpy(np.stack([request.control for request in batch]))  # (b, c, h, w)
        images = self.pipeline(
            prompt=[request.prompt for request in batch],
            negative_prompt=[request.negative for request in batch],
            image=control,
            height=control.shape[2],
            width=control.shape[3],
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance,
            controlnet_conditioning_scale=self.config.control_scale,
            generator=generators,  # LCM's noise between steps
            latents=self._noise(generators, control),
            output_type="np",
        ).images  # (b, h, w, 3) in 0..1
        if not np.isfinite(images).all():
            raise InputError("generated image", "finite values", f"others in {self.config.precision}", "try bfloat16")
        return np.round(images * 255).astype(np.uint8)

    def _noise(self, generators: list[torch.Generator], control: Tensor) -> Tensor:
        channels, factor = self.pipeline.unet.config.in_channels, self.pipeline.vae_scale_factor
        shape = (channels, control.shape[2] // factor, control.shape[3] // factor)
        drawn = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return (self.config.temperature * drawn).to(self.dtype)


@torch.no_grad()
def reconstruct(pipeline: Any, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image through the pipeline's VAE and back: the best that the pipeline could draw."""
    vae = pipeline.vae
    values = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(vae.device, vae.dtype) / 127.5 - 1
    found = vae.decode(means(vae, values)).sample[0].float().clamp(-1, 1)  # (3, h, w)
    return np.round((found.permute(1, 2, 0).cpu().numpy() + 1) * 127.5).astype(np.uint8)


def check_words(tokenizer: Any, text: str) -> None:
    """A prompt must fit in length, and in words where the vocabulary is one of whole words. Raises InputError."""
    ids = tokenizer(text, truncation=False, verbose=False).input_ids
    if len(ids) > tokenizer.model_max_length:
        what = f"a prompt of at most {tokenizer.model_max_length} tokens"
        raise InputError(f"prompt {text[:60]!r}", what, str(len(ids)), "list fewer classes")
    unknown = tokenizer.unk_token_id
    if unknown in ids and unknown not in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        pieces = text.replace(",", " ").replace(":", " ").split()
        word = next((w for w in pieces if unknown in tokenizer(w, add_special_tokens=False).input_ids), text)
        raise InputError(f"prompt {text[:60]!r}", "words that the pipeline was built with", repr(word))


def _control_of(pipeline: Any) -> tuple[int, int]:
    """(control channels, multiple of image sizes [px]) of a diffusers pipeline."""
    if any(getattr(pipeline, name, None) is None for name in ("vae", "unet", "controlnet", "tokenizer", "scheduler")):
        raise InputError("synthesis", "a StableDiffusionControlNetPipeline", type(pipeline).__name__)
    channels = getattr(pipeline.controlnet.config, "conditioning_channels", None)
    if channels is None:
        raise InputError("synthesis", "a pipeline with one ControlNet", type(pipeline.controlnet).__name__)
    return channels, size_multiple(pipeline)


def size_multiple(pipeline: Any) -> int:
    """Image sizes must be multiples of this [px]."""
    return int(pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1))


def _scheduler(pipeline: Any, config: SynthesisConfig) -> Any:
    import diffusers

    distilled = pipeline.unet.config.time_cond_proj_dim is not None
    if config.scheduler == "lcm" and not distilled and type(pipeline.scheduler).__name__ != CLASSES["lcm"]:
        raise InputError("scheduler lcm", "weights distilled for it", "others", "use unipc or dpm++")
    with quiet():
        return getattr(diffusers, CLASSES[config.scheduler]).from_config(pipeline.scheduler.config)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch sums with so many CPU threads; its results depend on them to about 1e-6."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
