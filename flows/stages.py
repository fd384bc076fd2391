"""A build's stages: scenes -> masks -> views -> images -> files. Each reads paths and writes paths, a shard at a time.

A view's image is its shaded render, or what a diffusion pipeline draws over it (image_stage.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flows.layout import Place, place_of, shard_range
from flows.payload import read_payload, write_payload
from flows.recipes import BuildRecipe, ControlNetImages, SplitSource
from flows.shards import WORK
from flows.sources import draw, shown_grid, source_files, source_grid
from flows.viewing import Surrounded, cameras_of, copy_frame_calibration
from pipeline.datasets.image_files import write_depth, write_image, write_label_image
from pipeline.datasets.monoscene_labels import write_monoscene_labels
from pipeline.datasets.semantic_kitti import write_frame
from pipeline.datasets.voxel_frames import frame_of
from pipeline.scene.files import digest_of, write_json
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import EMPTY, IGNORE, from_short_form, short_form

VIEW_KINDS = ("depth", "semantics")  # what is exported of a view beside its image


def source_inputs(recipe: BuildRecipe, shard: int) -> str:
    """Digest of the dataset files that a shard reads, "" where its scenes don't come from a dataset."""
    if not isinstance(recipe.source, SplitSource):
        return ""
    return digest_of([source_files(recipe.source, index) for index in shard_range(recipe, shard)])


def scenes_stage(recipe: BuildRecipe, out: Path, shard: int) -> list[str]:
    """Draw the shard's scenes: labels (255 where the source ignores), poses, and masks where the source has them.

    beyond: labels of the scene and its surroundings, where the recipe extends what is rendered.
    """
    written = []
    shard_samples = shard_range(recipe, shard)
    for index, drawn in zip(shard_samples, draw(recipe, shard_samples), strict=True):
        known = {"invalid": drawn.invalid, "occluded": drawn.occluded, "scan": drawn.scan, "beyond": drawn.beyond}
        arrays = {"labels": drawn.scene.labels, "poses": drawn.poses}
        arrays |= {name: array for name, array in known.items() if array is not None}
        note = {"provenance": dict(drawn.scene.provenance), "taxonomy": short_form(drawn.scene.taxonomy)}
        written.append(_write(out, "scenes", index, arrays, note))
    return written


def masks_stage(recipe: BuildRecipe, out: Path, shard: int) -> list[str]:
    """Give every scene its masks: the source's, simulated along its poses, or none; invalid voxels become 255.

    Solid voxels that no pose sees become invalid too: recorded ground truth knows nothing of them.
    """
    from renderers.ground_truth import masked
    from renderers.voxel_scan import scan_voxels

    grid = source_grid(recipe)
    written = []
    for index in shard_range(recipe, shard):
        arrays, note = _read(out, "scenes", index)
        poses = arrays.pop("poses")
        if "invalid" not in arrays:
            arrays["scan"] = scan_voxels(arrays["labels"], grid)
            if recipe.masks == "simulated":
                arrays["labels"], arrays["invalid"], arrays["occluded"] = masked(arrays["labels"], grid, poses, True)
            else:
                arrays |= {name: np.zeros(grid.shape, bool) for name in ("invalid", "occluded")}
        arrays["labels"] = np.where(arrays["invalid"], np.uint8(IGNORE), arrays["labels"])
        written.append(_write(out, "masks", index, arrays, note))
    return written


def views_stage(recipe: BuildRecipe, out: Path, shard: int) -> list[str]:
    """Render every scene through its cameras: RGB, depth, semantics, normals."""
    written = []
    for index in shard_range(recipe, shard):
        shown = read_shown(recipe, out, index)
        arrays: dict[str, np.ndarray] = {}
        for name, camera in cameras_of(recipe, index).items():
            view = shown.view(camera)
            arrays |= {f"{name}.rgb": view.rgb, f"{name}.depth": view.depth, f"{name}.semantics": view.semantics}
            arrays[f"{name}.normals"] = np.round(view.normals * 127).astype(np.int8)
        written.append(_write(out, "views", index, arrays, {}))
    return written


def images_stage(recipe: BuildRecipe, out: Path, shard: int) -> list[str]:
    """Make each view's image: the view's RGB, or one drawn by ControlNet, with what the manifest tells of it."""
    if isinstance(recipe.images, ControlNetImages):
        return _draw_images(recipe, recipe.images, out, shard)
    written = []
    for index in shard_range(recipe, shard):
        arrays, _ = _read(out, "views", index)
        images = {name.removesuffix(".rgb"): rgb for name, rgb in arrays.items() if name.endswith(".rgb")}
        written.append(_write(out, "images", index, images, {}))
    return written


def _draw_images(recipe: BuildRecipe, images: ControlNetImages, out: Path, shard: int) -> list[str]:
    from flows.image_stage import draw_shots, sample_note, sample_shots

    scene, by_sample = read_scene(recipe, out, shard_range(recipe, shard)[0]), {}
    for index in shard_range(recipe, shard):
        shown = read_shown(recipe, out, index)
        by_sample[index] = sample_shots(recipe, images, index, shown, _read(out, "views", index)[0])
    drawn = iter(draw_shots(recipe, images, [shot for shots in by_sample.values() for shot in shots], scene))
    written = []
    for index in by_sample:
        found = {name: next(drawn) for name in cameras_of(recipe, index)}
        note = sample_note({name: told for name, (_, told) in found.items()})
        written.append(_write(out, "images", index, {name: image for name, (image, _) in found.items()}, note))
    return written


def files_stage(recipe: BuildRecipe, out: Path, shard: int) -> list[str]:
    """Write the shard's samples as a SemanticKITTI-layout dataset, and each one's provenance in work.

    A sample whose images were all rejected has its provenance alone, unless the recipe keeps it.
    """
    written = []
    for index in shard_range(recipe, shard):
        provenance = _provenance(recipe, out, index)
        written.append(f"{WORK}/samples/{index:06d}.json")
        write_json(out / written[-1], provenance)
        if not is_dropped(recipe, provenance):
            written += _write_sample(recipe, out, index)
    return written


def _provenance(recipe: BuildRecipe, out: Path, index: int) -> dict[str, Any]:
    _, scene = _read(out, "masks", index)
    _, images = _read(out, "images", index)
    return {**scene["provenance"], **images}


def is_dropped(recipe: BuildRecipe, provenance: Mapping[str, Any]) -> bool:
    """Whether a sample is left out of the dataset, as none of its draws was accepted."""
    images = recipe.images
    return isinstance(images, ControlNetImages) and images.rejected == "drop" and provenance.get("accepted") is False


def _write_sample(recipe: BuildRecipe, out: Path, index: int) -> list[str]:
    place = place_of(recipe, index)
    views, _ = _read(out, "views", index)
    images, _ = _read(out, "images", index)
    written = _write_voxels(recipe, out, place, index) + copy_frame_calibration(recipe, out, index)
    for number, camera in enumerate(cameras_of(recipe, index)):
        suffix = "2" if number == 0 else camera  # the first one is the dataset's camera
        view = {kind: views[f"{camera}.{kind}"] for kind in VIEW_KINDS}
        written += _write_view(out, place, suffix, images[camera], view)
        if recipe.images.kind != "render":
            written.append(f"{place.folder}/render_{suffix}/{place.frame}.png")
            write_image(out / written[-1], views[f"{camera}.rgb"])
    return written


def read_scene(recipe: BuildRecipe, out: Path, index: int) -> Scene:
    """The masked scene of a sample whose shard is in work."""
    arrays, note = _read(out, "masks", index)
    return Scene(arrays["labels"], source_grid(recipe), from_short_form(note["taxonomy"]), note["provenance"])


def read_shown(recipe: BuildRecipe, out: Path, index: int) -> Surrounded:
    """The same as it is rendered: with its surroundings, if the recipe extends scenes."""
    scene, labels = read_scene(recipe, out, index), _read(out, "masks", index)[0].get("beyond")
    if labels is None:
        return Surrounded(scene)
    from pipeline.generators.edit import place_in

    grid = shown_grid(recipe)
    labels[place_in(scene.grid, grid)] = EMPTY
    return Surrounded(scene, Scene(labels, grid, scene.taxonomy))


def _write_voxels(recipe: BuildRecipe, out: Path, place: Place, index: int) -> list[str]:
    arrays, _ = _read(out, "masks", index)
    masks = {name: arrays[name] for name in ("invalid", "occluded", "scan") if name in arrays}
    frame = frame_of(read_scene(recipe, out, index), place.sequence, place.frame, **masks)
    extra = write_monoscene_labels(out, frame) if recipe.monoscene_labels else []
    return write_frame(out, frame) + extra


def _write_view(out: Path, place: Place, suffix: str, image: np.ndarray, view: dict[str, np.ndarray]) -> list[str]:
    paths = {kind: f"{place.folder}/{kind}_{suffix}/{place.frame}.png" for kind in ("image", *VIEW_KINDS)}
    write_image(out / paths["image"], image)
    write_depth(out / paths["depth"], view["depth"])
    write_label_image(out / paths["semantics"], view["semantics"])
    return list(paths.values())


def _path(stage: str, index: int) -> str:
    return f"{WORK}/{stage}/{index:06d}.npz"


def _write(out: Path, stage: str, index: int, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> str:
    write_payload(out / _path(stage, index), arrays, note)
    return _path(stage, index)


def _read(out: Path, stage: str, index: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return read_payload(out / _path(stage, index))
