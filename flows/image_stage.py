"""A build's images drawn by ControlNet and judged by a critic: the images stage of recipes of that kind.

An image's noise depends on the recipe's seed, its sample, camera and attempt alone; its prompt's drawn words and its
palette on the sample. What is drawn together is the shard's, so bytes don't depend on workers or interruptions either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from flows.image_weights import Studio, studio
from flows.recipes import BuildRecipe, ControlNetImages
from flows.viewing import Surrounded, cameras_of
from pipeline.images.conditioning import control_image
from pipeline.images.config import FidelityConfig
from pipeline.images.fidelity import Drawn, checker, draw_until_accepted
from pipeline.images.prompts import Prompt, prompt
from pipeline.images.synthesis import Request, torch_threads
from pipeline.scene.camera import Camera
from pipeline.scene.records import Scene, View
from pipeline.scene.seeds import integer_seed

Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, eq=False)
class Shot:
    """One camera of one sample. place: its node in the seed tree; view: of the camera, made larger to fit networks."""

    index: int
    camera: Camera
    place: int
    view: View
    prompt: Prompt


def sample_shots(
    recipe: BuildRecipe, images: ControlNetImages, index: int, shown: Surrounded, rendered: Mapping[str, np.ndarray]
) -> list[Shot]:
    """A sample's shots, in its cameras' order. rendered: the views stage's arrays, "camera.kind".

    Raises InputError.
    """
    multiple, seed = studio(images, shown.scene.taxonomy).multiple, integer_seed(recipe.seed, "image prompt", index)
    cameras = cameras_of(recipe, index)
    shots = []
    for number, (name, camera) in enumerate(cameras.items()):
        arrays = {kind: rendered[f"{name}.{kind}"] for kind in ("rgb", "depth", "semantics")}
        view = fitting_view(
            View(camera, **arrays, normals=rendered[f"{name}.normals"] / np.float32(127)), shown, multiple
        )
        text = prompt(view, shown.scene.taxonomy, images.prompt, seed)
        shots.append(Shot(index, camera, index * len(cameras) + number, view, text))
    return shots


def fitting_view(view: View, shown: Surrounded, multiple: int) -> View:
    """The view where its size divides by `multiple` [px], else rendered anew with more at the right and the bottom."""
    width, height = (-(-size // multiple) * multiple for size in (view.camera.width_px, view.camera.height_px))
    if (width, height) == (view.camera.width_px, view.camera.height_px):
        return view
    return shown.view(view.camera.cropped(width, height))


def draw_shots(
    recipe: BuildRecipe, images: ControlNetImages, shots: Sequence[Shot], scene: Scene
) -> list[tuple[Image, dict[str, Any]]]:
    """Every shot's image at its camera's size, and what a manifest tells of it. scene: any one, for its taxonomy.

    Raises InputError.
    """
    found = studio(images, scene.taxonomy)

    def control(shot: Shot) -> Float32[np.ndarray, "c h w"]:
        if found.palettes is None:
            return control_image(shot.view, images.control)
        palette = found.palettes.drawn(integer_seed(recipe.seed, "image palette", shot.index))
        return control_image(shot.view, images.control, palette)

    controls = [control(shot) for shot in shots]

    def seed(number: int, attempt: int) -> int:
        return integer_seed(recipe.seed, "image noise", shots[number].place, attempt)

    def draw(numbers: Sequence[int], attempt: int) -> list[Image]:
        requests = [Request(controls[n], *shots[n].prompt, seed(n, attempt)) for n in numbers]
        return _drawn(found, requests)

    with torch_threads(images.synthesis.torch_threads):
        if found.critic is None or found.bounds is None:
            pictures, notes = draw(range(len(shots)), 0), [{"attempt": 0} for _ in shots]
        else:
            config = FidelityConfig(min_share=images.min_share)
            checks = [
                checker(found.critic, shot.view.semantics, shot.view.depth, scene.taxonomy, config, found.bounds)
                for shot in shots
            ]
            drawn = draw_until_accepted(draw, checks, images.redraws)
            pictures, notes = [one.image for one in drawn], [_told(one) for one in drawn]
    return [
        (
            np.ascontiguousarray(picture[: shot.camera.height_px, : shot.camera.width_px]),
            {"prompt": shot.prompt.text, "negative": shot.prompt.negative, "seed": seed(n, note["attempt"]), **note},
        )
        for n, (shot, picture, note) in enumerate(zip(shots, pictures, notes, strict=True))
    ]


def _drawn(found: Studio, requests: Sequence[Request]) -> list[Image]:
    """In order; those of one size together."""
    images: dict[int, Image] = {}
    for shape in dict.fromkeys(request.control.shape for request in requests):
        numbers = [n for n, request in enumerate(requests) if request.control.shape == shape]
        images |= zip(numbers, found.synthesizer.images([requests[n] for n in numbers]), strict=True)
    return [images[n] for n in range(len(requests))]


def _told(drawn: Drawn) -> dict[str, Any]:
    return {"attempt": len(drawn.attempts) - 1, **drawn.figures()}


def sample_note(notes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a sample's provenance says of its images, by camera: of the first as `image`, of others as `images`.

    accepted, where they were judged: whether all were.
    """
    first, *others = notes
    found: dict[str, Any] = {"image": notes[first]}
    if others:
        found["images"] = {name: notes[name] for name in others}
    if "accepted" in notes[first]:
        found["accepted"] = all(note["accepted"] for note in notes.values())
    return found
