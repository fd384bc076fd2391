"""SemanticKITTI's semantic scene completion layout, read and written.

    ROOT/sequences/XX/voxels/NNNNNN.{bin,label,invalid,occluded}   image_2/NNNNNN.{png,jpg}   depth_2/NNNNNN.png
                      velodyne/NNNNNN.bin   labels/NNNNNN.label    calib.txt   poses.txt   times.txt

Frames are those that lie on disk. Three additions to the published layout, each optional, which a stock loader
doesn't see: `ROOT/grid.json` {shape, voxel_size_m, origin_m} where the grid isn't the published one, `ROOT/splits.json`
{split: [sequence, ...]} where the splits aren't, and `calib/NNNNNN.txt` in a sequence, a frame's own calibration where
cameras differ from frame to frame (the object benchmark also keeps a file a frame); calib.txt is then the nominal one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from pipeline.datasets.checked_files import read_json
from pipeline.datasets.image_files import image_size, read_depth, read_image
from pipeline.datasets.kitti_calibration import Calibration, read_calibration, write_calibration
from pipeline.datasets.voxel_files import read_point_labels, read_points
from pipeline.datasets.voxel_frames import Frame, read_voxels, write_voxels
from pipeline.scene.camera import Camera
from pipeline.scene.errors import InputError
from pipeline.scene.files import safe_join, write_json
from pipeline.scene.grid import SEMANTIC_KITTI_GRID, VoxelGrid
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import Taxonomy, load_taxonomy

PUBLISHED_SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
        "val": ("08",),
        "test": tuple(f"{n:02d}" for n in range(11, 22)),
    }
)
GRID_NAME, SPLITS_NAME = "grid.json", "splits.json"
LARGEST_GRID = 1 << 26  # voxels; the published grid has 2^21
_FRAME = re.compile(r"(\d{1,10})\.(bin|label)")
_SEQUENCE = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class KittiSequence:
    """Frames with voxel files, sorted, and those of them that have labels."""

    frames: tuple[str, ...]
    labelled: frozenset[str]


@dataclass(frozen=True, eq=False)
class KittiRoot:
    """A dataset on disk: its grid and classes, sequences by name, and sequence names by split."""

    path: Path
    grid: VoxelGrid
    taxonomy: Taxonomy
    sequences: Mapping[str, KittiSequence]
    splits: Mapping[str, tuple[str, ...]]

    def frames(self, split: str) -> tuple[tuple[str, str], ...]:
        """(sequence, frame) of a split in order. Raises InputError on an unknown split."""
        if split not in self.splits:
            raise InputError(self.path, f"a split of {', '.join(self.splits)}", repr(split))
        return tuple((s, f) for s in self.splits[split] for f in self.sequences[s].frames)

    def split_of(self, sequence: str) -> str:
        """The split that a sequence belongs to, "" if none."""
        return next((name for name, members in self.splits.items() if sequence in members), "")

    def scene(self, sequence: str, frame: str) -> Scene:
        """A labelled frame as a Scene. Raises InputError."""
        return read_frame(self, sequence, frame).scene()

    def label_files(self, sequence: str, frame: str) -> tuple[Path, ...]:
        """The files that a frame's labels come from."""
        return tuple(frame_path(self, sequence, "voxels", f"{frame}.{suffix}") for suffix in ("label", "invalid"))


def frame_path(root: KittiRoot | Path, sequence: str, folder: str, name: str) -> Path:
    """`ROOT/sequences/<sequence>/<folder>/<name>`, kept inside ROOT. Raises InputError."""
    base = root.path if isinstance(root, KittiRoot) else Path(root)
    return safe_join(base, "/".join(part for part in ("sequences", sequence, folder, name) if part))


def open_root(root: Path, taxonomy: str = "semantic_kitti") -> KittiRoot:
    """Enumerate a root's sequences, frames and splits; no voxel file is read. Raises InputError."""
    root = Path(root)
    folder = safe_join(root, "sequences")
    if not folder.is_dir():
        raise InputError(
            root, "a SemanticKITTI root, which holds sequences/", "none", "give the folder above sequences"
        )
    names = sorted(p.name for p in folder.iterdir() if _SEQUENCE.fullmatch(p.name))
    found = {name: _enumerate(root, name) for name in names if frame_path(root, name, "voxels", "").is_dir()}
    sequences = {name: sequence for name, sequence in found.items() if sequence.frames}
    if not sequences:
        raise InputError(folder, "frames in */voxels/NNNNNN.{bin,label}", "none")
    return KittiRoot(root, _read_grid(root), load_taxonomy(taxonomy), sequences, _read_splits(root, sequences))


def _enumerate(root: Path, name: str) -> KittiSequence:
    found = [m for p in frame_path(root, name, "voxels", "").iterdir() if (m := _FRAME.fullmatch(p.name))]
    labelled = frozenset(m[1] for m in found if m[2] == "label")
    return KittiSequence(tuple(sorted({m[1] for m in found})), labelled)


def _read_grid(root: Path) -> VoxelGrid:
    path = safe_join(root, GRID_NAME)
    if not path.exists():
        return SEMANTIC_KITTI_GRID
    table = read_json(path, "a voxel grid")
    try:
        x, y, z = (_integer(n) for n in table["shape"])
        ox, oy, oz = (float(v) for v in table["origin_m"])
        grid = VoxelGrid((x, y, z), float(table["voxel_size_m"]), (ox, oy, oz))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(path, "shape, voxel_size_m and origin_m of a grid", f"{error!r}") from None
    if x * y * z > LARGEST_GRID or not grid.voxel_size_m < 1e6 or np.abs(grid.origin_m).max() > 1e9:
        raise InputError(path, f"a grid of at most {LARGEST_GRID} voxels and sane lengths", f"{table}"[:200])
    return grid


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no integer")
    return value


def _read_splits(root: Path, sequences: Mapping[str, KittiSequence]) -> dict[str, tuple[str, ...]]:
    path = safe_join(root, SPLITS_NAME)
    if not path.exists():
        return {split: tuple(s for s in members if s in sequences) for split, members in PUBLISHED_SPLITS.items()}
    table = read_json(path, "splits")
    if not isinstance(table, dict) or not all(_is_names(members) for members in table.values()):
        raise InputError(path, "{split: [sequence, ...]}", f"{table!r}"[:200])
    listed = [name for members in table.values() for name in members]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise InputError(path, "a sequence in one split only", f"{twice[0]!r} in two")
    absent = sorted(set(listed) - set(sequences))
    if absent:
        raise InputError(path, "sequences that lie on disk", f"{absent[0]!r}")
    return {split: tuple(members) for split, members in table.items()}


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def read_frame(root: KittiRoot, sequence: str, frame: str) -> Frame:
    """A frame's voxel files. Sequences without any .label (test) give frames without labels. Raises InputError."""
    known = _known_sequence(root, sequence)
    if frame not in known.frames:
        raise InputError(root.path, f"a frame of sequence {sequence}", repr(frame))
    if known.labelled and frame not in known.labelled:
        path = frame_path(root, sequence, "voxels", f"{frame}.label")
        raise InputError(path, "a label for every frame of a labelled sequence", "no such file")
    provenance = {"source": root.taxonomy.name, "split": root.split_of(sequence), "sequence": sequence, "frame": frame}
    empty = Frame(sequence, frame, root.grid, root.taxonomy, provenance=provenance)
    return read_voxels(root.path, f"sequences/{sequence}/voxels", empty, labelled=bool(known.labelled))


def _known_sequence(root: KittiRoot, sequence: str) -> KittiSequence:
    if sequence not in root.sequences:
        raise InputError(root.path, f"a sequence of {', '.join(root.sequences)}", repr(sequence))
    return root.sequences[sequence]


def write_frame(root: Path, frame: Frame) -> list[str]:
    """Write a frame's voxel files under ROOT; the paths written, relative to ROOT. See `write_voxels`."""
    return write_voxels(root, f"sequences/{frame.sequence}/voxels", frame)


def write_layout(root: Path, grid: VoxelGrid, splits: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Write grid.json (unless it's the published grid) and splits.json (if given); the paths written."""
    written = []
    if grid != SEMANTIC_KITTI_GRID:
        table = {"shape": list(grid.shape), "voxel_size_m": grid.voxel_size_m, "origin_m": list(grid.origin_m)}
        write_json(root / GRID_NAME, table)
        written.append(GRID_NAME)
    if splits is not None:
        write_json(root / SPLITS_NAME, {name: list(members) for name, members in splits.items()})
        written.append(SPLITS_NAME)
    return written


def image_path(root: KittiRoot | Path, sequence: str, frame: str, folder: str = "image_2") -> Path:
    """The frame's .png, or its .jpg where there is no .png. Raises InputError where there is neither."""
    for suffix in (".png", ".jpg"):
        path = frame_path(root, sequence, folder, frame + suffix)
        if path.exists():
            return path
    raise InputError(frame_path(root, sequence, folder, f"{frame}.png"), "a PNG or JPEG image", "no such file")


def read_sequence_calibration(root: KittiRoot | Path, sequence: str, frame: str = "") -> Calibration:
    """A frame's own calibration if it has one, else the sequence's calib.txt. Raises InputError."""
    own = frame_path(root, sequence, "calib", f"{frame}.txt")
    return read_calibration(own if frame and own.exists() else frame_path(root, sequence, "", "calib.txt"))


def read_camera(
    root: KittiRoot | Path,
    sequence: str,
    frame: str,
    *,
    size_px: tuple[int, int] | None = None,
    full_projection: bool = True,
) -> Camera:
    """Camera 2 in the velodyne frame; its (width, height) is the image file's unless given. Raises InputError."""
    calibration = read_sequence_calibration(root, sequence, frame)
    size = size_px or image_size(image_path(root, sequence, frame))
    return calibration.camera(size, full_projection=full_projection)


def write_frame_calibration(root: Path, sequence: str, frame: str, calibration: Calibration) -> str:
    """Write a frame's own calibration; the path written, relative to ROOT."""
    path = frame_path(root, sequence, "calib", f"{frame}.txt")
    write_calibration(path, calibration)
    return path.relative_to(root).as_posix()


def read_frame_image(root: KittiRoot | Path, sequence: str, frame: str) -> UInt8[np.ndarray, "h w 3"]:
    """The frame's RGB image. Raises InputError."""
    return read_image(image_path(root, sequence, frame))


def read_frame_depth(root: KittiRoot | Path, sequence: str, frame: str) -> Float32[np.ndarray, "h w"]:
    """The frame's depth [m], 0 where there is none. Raises InputError."""
    return read_depth(frame_path(root, sequence, "depth_2", f"{frame}.png"))


def read_scan(root: KittiRoot | Path, sequence: str, scan: str) -> Float32[np.ndarray, "n 4"]:
    """A lidar scan: x, y, z [m, velodyne frame], reflectance. Raises InputError."""
    return read_points(frame_path(root, sequence, "velodyne", f"{scan}.bin"))


def read_scan_labels(
    root: KittiRoot, sequence: str, scan: str, points: int | None = None
) -> tuple[UInt16[np.ndarray, "n"], UInt16[np.ndarray, "n"]]:
    """Raw ids and instances of a scan's points. Raises InputError."""
    return read_point_labels(frame_path(root, sequence, "labels", f"{scan}.label"), root.taxonomy, points)
