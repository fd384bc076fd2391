"""`occfactory images sample`: images of a root's frames through a trained pipeline, with all that judging them needs.

OUT/images/SEQUENCE_FRAME_K.png   image K of a frame; its prompt and seed stand in samples.json
OUT/{renders,semantics,depth}     what it was to show: SEQUENCE_FRAME.png
OUT/{photographs,reconstructions} the frame's photograph, and what the pipeline's VAE makes of it: the ceiling
OUT/rows.png                      the first frames: condition, images, photograph
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import Field

from flows.image_pairs import ImagePairs, PairsConfig
from flows.image_weights import control_palettes, pipeline_digest, synthesis_of, teachers, training_recipe
from flows.recipes import Config, SplitSource, validated
from pipeline.datasets.image_files import read_depth, read_image, read_label_image, write_depth, write_label_image
from pipeline.images.conditioning import control_image
from pipeline.images.config import SynthesisConfig, conditioning_channels
from pipeline.images.loading import find_pipeline, load_pipeline
from pipeline.images.palettes import Palettes
from pipeline.images.prompts import Prompt, prompt
from pipeline.images.synthesis import Request, Synthesizer, reconstruct, scene_requests
from pipeline.images.validation import row, write_png
from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_folder, require_empty, write_json
from pipeline.scene.records import View

TABLE, ROWS_NAME, ROWS = "samples.json", "rows.png", 16
Image = UInt8[np.ndarray, "h w 3"]


class SamplesRecipe(Config):
    """Which images are drawn."""

    source: SplitSource
    weights: Path = Field(exclude=True)  # a pipeline's folder
    controlnet: Path | None = Field(None, exclude=True)  # another ControlNet's folder than the pipeline's own
    weights_digest: str  # SHA-256 of their contents
    frames: int | None = Field(16, ge=1)  # evenly over the split; None: all
    images: int = Field(1, ge=1)  # a frame
    seed: int = Field(0, ge=0)  # the seed tree's root
    pairs: PairsConfig  # size, control image and prompts
    synthesis: SynthesisConfig = SynthesisConfig()


@dataclass(frozen=True, eq=False)
class Judged:
    """A frame: what its images were to show, and the images by kind ("generated", "photograph", ...)."""

    name: str
    labels: UInt8[np.ndarray, "h w"]
    depth: np.ndarray  # (h, w) [m]
    images: Mapping[str, list[Image]]


def samples_recipe(weights: Path, root: Path, split: str, **fields: Any) -> SamplesRecipe:
    """The recipe; size, control image, prompts and drawing are as the weights learned them, where their card tells.

    fields: of SamplesRecipe; `pairs` may hold some of PairsConfig's alone. Raises InputError.
    """
    controlnet = fields.get("controlnet")
    learned = training_recipe(controlnet and Path(controlnet).parent, weights)
    pairs: dict[str, Any] = learned.get("pairs", {})
    pairs = pairs | {name: value for name, value in fields.pop("pairs", {}).items() if value is not None}
    if "width_px" not in pairs or "height_px" not in pairs:
        raise InputError(weights, "a card that tells the images' size", "none", "give --size WIDTHxHEIGHT")
    digest = pipeline_digest(weights, controlnet)
    source = {"root": root, "split": split}
    drawn = synthesis_of(learned).get("synthesis", {}) | fields.pop("synthesis", {})
    return validated(
        SamplesRecipe,
        {**fields, "synthesis": drawn, "weights": weights, "weights_digest": digest, "pairs": pairs, "source": source},
    )


def sample_images(
    recipe: SamplesRecipe, out: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Draw and write, the folder whole or not at all; the picture of rows. progress(done, total): of frames.

    Raises InputError, where it can before drawing.
    """
    require_empty(out)
    frames = ImagePairs(recipe.source, recipe.pairs)
    size = (recipe.pairs.width_px, recipe.pairs.height_px)
    channels = conditioning_channels(recipe.pairs.control)
    pipeline = load_pipeline(recipe.weights, recipe.controlnet, conditioning_channels=channels, size=size)
    source = find_pipeline(recipe.weights, recipe.controlnet)
    palettes = control_palettes(recipe.pairs.control, source, frames.taxonomy)
    artist = _Artist(recipe, frames, Synthesizer(pipeline, recipe.synthesis), palettes)
    with atomic_folder(out) as folder:
        _write(artist, folder, progress)
    return Path(out) / ROWS_NAME


@dataclass(frozen=True, eq=False)
class _Artist:
    """What draws: palettes, where the control image has one."""

    recipe: SamplesRecipe
    frames: ImagePairs
    synthesizer: Synthesizer
    palettes: Palettes | None

    def control(self, view: View, seed: int) -> Float32[np.ndarray, "c h w"]:
        """The control image, in the colours that the seed draws."""
        palette = None if self.palettes is None else self.palettes.drawn(seed)
        return control_image(view, self.recipe.pairs.control, palette)

    def words(self, view: View, seed: int) -> Prompt:
        """The prompt, with words that the seed draws."""
        return prompt(view, self.frames.taxonomy, self.recipe.pairs.prompt, seed)

    def draw(self, views: Mapping[int, View]) -> list[list[tuple[Image, dict[str, Any]]]]:
        """Each frame's images, and what is told of them; frames of a call share batches. views: by frame."""
        requests: list[Request] = []
        for index, view in views.items():
            control, words = functools.partial(self.control, view), functools.partial(self.words, view)
            place = {"build_seed": self.recipe.seed, "sample": index, "images": self.recipe.images}
            requests += scene_requests(control, words, **place)
        told = [{"prompt": one.prompt, "negative": one.negative, "seed": one.seed} for one in requests]
        drawn = list(zip(self.synthesizer.images(requests), told, strict=True))
        each = self.recipe.images
        return [drawn[first : first + each] for first in range(0, len(drawn), each)]


def _write(artist: _Artist, out: Path, progress: Callable[[int, int], None]) -> None:
    recipe, frames, table = artist.recipe, artist.frames, dict[str, Any]()
    rows: list[Image] = []
    chosen, group = evenly(len(frames), recipe.frames), recipe.synthesis.batch_size
    for first in range(0, len(chosen), group):
        indices = chosen[first : first + group]
        views = [frames.view(index) for index in indices]
        together = artist.draw(dict(zip(indices, views, strict=True)))
        for index, view, drawn in zip(indices, views, together, strict=True):
            name, photograph = "_".join(frames.frames[index]), frames.photograph(index)
            _write_condition(out, name, view, photograph, reconstruct(artist.synthesizer.pipeline, photograph))
            for k, (image, told) in enumerate(drawn):
                write_png(out / "images" / f"{name}_{k}.png", image)
                table[f"{name}_{k}"] = told
            if len(rows) < ROWS:
                rows.append(row(artist.control(view, seed=0), *(image for image, _ in drawn), photograph))
        progress(first + len(indices), len(chosen))
    about = {"recipe": recipe.model_dump(mode="json"), "taxonomy": frames.taxonomy.name}
    write_json(out / TABLE, {**about, "taught_by": teachers(recipe.weights, recipe.controlnet), "images": table})
    write_png(out / ROWS_NAME, np.concatenate(rows))


def evenly(length: int, count: int | None) -> list[int]:
    """`count` indices over 0..length-1, all where there are no more."""
    count = min(count or length, length)
    return [k * length // count for k in range(count)]


def _write_condition(out: Path, name: str, view: View, photograph: Image, reconstruction: Image) -> None:
    for kind, image in (("renders", view.rgb), ("photographs", photograph), ("reconstructions", reconstruction)):
        write_png(out / kind / f"{name}.png", image)
    write_label_image(out / "semantics" / f"{name}.png", view.semantics)
    write_depth(out / "depth" / f"{name}.png", view.depth)


class Samples(Sequence[Judged]):
    """What `sample_images` wrote, a frame read when it is asked for. Raises InputError."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            table = json.loads((folder / TABLE).read_text())
            self.recipe, self.taxonomy = dict(table["recipe"]), str(table["taxonomy"])
            self.taught_by = list(table.get("taught_by", []))  # critics' files; see image_weights.teachers
            self.images: dict[str, list[str]] = {}  # names by frame
            for name in table["images"]:
                self.images.setdefault(name.rpartition("_")[0], []).append(name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(folder / TABLE, "what `occfactory images sample` wrote", str(error)) from None
        self.frames = list(self.images)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        frame = self.frames[index]
        return _read_sample(self.folder, frame, self.images[frame])


def _read_sample(folder: Path, frame: str, names: list[str]) -> Judged:
    kinds = {"photograph": "photographs", "reconstruction": "reconstructions", "render": "renders"}
    images = {kind: [read_image(folder / place / f"{frame}.png")] for kind, place in kinds.items()}
    images["generated"] = [read_image(folder / "images" / f"{name}.png") for name in names]
    labels = read_label_image(folder / "semantics" / f"{frame}.png")
    return Judged(frame, labels, read_depth(folder / "depth" / f"{frame}.png"), images)
