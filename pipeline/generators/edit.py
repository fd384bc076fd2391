"""Edits by exact conditioning: inpaint, outpaint, and tile a street or a district from overlapping windows.

All rest on one thing that any Generator offers: known voxels are held exactly while the others are generated
(Comp-D3PM, eq. 9). A canvas is a label array in which 255 asks for a label; windows of the generator's grid fill it,
each knowing what is already there, so that a tile costs one scene.

Deviation from the paper, which doesn't say how tiles are ordered: see `windows`. The generator has learnt the part of a
street ahead of its vehicle, road along +x in the middle; tiles extend that, a district becomes parallel streets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.generators.protocol import Generator, Known
from pipeline.generators.windows import Plane, Window, fronts, lay_windows, overlap_voxels
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.seeds import integer_seed
from pipeline.scene.taxonomy import EMPTY, IGNORE

DIRECTIONS = {"+x": (0, 1), "-x": (0, -1), "+y": (1, 1), "-y": (1, -1)}  # (axis, sign); x forward, y left
OVERLAP_SHARE = 0.125  # of the smaller side; of more, a row of windows would find its kerb where a back garden is

Advance = Callable[[int, int], None]  # (windows done, windows in all)


def box_mask(
    grid: VoxelGrid, low_m: tuple[float, float, float], high_m: tuple[float, float, float]
) -> Bool[np.ndarray, "x y z"]:
    """Voxels whose centre lies in the half-open box [m], in the grid's own frame. Raises InputError if none does."""
    inside = [(c >= a) & (c < b) for c, a, b in zip(_axis_centres(grid), low_m, high_m, strict=True)]
    mask = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
    if not mask.any():
        extent = f"a box inside {_triple(grid.origin_m)} to {_triple(grid.upper_m)} m"
        raise InputError("box", extent, f"{_triple(low_m)} to {_triple(high_m)}, which holds no voxel's centre")
    return mask


def _axis_centres(grid: VoxelGrid) -> list[np.ndarray]:
    return [o + (np.arange(n) + 0.5) * grid.voxel_size_m for o, n in zip(grid.origin_m, grid.shape, strict=True)]


def _triple(numbers: Sequence[float]) -> str:
    return ",".join(f"{n:g}" for n in numbers)


def class_mask(scene: Scene, classes: Collection[int], dilation: int = 0) -> Bool[np.ndarray, "x y z"]:
    """Voxels of the classes and those up to `dilation` voxels away along each axis. Raises InputError."""
    if dilation < 0 or not set(classes) <= set(range(len(scene.taxonomy.classes))):
        raise InputError("class_mask", f"ids of {scene.taxonomy.name} and dilation >= 0", f"{sorted(classes)}")
    from scipy.ndimage import maximum_filter

    chosen = np.isin(scene.labels, sorted(classes))
    return maximum_filter(chosen, size=2 * dilation + 1, mode="constant") if dilation else chosen


def known_outside(scene: Scene, mask: Bool[np.ndarray, "x y z"], classes: Collection[int] | None = None) -> Known:
    """What is held when `mask` (True = regenerate) is: every valid voxel outside it. Raises InputError."""
    if mask.shape != scene.labels.shape or mask.dtype != bool:
        raise InputError("mask", f"bool of shape {scene.labels.shape}", f"{mask.dtype} {mask.shape}")
    return Known(np.where(mask, np.uint8(IGNORE), scene.labels), None if classes is None else tuple(sorted(classes)))


def foreground_known(scene: Scene) -> Known:
    """The background's voxels held, foreground and empty ones to be regenerated as foreground or empty."""
    background = scene.occupied & ~scene.taxonomy.is_foreground()[scene.labels]
    return known_outside(scene, ~background, scene.taxonomy.foreground)


def inpaint(
    generator: Generator,
    scene: Scene,
    mask: Bool[np.ndarray, "x y z"],
    seed: int,
    classes: Collection[int] | None = None,
) -> Scene:
    """Regenerate the voxels of `mask` and the invalid ones; all others survive exactly.

    classes: ids that new voxels may take beside empty, None for any. A scene larger than the generator's grid is worked
    on window by window. Raises InputError.
    """
    return regenerate(generator, [scene], [known_outside(scene, mask, classes)], [seed])[0]


def regenerate(
    generator: Generator,
    scenes: Sequence[Scene],
    known: Sequence[Known],
    seeds: Sequence[int],
    advance: Advance | None = None,
) -> list[Scene]:
    """Fill known[i] in scenes[i]'s place with seeds[i], as many windows a call of the generator as can be.

    Windows without a voxel to generate are skipped, so a scene of which all is known comes back as it is.
    Raises InputError.
    """
    canvases = []
    for scene, held, seed in zip(scenes, known, seeds, strict=True):
        _require_fit(generator, scene.grid, scene)
        size, window = scene.labels.shape[:2], generator.grid.shape[:2]
        windows = lay_windows(size, window, default_overlap(generator.grid))
        canvases.append(_Canvas(held.labels.copy(), windows, seed, held.classes))
    _fill(generator, canvases, _together(canvases), advance)
    return [
        replace(scene, labels=canvas.labels, provenance=_edited(scene, "inpaint", canvas.seed))
        for scene, canvas in zip(scenes, canvases, strict=True)
    ]


def outpaint(generator: Generator, scene: Scene, direction: str, overlap_m: float, seed: int) -> Scene:
    """A scene larger by one generator's grid less the overlap [m]: the old part as it was, invalid voxels included.

    The new part knows the strip of `overlap_m` on the old one's side, and where the scene is wider than the generator's
    grid, its own neighbours. direction: +x (ahead), -x, +y (left) or -y. Raises InputError.
    """
    return outpaint_all(generator, [scene], direction, overlap_m, [seed])[0]


def outpaint_all(
    generator: Generator,
    scenes: Sequence[Scene],
    direction: str,
    overlap_m: float,
    seeds: Sequence[int],
    advance: Advance | None = None,
) -> list[Scene]:
    """Every scene outpainted with its own seed, in as few calls of the generator as one needs. Raises InputError."""
    if direction not in DIRECTIONS:
        raise InputError("direction", f"one of {', '.join(DIRECTIONS)}", repr(direction))
    axis, sign = DIRECTIONS[direction]
    overlap = overlap_voxels(generator.grid, overlap_m)
    grids, canvases = [], []
    for scene, seed in zip(scenes, seeds, strict=True):
        _require_fit(generator, scene.grid, scene)
        grids.append(_extended(scene.grid, axis, sign * (generator.grid.shape[axis] - overlap)))
        windows = _end_windows(grids[-1], generator.grid, axis, sign, overlap)
        canvases.append(_Canvas(_pasted(scene, grids[-1]), windows, seed))
    _fill(generator, canvases, _together(canvases), advance)
    for scene, grid, canvas in zip(scenes, grids, canvases, strict=True):
        canvas.labels[place_in(scene.grid, grid)] = scene.labels
    return [
        Scene(canvas.labels, grid, scene.taxonomy, _edited(scene, f"outpaint {direction}", canvas.seed))
        for scene, grid, canvas in zip(scenes, grids, canvases, strict=True)
    ]


def outpainted(
    grid: VoxelGrid, own: VoxelGrid, directions: Sequence[str], overlap: int
) -> tuple[VoxelGrid, tuple[Plane, ...]]:
    """What `grid` becomes by outpainting in one direction after another, and the planes where each one began."""
    planes: list[Plane] = []
    for axis, sign in (DIRECTIONS[direction] for direction in directions):
        growth = own.shape[axis] - overlap
        if sign < 0:
            planes = [(a, n + growth if a == axis else n) for a, n in planes]
        planes.append((axis, grid.shape[axis] if sign > 0 else growth))
        grid = _extended(grid, axis, sign * growth)
    return grid, tuple(planes)


def tile(
    generator: Generator,
    grid: VoxelGrid,
    seed: int,
    overlap_m: float,
    start: Scene | None = None,
    *,
    batched: bool = True,
    advance: Advance | None = None,
) -> Scene:
    """A long street (1 x N windows) or a district (M x N): a scene on `grid`, of any size from the generator's grid on.

    Every window holds what its finished neighbours left in the overlap [m]; its seed is its own column and row's, so a
    longer street begins as the shorter one does. start: a scene inside `grid`, whose valid voxels are held. batched:
    a front a call of the generator; else a window a call, in raster order: the same scene. Raises InputError.
    """
    _require_fit(generator, grid, start)
    overlap = overlap_voxels(generator.grid, overlap_m)
    labels = np.full(grid.shape, IGNORE, np.uint8) if start is None else _pasted(start, grid)
    canvas = _Canvas(labels, lay_windows(grid.shape[:2], generator.grid.shape[:2], overlap), seed)
    groups = _together([canvas]) if batched else [[(canvas, window)] for window in canvas.windows]
    _fill(generator, [canvas], groups, advance)
    scene = _tiled(generator, grid, canvas, overlap)
    return scene if start is None else replace(scene, provenance={**scene.provenance, "start": dict(start.provenance)})


def tile_all(
    generator: Generator, grid: VoxelGrid, seeds: Sequence[int], overlap_m: float, starts: Sequence[Scene] | None = None
) -> list[Scene]:
    """A tiled scene a seed, each as `tile` makes it, in few calls of the generator. starts: one a seed, held as `start`
    is. Raises InputError.
    """
    for start in [None] if starts is None else starts:
        _require_fit(generator, grid, start)
    blank = np.full(grid.shape, IGNORE, np.uint8)
    pasted = [blank.copy() for _ in seeds] if starts is None else [_pasted(start, grid) for start in starts]
    overlap = overlap_voxels(generator.grid, overlap_m)
    windows = lay_windows(grid.shape[:2], generator.grid.shape[:2], overlap)
    canvases = [_Canvas(labels, windows, seed) for labels, seed in zip(pasted, seeds, strict=True)]
    _fill(generator, canvases, _together(canvases))
    return [_tiled(generator, grid, canvas, overlap) for canvas in canvases]


def _tiled(generator: Generator, grid: VoxelGrid, canvas: _Canvas, overlap: int) -> Scene:
    provenance = {"source": "tile", "seed": canvas.seed, "overlap": overlap, "windows": len(canvas.windows)}
    return Scene(canvas.labels, grid, generator.taxonomy, provenance)


def default_overlap(grid: VoxelGrid) -> int:
    """Voxels that windows share where no overlap is given: an eighth of the smaller side."""
    return round(OVERLAP_SHARE * min(grid.shape[:2]))


@dataclass(frozen=True, eq=False)
class _Canvas:
    """Labels that are filled in place (255 = wanted), where the windows lie, and the root of their seeds."""

    labels: UInt8[np.ndarray, "x y z"]
    windows: list[Window]
    seed: int
    classes: tuple[int, ...] | None = None


_Job = tuple[_Canvas, Window]


def _together(canvases: Sequence[_Canvas]) -> list[list[_Job]]:
    """The k-th fronts of all canvases, for every k: canvases know nothing of each other."""
    by_canvas = [fronts(canvas.labels.shape[:2], canvas.windows) for canvas in canvases]
    return [
        [(c, window) for c, found in zip(canvases, by_canvas, strict=True) if k < len(found) for window in found[k]]
        for k in range(max(map(len, by_canvas), default=0))
    ]


def _fill(
    generator: Generator, canvases: Sequence[_Canvas], groups: Sequence[Sequence[_Job]], advance: Advance | None = None
) -> None:
    """Sample group after group, each in one call, and write it into the canvases."""
    done, total = 0, sum(len(canvas.windows) for canvas in canvases)
    for group in groups:
        jobs = [(c, w) for c, w in group if (c.labels[w.slices] == IGNORE).any()]
        known = [Known(c.labels[w.slices].copy(), c.classes) for c, w in jobs]
        seeds = [integer_seed(c.seed, "window", *w.place) for c, w in jobs]
        scenes = generator.sample(len(jobs), seeds, known) if jobs else []
        for (canvas, window), held, scene in zip(jobs, known, scenes, strict=True):
            canvas.labels[window.slices] = _checked(held, scene)
        done += len(group)
        if advance:
            advance(done, total)


def _checked(known: Known, scene: Scene) -> UInt8[np.ndarray, "x y z"]:
    """The scene's labels, unless the generator broke its word: then RuntimeError, whatever the picture looks like."""
    free = known.labels == IGNORE
    if scene.labels.shape != free.shape or (scene.labels[~free] != known.labels[~free]).any():
        raise RuntimeError("the generator changed voxels that it was told to hold")
    new = scene.labels[free]
    if (new == IGNORE).any() or (known.classes is not None and not np.isin(new, [EMPTY, *known.classes]).all()):
        raise RuntimeError("the generator left voxels without a label, or gave one of another class than asked for")
    return scene.labels


def _require_fit(generator: Generator, grid: VoxelGrid, scene: Scene | None) -> None:
    """Raise InputError unless windows of the generator's grid fit into `grid`, and the scene speaks of its classes."""
    own = generator.grid
    alike = grid.voxel_size_m == own.voxel_size_m and grid.shape[2] == own.shape[2]
    if not alike or grid.origin_m[2] != own.origin_m[2]:
        expected = f"{own.shape[2]} levels of {own.voxel_size_m} m from {own.origin_m[2]} m, as the generator's"
        found = f"{grid.shape[2]} of {grid.voxel_size_m} m from {grid.origin_m[2]} m"
        raise InputError("grid", expected, found)
    if grid.shape[0] < own.shape[0] or grid.shape[1] < own.shape[1]:
        expected = f"at least the generator's {own.shape[0]} x {own.shape[1]} columns"
        raise InputError("grid", expected, f"{grid.shape[0]} x {grid.shape[1]}")
    if scene is not None and scene.taxonomy.classes != generator.taxonomy.classes:
        raise InputError("scene", f"the generator's classes, {generator.taxonomy.name}", scene.taxonomy.name)


def _extended(grid: VoxelGrid, axis: int, voxels: int) -> VoxelGrid:
    """The grid made longer along an axis, on its upper side, or on its lower one where `voxels` is negative."""
    shape, origin = list(grid.shape), list(grid.origin_m)
    shape[axis] += abs(voxels)
    origin[axis] = round(origin[axis] + min(voxels, 0) * grid.voxel_size_m, 9)  # -5.6, not -5.6000000000000005
    return VoxelGrid((shape[0], shape[1], shape[2]), grid.voxel_size_m, (origin[0], origin[1], origin[2]))


def _end_windows(grid: VoxelGrid, own: VoxelGrid, axis: int, sign: int, overlap: int) -> list[Window]:
    """The windows at one end of an axis, side by side over the other axis."""
    size, shift = [grid.shape[0], grid.shape[1]], [0, 0]
    size[axis] = own.shape[axis]
    shift[axis] = grid.shape[axis] - own.shape[axis] if sign > 0 else 0
    windows = lay_windows((size[0], size[1]), own.shape[:2], overlap)
    return [replace(w, corner=(w.corner[0] + shift[0], w.corner[1] + shift[1])) for w in windows]


def place_in(inner: VoxelGrid, outer: VoxelGrid) -> tuple[slice, slice, slice]:
    """Where `inner` lies in `outer`. Raises InputError unless their voxels coincide and it lies inside."""
    offset = outer.coordinates(np.asarray(inner.origin_m))
    first = np.rint(offset).astype(int)
    fits = (first >= 0).all() and (first + inner.shape <= outer.shape).all()
    if inner.voxel_size_m != outer.voxel_size_m or np.abs(offset - first).max() > 1e-3 or not fits:
        expected = f"voxels that are the larger grid's, which begins at {_triple(outer.origin_m)} m"
        raise InputError("scene", expected, f"{inner.shape} of {inner.voxel_size_m} m at {_triple(inner.origin_m)} m")
    x, y, z = (slice(int(a), int(a) + n) for a, n in zip(first, inner.shape, strict=True))
    return x, y, z


def _pasted(scene: Scene, grid: VoxelGrid) -> UInt8[np.ndarray, "x y z"]:
    """The scene's labels on a larger grid, 255 all around."""
    labels = np.full(grid.shape, IGNORE, np.uint8)
    labels[place_in(scene.grid, grid)] = scene.labels
    return labels


def _edited(scene: Scene, edit: str, seed: int) -> dict[str, object]:
    """The scene's provenance with one more edit."""
    return {**scene.provenance, "edits": [*scene.provenance.get("edits", ()), {"edit": edit, "seed": seed}]}
