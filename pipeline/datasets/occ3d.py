"""Occ3D-nuScenes: ROOT/gts/<scene>/<token>/labels.npz and ROOT/annotations.json, read and written.

labels.npz holds semantics, mask_lidar and mask_camera, uint8 (200, 200, 16) over (x, y, z): 0.4 m from (-40, -40, -1) m
in the ego frame, 17 = free. The benchmark scores where mask_camera == 1, so that is `valid` unless asked otherwise.
annotations.json lists train_split and val_split (scene names) and scene_infos (scene -> token -> its record).
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from pipeline.datasets.checked_files import read_bounded
from pipeline.datasets.npy_arrays import bytes_array, parse_bytes_array
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_atomic, write_json
from pipeline.scene.grid import VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import IGNORE, Taxonomy, load_taxonomy

Mask = Literal["camera", "lidar", "none"]
OCC3D_GRID = VoxelGrid((200, 200, 16), 0.4, (-40.0, -40.0, -1.0))
ARRAYS = ("semantics", "mask_lidar", "mask_camera")
LARGEST_FILE = 1 << 22  # bytes, packed; a real one has some 30 kB
LARGEST_ARRAY = 1 << 20  # bytes, unpacked; a real one has 640,128
LARGEST_ANNOTATIONS = 1 << 28  # bytes; the published file has some hundred MB
LARGEST_LIST = 1 << 20  # bytes of a split's list; the published one has 8 kB


@dataclass(frozen=True, eq=False)
class Occ3dFrame:
    """A frame's three arrays as stored: raw semantics (0..17), masks 0 or 1."""

    semantics: UInt8[np.ndarray, "x y z"]
    mask_lidar: UInt8[np.ndarray, "x y z"]
    mask_camera: UInt8[np.ndarray, "x y z"]


@dataclass(frozen=True, eq=False)
class Occ3dRoot:
    """A dataset on disk: tokens by scene, scenes by split; mask: where voxels are valid."""

    path: Path
    mask: Mask
    grid: VoxelGrid
    taxonomy: Taxonomy
    sequences: Mapping[str, tuple[str, ...]]
    splits: Mapping[str, tuple[str, ...]]

    def frames(self, split: str) -> tuple[tuple[str, str], ...]:
        """(scene, token) of a split in order. Raises InputError on an unknown split."""
        if split not in self.splits:
            raise InputError(self.path, f"a split of {', '.join(self.splits)}", repr(split))
        return tuple((s, token) for s in self.splits[split] for token in self.sequences[s])

    def label_files(self, sequence: str, frame: str) -> tuple[Path, ...]:
        """The file that a frame's labels come from."""
        return (safe_join(self.path, f"gts/{sequence}/{frame}/labels.npz"),)

    def scene(self, sequence: str, frame: str) -> Scene:
        """A frame as a Scene. Raises InputError."""
        if frame not in self.sequences.get(sequence, ()):
            raise InputError(self.path, "a frame of the dataset", f"{sequence}/{frame}")
        (path,) = self.label_files(sequence, frame)
        stored = read_occ3d_frame(path)
        labels = self.taxonomy.from_raw(stored.semantics, path)
        if self.mask != "none":
            seen = stored.mask_camera if self.mask == "camera" else stored.mask_lidar
            labels = np.where(seen == 1, labels, np.uint8(IGNORE))
        provenance = {"source": "occ3d", "sequence": sequence, "frame": frame, "mask": self.mask}
        return Scene(labels, self.grid, self.taxonomy, provenance)


def open_occ3d(root: Path, mask: Mask = "camera") -> Occ3dRoot:
    """Enumerate a root's scenes and tokens; no voxels are read. Raises InputError.

    Without annotations.json every scene is in split "all".
    """
    root = Path(root)
    folder = safe_join(root, "gts")
    if not folder.is_dir():
        raise InputError(root, "an Occ3D root, which holds gts/", "none", "give the folder above gts")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    tokens = {name: tuple(sorted(p.parent.name for p in (folder / name).glob("*/labels.npz"))) for name in names}
    sequences = {name: found for name, found in tokens.items() if found}
    if not sequences:
        raise InputError(folder, "frames <scene>/<token>/labels.npz", "none")
    return Occ3dRoot(root, mask, OCC3D_GRID, load_taxonomy("occ3d"), sequences, _read_splits(root, sequences))


def _read_splits(root: Path, sequences: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    path = safe_join(root, "annotations.json")
    if not path.exists():
        return {"all": tuple(sequences)}
    content = read_bounded(path, "Occ3D's annotations", LARGEST_ANNOTATIONS)
    splits = {split: _read_names(content, f"{split}_split", path) for split in ("train", "val")}
    twice = sorted(set(splits["train"]) & set(splits["val"]))
    if twice:
        raise InputError(path, "a scene in one split only", f"{twice[0]!r} in two")
    return {split: tuple(name for name in dict.fromkeys(names) if name in sequences) for split, names in splits.items()}


def _read_names(content: bytes, key: str, path: Path) -> list[str]:
    """A list of names under a key. The rest of annotations.json, poses by the hundred MB, isn't parsed."""
    start = content.find(b'"%s"' % key.encode())
    opening = re.compile(rb'"\w+"\s{0,9}:\s{0,9}(?=\[)').match(content, max(start, 0)) if start >= 0 else None
    text = content[opening.end() : content.find(b"]", opening.end()) + 1][:LARGEST_LIST] if opening else b""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(path, f"{key}, a list of scenes", f"{text[:80]!r}" if text else "none")
    return names


def read_occ3d_frame(path: Path) -> Occ3dFrame:
    """labels.npz; sizes are checked before anything is unpacked, and no pickle is read. Raises InputError."""
    content = read_bounded(path, "labels.npz", LARGEST_FILE)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = {name: _read_array(archive, path, name) for name in ARRAYS}
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise InputError(path, "an .npz archive", str(error)) from None
    if max(arrays["mask_lidar"].max(), arrays["mask_camera"].max()) > 1:
        raise InputError(path, "masks of 0 and 1", "another value")
    return Occ3dFrame(**arrays)


def _read_array(archive: zipfile.ZipFile, path: Path, name: str) -> UInt8[np.ndarray, "x y z"]:
    entry = archive.NameToInfo.get(f"{name}.npy")
    if entry is None:
        raise InputError(path, f"an array {name}", f"{', '.join(archive.namelist())}"[:200])
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA's header alone can ask for 4 GB
        raise InputError(path, f"{name} stored or deflated", f"compression {entry.compress_type}")
    if entry.file_size > LARGEST_ARRAY:
        raise InputError(path, f"{name} of at most {LARGEST_ARRAY} bytes", f"{entry.file_size}")
    with archive.open(entry) as member:
        array = parse_bytes_array(member.read(LARGEST_ARRAY), f"{path} {name}")
    if array.shape != OCC3D_GRID.shape:
        raise InputError(path, f"{name}: uint8 {OCC3D_GRID.shape}", f"{array.shape}")
    return array


def write_occ3d_frame(root: Path, sequence: str, token: str, frame: Occ3dFrame) -> str:
    """Write labels.npz with fixed times, so that the same arrays give the same bytes; the path, relative to ROOT."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ARRAYS:
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, bytes_array(getattr(frame, name)))
    path = f"gts/{sequence}/{token}/labels.npz"
    write_atomic(safe_join(root, path), buffer.getvalue())
    return path


def occ3d_frame(scene: Scene) -> Occ3dFrame:
    """A scene's arrays: both masks are its valid voxels, ignored ones are written as free. Raises InputError."""
    if scene.grid.shape != OCC3D_GRID.shape:
        raise InputError("scene", f"Occ3D's grid {OCC3D_GRID.shape}", f"{scene.grid.shape}")
    semantics = scene.taxonomy.to_raw(scene.labels, ignore_raw=scene.taxonomy.raw_ids[0]).astype(np.uint8)
    valid = scene.valid.astype(np.uint8)
    return Occ3dFrame(semantics, valid, valid)


def frame_records(sequence: str, tokens: Sequence[str]) -> dict[str, dict[str, str]]:
    """The records of annotations.json that a scene without cameras and poses has: its files, in order."""
    around = ["", *tokens, ""]
    return {
        token: {"gt_path": f"gts/{sequence}/{token}/labels.npz", "prev": before, "next": after}
        for before, token, after in zip(around, tokens, around[2:], strict=False)
    }


def write_occ3d_annotations(
    root: Path, splits: Mapping[str, tuple[str, ...]], infos: Mapping[str, Mapping[str, Any]]
) -> str:
    """Write annotations.json: splits train and val by scene, infos: scene -> token -> record; the path written."""
    table = {f"{split}_split": list(splits.get(split, ())) for split in ("train", "val")}
    scene_infos = {scene: {token: dict(record) for token, record in found.items()} for scene, found in infos.items()}
    write_json(safe_join(root, "annotations.json"), {**table, "scene_infos": scene_infos})
    return "annotations.json"
