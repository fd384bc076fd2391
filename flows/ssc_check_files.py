"""What can be told of a root's files without a photograph: labels, masks, their order, and calibration.

Every finding is a line: what was looked at, ok or not, what was found, what to do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt16

from pipeline.datasets.kitti_root import KittiRoot, sequence_path
from pipeline.datasets.semantic_kitti import read_camera
from pipeline.datasets.voxel_files import read_bits, read_mask, read_raw_labels
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.taxonomy import EMPTY
from ssc_eval.predictions import Key, Truth, in_view

HIDDEN_SHARE = 0.01  # of occupied voxels under .invalid, above which the mask isn't what it says
SCANNED_SHARE = 0.5  # of .bin's voxels that must be labelled
SEEN_SHARE = 0.05  # of occupied voxels that must be in view
SOLID_BELOW = 0.5  # share of occupied voxels in the grid's lower half
LENS_DEG = (20.0, 160.0)
CENTRE = (0.2, 0.8)  # the principal point, in image sizes
OFFSET_M = 3.0  # of a camera from the one that Tr is for
ORDER_FRAMES = 3  # that the order of axes is judged by
Verdict = Literal["ok", "note", "FAULT"]


@dataclass(frozen=True)
class Finding:
    """One check's outcome; a note is something to look at that may be as it should."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def line(self) -> str:
        return f"{self.verdict:5}  {self.name:12} {self.found}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, eq=False)
class FrameFacts:
    """What a frame's voxel files say: a fault, or counts of voxels.

    hidden: occupied under .invalid as bits are read, backwards: as if the least significant bit came first; unseen:
    invalid and not occluded; scanned: in .bin, labelled: of those with a label other than 0. None: no such file.
    """

    key: Key
    fault: str = ""
    remedy: str = ""
    labels: Int64[np.ndarray, "256"] | None = None
    occupied: int = 0
    below: int = 0
    invalid: int = 0
    hidden: int = 0
    backwards: int = 0
    unseen: int | None = None
    scanned: int | None = None
    labelled: int = 0


def frame_facts(root: KittiRoot, key: Key) -> FrameFacts:
    """Read a labelled frame's files, faults and all."""
    label_path, invalid_path = root.label_files(*key)
    try:
        raw = read_raw_labels(label_path, root.grid)
        labels = root.taxonomy.from_raw(raw, label_path)
        invalid = _mask(root, invalid_path)
        occluded, scan = (_mask(root, path) if path.exists() else None for path in _others(root, key))
    except InputError as error:
        return FrameFacts(key, str(error), _remedy(root, label_path))
    solid = raw != EMPTY
    hidden = int((solid & invalid).sum())
    return FrameFacts(
        key,
        labels=np.bincount(labels.ravel(), minlength=256),
        occupied=int(solid.sum()),
        below=int(solid[:, :, : solid.shape[2] // 2].sum()),
        invalid=int(invalid.sum()),
        hidden=hidden,
        backwards=int((solid & _backwards(invalid)).sum()) if hidden else 0,
        unseen=None if occluded is None else int((invalid & ~occluded).sum()),
        scanned=None if scan is None else int(scan.sum()),
        labelled=0 if scan is None else int((scan & solid).sum()),
    )


def _mask(root: KittiRoot, path: Path) -> Bool[np.ndarray, "x y z"]:
    return (read_mask if root.layout.rules.invalid_bytes and path.suffix == ".invalid" else read_bits)(path, root.grid)


def _backwards(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The mask as it'd be read with the least significant bit first."""
    bits = np.unpackbits(np.packbits(mask), bitorder="little", count=mask.size)
    return bits.view(bool).reshape(mask.shape)


def _others(root: KittiRoot, key: Key) -> tuple[Path, Path]:
    at = partial(sequence_path, root.path, root.layout, key[0], "voxels")
    return at(f"{key[1]}.occluded"), at(f"{key[1]}.bin")


def _remedy(root: KittiRoot, path: Path) -> str:
    """What a label file that can't be read probably is."""
    voxels = prod(root.grid.shape)
    size = path.stat().st_size if path.is_file() else 0
    if size in (voxels, 4 * voxels, 8 * voxels):
        return f"it has {size // voxels} bytes a voxel: write uint16"
    if size != 2 * voxels:
        return "another grid? tell shape, voxel_size_m and origin_m in grid.json beside sequences/" if size else ""
    raw = np.fromfile(path, "<u2")
    known = [number for number, _ in root.taxonomy.raw_to_class]
    if np.isin(raw.byteswap(), known).all():
        return "its bytes are swapped: write uint16 little endian"
    if raw.max() < len(root.taxonomy.classes):
        return f"class ids? write raw ids, such as {root.taxonomy.raw_ids[1]} for {root.taxonomy.classes[1]}"
    return ""


def check_images(root: KittiRoot, split: str) -> Finding:
    """Whether every labelled frame of a split has an image."""
    bare = []
    labelled = [(s, f) for s, f in root.frames(split) if f in root.sequences[s].labelled]
    for sequence in dict.fromkeys(sequence for sequence, _ in labelled):
        folder = sequence_path(root.path, root.layout, sequence, root.layout.images, "")
        names = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
        bare += [f"{s}/{f}" for s, f in labelled if s == sequence and f not in names]
    if bare:
        found = f"{len(bare)} of {len(labelled)} frames of split {split} have none, {bare[0]} first"
        return Finding("images", "FAULT", found, f"put them into {root.layout.images}/")
    return Finding("images", "ok", f"one for each of {len(labelled)} labelled frames of split {split}")


def check_labels(root: KittiRoot, facts: Sequence[FrameFacts]) -> Finding:
    """Files of the right size, ids that the taxonomy knows, something in every frame."""
    broken = [fact for fact in facts if fact.fault]
    if broken:
        return Finding("labels", "FAULT", f"{len(broken)} of {len(facts)} frames: {broken[0].fault}", broken[0].remedy)
    total = sum((fact.labels for fact in facts if fact.labels is not None), np.zeros(256, np.int64))
    empty = [fact.key for fact in facts if not fact.occupied]
    names = root.taxonomy.classes
    seen = [k for k in range(1, len(names)) if total[k]]
    lacking = ", ".join(names[k] for k in range(1, len(names)) if not total[k])
    found = f"{len(facts)} frames, {len(seen)} of {len(names) - 1} classes" + (f", no {lacking}" if lacking else "")
    if empty:
        verdict: Verdict = "FAULT" if len(empty) == len(facts) else "note"
        return Finding("labels", verdict, f"{found}; {len(empty)} frames are empty, {'/'.join(empty[0])} first")
    return Finding("labels", "ok", found)


def check_masks(root: KittiRoot, facts: Sequence[FrameFacts]) -> list[Finding]:
    """.invalid against the labels, .occluded against .invalid, .bin against the labels."""
    sound = [fact for fact in facts if not fact.fault]
    if not sound:
        return []
    return [_invalid(root, sound), *_occluded(sound), *_scan(sound)]


def _invalid(root: KittiRoot, facts: Sequence[FrameFacts]) -> Finding:
    voxels = len(facts) * prod(root.grid.shape)
    occupied, invalid, hidden, backwards = (
        sum(getattr(fact, name) for fact in facts) for name in ("occupied", "invalid", "hidden", "backwards")
    )
    scored = voxels - invalid
    share = hidden / max(occupied, 1)
    found = f"{_percent(scored / voxels)} of the voxels are valid, {_percent(occupied / max(scored, 1))} of those solid"
    if not invalid:
        return Finding("invalid", "note", f"{found}: space that no sensor saw counts as empty", "simulate the mask")
    if share > HIDDEN_SHARE and not root.layout.rules.occupied_is_valid:
        found += f", but {_percent(share)} of the solid ones are invalid, which none should be"
        if backwards < hidden / 4:
            return Finding("invalid", "FAULT", found, "pack bits with the most significant first, as np.packbits does")
        if share > 0.5:
            return Finding("invalid", "FAULT", found, "turned round? 1 is invalid, 0 is valid")
        return Finding("invalid", "FAULT", found, "is it of the same frame, grid and axis order as the labels?")
    return Finding("invalid", "ok", found)


def _occluded(facts: Sequence[FrameFacts]) -> list[Finding]:
    there = [fact for fact in facts if fact.unseen is not None]
    unseen, invalid = (sum(getattr(fact, name) for fact in there) for name in ("unseen", "invalid"))
    if not there or not invalid:
        return []
    found = f"{_percent(1 - unseen / invalid)} of the invalid voxels are occluded from the first pose too"
    return [Finding("occluded", "ok" if unseen <= HIDDEN_SHARE * invalid else "note", found)]


def _scan(facts: Sequence[FrameFacts]) -> list[Finding]:
    there = [fact for fact in facts if fact.scanned]
    scanned, labelled = (sum(getattr(fact, name) or 0 for fact in there) for name in ("scanned", "labelled"))
    if not scanned:
        return []
    found = f"{_percent(labelled / scanned)} of the voxels in .bin have a label"
    if labelled >= SCANNED_SHARE * scanned:
        return [Finding("scan", "ok", found)]
    return [
        Finding("scan", "FAULT", found, "is .bin of the same frame and axis order, its most significant bit first?")
    ]


def check_order(root: KittiRoot, keys: Sequence[Key]) -> Finding:
    """Whether neighbours in x, y and z are alike, more so than if the file's axes came in another order."""
    orders = list(itertools.permutations(range(3)))
    raws = [read_raw_labels(root.label_files(*key)[0], root.grid) for key in keys[:ORDER_FRAMES]]
    alike = np.mean([[likeness(reordered(raw, order)) for order in orders] for raw in raws], axis=0)
    # in a grid as long as wide a file with x and y swapped is as smooth: photographs tell those apart
    if alike[0] >= 0.98 * alike.max():
        return Finding("file order", "ok", f"{_percent(alike[0])} of neighbours that aren't both empty are alike")
    likely = [order for order, share in zip(orders, alike, strict=True) if share >= 0.999 * alike.max()]
    names = " or ".join(", ".join("xyz"[axis] for axis in order) for order in likely)
    found = f"{_percent(alike[0])} of neighbours are alike, but {_percent(alike.max())} if the file's axes were {names}"
    return Finding("file order", "FAULT", found, "write x, y, z with z running fastest (C order)")


def reordered(raw: UInt16[np.ndarray, "x y z"], order: Sequence[int]) -> UInt16[np.ndarray, "x y z"]:
    """The voxels as they'd be had the file been written with these axes from slowest to fastest."""
    return raw.reshape([raw.shape[axis] for axis in order]).transpose(np.argsort(order))


def likeness(raw: UInt16[np.ndarray, "x y z"]) -> float:
    """Of all pairs of neighbours that aren't both empty, how many have the same label; the mean of three axes."""
    shares = []
    for axis in range(3):
        first, second = (np.moveaxis(raw, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        busy = (first != EMPTY) | (second != EMPTY)
        shares.append(float((first == second)[busy].mean()) if busy.any() else 1.0)
    return float(np.mean(shares))


def check_up(facts: Sequence[FrameFacts]) -> Finding:
    """Whether the world is solid below rather than above."""
    below = sum(fact.below for fact in facts) / max(sum(fact.occupied for fact in facts), 1)
    found = f"{_percent(below)} of the solid voxels lie in the grid's lower half"
    if below >= SOLID_BELOW:
        return Finding("up", "ok", found)
    return Finding("up", "FAULT", found, "z must grow upwards, and the grid's origin be its lowest corner")


def check_calibration(truth: Truth, keys: Sequence[Key]) -> Finding:
    """Whether lenses fit their images and cameras look at the grid; what P2's fourth column does."""
    for key in keys:
        try:
            fault, remedy = _camera_fault(truth.camera(key), truth.grid)
        except InputError as error:
            return Finding("calibration", "FAULT", str(error))
        if fault:
            return Finding("calibration", "FAULT", f"{'/'.join(key)}: {fault}", remedy)
    camera = truth.camera(keys[0])
    found = f"{camera.width_px}x{camera.height_px}, {_lens_deg(camera):.0f} degrees wide" + _fourth_column(
        truth, keys[0]
    )
    return Finding("calibration", "ok", found)


def _lens_deg(camera: Camera) -> float:
    return float(2 * np.degrees(np.arctan(camera.width_px / 2 / camera.K[0, 0])))


def _camera_fault(camera: Camera, grid: VoxelGrid) -> tuple[str, str]:
    """What is wrong with a camera, and what to do; two empty texts if nothing."""
    place = camera.K[0, 2] / camera.width_px, camera.K[1, 2] / camera.height_px
    same_size = "is the calibration of images of another size? scale K's first two rows with the image"
    if not all(CENTRE[0] < share < CENTRE[1] for share in place):
        return f"the optical axis is at {place[0]:.2f}, {place[1]:.2f} of the image's width and height", same_size
    if not LENS_DEG[0] < _lens_deg(camera) < LENS_DEG[1]:
        return f"a lens {_lens_deg(camera):.0f} degrees wide", same_size
    towards = np.asarray(grid.origin_m) + np.asarray(grid.extent_m) / 2 - camera.centre
    ahead = float(camera.camera_from_world[2, :3] @ towards / max(np.linalg.norm(towards), 1e-9))
    down = float(camera.camera_from_world[1, :3] @ (0, 0, -1))
    if ahead < 0.3 or down < 0.5:
        turned = "Tr must take points from the grid's frame (x ahead, z up) to the camera's (x right, y down, z ahead)"
        return (
            f"the camera looks {ahead:.2f} towards the grid, its lower edge {down:.2f} down (1 would be right)",
            turned,
        )
    nearest = np.clip(camera.centre, grid.origin_m, grid.upper_m)
    if np.linalg.norm(camera.centre - nearest) > OFFSET_M:
        return f"the camera stands at {np.round(camera.centre, 1).tolist()} m", "is Tr inverted, or not in metres?"
    return "", ""


def _fourth_column(truth: Truth, key: Key) -> str:
    """How far projections move if P2's fourth column is dropped, as some trainers do."""
    if truth.form.camera is not read_camera:
        return ""
    points = []
    for full in (True, False):
        camera = read_camera(truth.path, *key, full_projection=full)
        pixels, depth = camera.project(truth.grid.centres()[::2, ::2, ::2])
        points.append(np.where(camera.sees(pixels, depth)[..., None], pixels, np.nan))
    apart = np.linalg.norm(points[0] - points[1], axis=-1)
    apart = apart[np.isfinite(apart)]
    if not apart.size or not apart.max() > 1e-6:
        return "; P2's fourth column is zero"
    return f"; P2's fourth column is used: without it voxels move by {apart.mean():.1f} px, {apart.max():.0f} at most"


def check_view(truth: Truth, keys: Sequence[Key], read: Callable[[Key], Bool[np.ndarray, "x y z"]]) -> Finding:
    """How much of what is solid (read(key)) projects onto the image."""
    seen = solid = 0
    inside = 0.0
    for key in keys:
        view = in_view(truth.camera(key), truth.grid)
        occupied = read(key)
        seen, solid, inside = seen + int((view & occupied).sum()), solid + int(occupied.sum()), inside + view.mean()
    share = seen / max(solid, 1)
    found = f"{_percent(share)} of the solid voxels and {_percent(inside / len(keys))} of all are in view"
    if share >= SEEN_SHARE:
        return Finding("in view", "ok", found)
    return Finding("in view", "FAULT", found, "check Tr, the image's size, and the grid's origin_m")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
