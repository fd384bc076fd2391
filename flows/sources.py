"""Where a build's scenes come from: a generator, the town's training split, or a split of a dataset.

A drawn scene carries what its source knows: masks if there are any, else the poses from which they'll be simulated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flows.recipes import BuildRecipe, GeneratorSource, SplitSource, TownSource
from pipeline.datasets.semantic_kitti import KittiRoot, frame_path, open_root, read_frame
from pipeline.scene.errors import InputError
from pipeline.scene.files import sha256_file
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import Taxonomy, load_taxonomy

VOXEL_SUFFIXES = (".label", ".invalid", ".occluded", ".bin")


@dataclass(frozen=True, eq=False)
class Drawn:
    """One scene of a build.

    poses: (P, 4, 4) vehicle-frame poses of a drive, from which masks are simulated; invalid, occluded, scan: bool
    (X, Y, Z) where the source has them; beyond: labels on `shown_grid`, where the recipe extends its scenes.
    """

    scene: Scene
    poses: np.ndarray
    invalid: np.ndarray | None = None
    occluded: np.ndarray | None = None
    scan: np.ndarray | None = None
    beyond: np.ndarray | None = None


def source_length(recipe: BuildRecipe) -> int:
    """How many samples the recipe asks for, or its source has. Raises InputError."""
    if isinstance(recipe.source, SplitSource):
        available = len(split_frames(recipe.source))
        if recipe.samples is not None and recipe.samples > available:
            raise InputError(recipe.source.root, f"at least {recipe.samples} frames", f"{available}")
        return recipe.samples or available
    if recipe.samples is None:
        raise InputError(f"recipe {recipe.name}", "a number of samples", "none", "--set samples=100")
    return recipe.samples


def source_grid(recipe: BuildRecipe) -> VoxelGrid:
    """The grid that the build's scenes lie on."""
    source = recipe.source
    return open_source(source.root).grid if isinstance(source, SplitSource) else source.grid.grid()


def shown_grid(recipe: BuildRecipe) -> VoxelGrid:
    """The grid that is rendered: the scenes' own, longer ahead and wider to both sides by the source's extend_m."""
    grid, source = source_grid(recipe), recipe.source
    if isinstance(source, SplitSource) or not source.extend_m:
        return grid
    count = math.ceil(source.extend_m / grid.voxel_size_m - 1e-9)
    (x, y, z), (low_x, low_y, low_z) = grid.shape, grid.origin_m
    return VoxelGrid(
        (x + count, y + 2 * count, z), grid.voxel_size_m, (low_x, round(low_y - count * grid.voxel_size_m, 9), low_z)
    )


def source_taxonomy(recipe: BuildRecipe) -> Taxonomy:
    """The classes of the build's scenes. Raises InputError."""
    source = recipe.source
    if isinstance(source, SplitSource):
        return open_source(source.root).taxonomy
    if isinstance(source, GeneratorSource):
        from flows.generators import loaded

        return loaded(source.weights, source.weights_digest).taxonomy
    return load_taxonomy("semantic_kitti")


def draw(recipe: BuildRecipe, indices: range) -> Iterator[Drawn]:
    """These samples of the build: each depends on the recipe and its index alone; some may show the same scene."""
    each = recipe.images_per_scene
    scenes = range(indices.start // each, -(-indices.stop // each))
    for number, drawn in zip(scenes, _scenes(recipe, scenes), strict=True):
        for index in range(max(number * each, indices.start), min((number + 1) * each, indices.stop)):
            yield drawn if each == 1 else replace(drawn, scene=_numbered(drawn.scene, number, index - number * each))


def _numbered(scene: Scene, number: int, image: int) -> Scene:
    return replace(scene, provenance={**scene.provenance, "scene": number, "scene_image": image})


def _scenes(recipe: BuildRecipe, numbers: range) -> Iterator[Drawn]:
    source = recipe.source
    if isinstance(source, GeneratorSource):
        yield from _from_generator(source, recipe, numbers)
    elif isinstance(source, SplitSource):
        yield from (_from_split(source, number) for number in numbers)
    else:
        yield from (_from_town(source, recipe, number) for number in numbers)


def _from_generator(source: GeneratorSource, recipe: BuildRecipe, indices: range) -> Iterator[Drawn]:
    from flows.generators import loaded, scene_seeds
    from flows.scene_masks import forward_poses
    from pipeline.generators.edit import tile_all

    names = ("steps", "batch", "threads")
    sampling = tuple((name, value) for name in names if (value := getattr(source, name)) is not None)
    generator, grid = loaded(source.weights, source.weights_digest, sampling), source.grid.grid()
    seeds = scene_seeds(recipe.seed, indices)
    single = grid == generator.grid
    scenes = generator.sample(len(seeds), seeds) if single else tile_all(generator, grid, seeds, source.overlap_m)
    beyond: Sequence[np.ndarray | None] = [None] * len(seeds)
    if source.extend_m:
        around = [integer_seed(seed, "beyond", 0) for seed in seeds]
        outpainted = tile_all(generator, shown_grid(recipe), around, source.overlap_m, scenes)
        beyond = [scene.labels for scene in outpainted]
    for scene, more in zip(scenes, beyond, strict=True):
        provenance = {**scene.provenance, "weights": source.weights_digest}
        yield Drawn(replace(scene, provenance=provenance), forward_poses(scene.labels, grid), beyond=more)


def _from_town(source: TownSource, recipe: BuildRecipe, index: int) -> Drawn:
    from pipeline.town.plan import plan_town
    from pipeline.town.surface import pose, surface_at
    from renderers.voxelize import voxelize_surface

    sequence, place = divmod(index, source.frames_per_sequence)
    frame = place * source.frame_step
    last = (source.frames_per_sequence - 1) * source.frame_step + source.mask_poses * source.mask_step
    town_seed = integer_seed(recipe.seed, "town", sequence)
    town = plan_town("train", town_seed, frames=last + 1)
    surface = surface_at(town, frame)
    grid = source.grid.grid()
    provenance = {"source": "town", "split": "train", "town_seed": town_seed, "frame": frame}
    scene = Scene(voxelize_surface(surface, grid), grid, surface.taxonomy, provenance)
    vehicle_from_world = np.linalg.inv(pose(town, frame))
    frames = range(frame, frame + source.mask_poses * source.mask_step, source.mask_step)
    poses = np.stack([vehicle_from_world @ pose(town, k) for k in frames])
    return Drawn(scene, poses, beyond=voxelize_surface(surface, shown_grid(recipe)) if source.extend_m else None)


def _from_split(source: SplitSource, index: int) -> Drawn:
    root = open_source(source.root)
    sequence, frame = split_frames(source)[index]
    found = read_frame(root, sequence, frame)
    scene = found.scene()
    digest = sha256_file(frame_path(root, sequence, "voxels", f"{frame}.label"))
    scene = replace(scene, provenance={**scene.provenance, "sha256": digest})
    return Drawn(scene, np.eye(4)[None], found.invalid, found.occluded, found.scan)


def split_frames(source: SplitSource) -> tuple[tuple[str, str], ...]:
    """(sequence, frame) of every labelled frame of the split. Raises InputError."""
    root = open_source(source.root)
    frames = tuple((s, f) for s, f in root.frames(source.split) if f in root.sequences[s].labelled)
    if not frames:
        raise InputError(source.root, f"labelled frames in split {source.split}", "none")
    return frames


def source_files(source: SplitSource, index: int) -> dict[str, str]:
    """SHA-256 of the files of a split's frame that a build reads, by path in the root. Raises InputError."""
    sequence, frame = split_frames(source)[index]
    root, names = open_source(source.root), [("voxels", frame + suffix) for suffix in VOXEL_SUFFIXES]
    paths = [frame_path(root, sequence, *name) for name in (*names, ("calib", f"{frame}.txt"))]
    paths.append(frame_path(root, sequence, "", "calib.txt"))
    found = {path: path.stat() for path in paths if path.is_file()}
    return {
        path.relative_to(root.path).as_posix(): _sha256(path, stat.st_size, stat.st_mtime_ns)
        for path, stat in found.items()
    }


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    return sha256_file(path)


@functools.lru_cache(maxsize=2)
def open_source(root: Path) -> KittiRoot:
    """The root, enumerated once a process: a build reads it and never writes into it."""
    return open_root(root)
