"""Columns of a Parquet export: their types as pyarrow, as `datasets` and as a dataset card call them, and in words.

Pictures are Image columns (PNG bytes); occupancy is zlib-compressed bytes, since array columns take seconds to read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Column:
    """A column's type, and what it holds in words."""

    name: str
    kind: str  # string, bool, int64, float64, binary, image, or list:<one of them>
    holds: str

    @property
    def item(self) -> str:
        """The type of a list's items, or the column's own."""
        return self.kind.removeprefix("list:")

    @property
    def is_list(self) -> bool:
        return self.kind.startswith("list:")


def columns(cameras: Sequence[str]) -> list[Column]:
    """All columns in order. cameras: suffixes ("2", "left") of the cameras that have images."""
    found = [
        Column("name", "string", "sequence/frame"),
        Column("scene", "string", "the scene that it shows a part of; none is in two splits"),
    ]
    for suffix in cameras:
        found += [
            Column(f"image_{suffix}", "image", "the RGB image"),
            Column(f"depth_{suffix}", "image", "16-bit depth along the optical axis, metres x 256, 0 = none"),
            Column(f"semantics_{suffix}", "image", "class ids of pixels, 0 = none"),
            Column(f"K_{suffix}", "list:float64", "3x3 intrinsics [px], row by row; (0, 0) is a pixel's centre"),
            Column(f"camera_from_velodyne_{suffix}", "list:float64", "4x4 pose [m], row by row"),
        ]
    return [
        *found,
        Column("grid_shape", "list:int64", "voxels along x (forward), y (left), z (up)"),
        Column("voxel_size_m", "float64", "edge of a voxel [m]"),
        Column("origin_m", "list:float64", "lowest corner of the grid [m]"),
        Column("labels", "binary", "zlib: uint8 class ids in C order over (x, y, z), 255 = not scored"),
        Column("invalid", "binary", "zlib: bits, 1 = never seen"),
        Column("occluded", "binary", "zlib: bits, 1 = not seen from the frame's own pose"),
        Column("scan", "binary", "zlib: bits, 1 = occupied in the input scan"),
        Column("class_voxels", "list:int64", "valid voxels by class id"),
        Column("ignored_voxels", "int64", "voxels labelled 255"),
        Column("prompt", "string", "the image's prompt, where one was used"),
        Column("accepted", "bool", "whether the image passed its structure check, where there was one"),
        Column("provenance", "string", "JSON: source, seeds, accept scores"),
    ]


def arrow_schema(cameras: Sequence[str]) -> pyarrow.Schema:
    """The columns for pyarrow, with the features that `datasets` reads from a file's metadata."""
    import pyarrow

    found = columns(cameras)
    info = {"info": {"features": {column.name: _feature(column) for column in found}}}
    fields = [pyarrow.field(column.name, _arrow(column)) for column in found]
    return pyarrow.schema(fields, metadata={"huggingface": json.dumps(info)})


def card_features(cameras: Sequence[str]) -> list[dict[str, str]]:
    """The columns as a dataset card's front matter lists them."""
    return [{"name": column.name, "list" if column.is_list else "dtype": column.item} for column in columns(cameras)]


def _arrow(column: Column) -> pyarrow.DataType:
    import pyarrow

    if column.kind == "image":
        return pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    item = {"bool": pyarrow.bool_}.get(column.item) or getattr(pyarrow, column.item)
    return pyarrow.list_(item()) if column.is_list else item()


def _feature(column: Column) -> dict[str, Any]:
    if column.kind == "image":
        return {"_type": "Image"}
    item = {"dtype": column.item, "_type": "Value"}
    return {"feature": item, "_type": "List"} if column.is_list else item
