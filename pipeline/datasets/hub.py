"""Parquet shards for `datasets`: a row a sample, its columns as parquet_columns.py lists them.

Labels are uint8 in C order over (x, y, z); invalid, occluded and scan are their bits, packed eight to a byte; both are
zlib streams.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.datasets.export_sample import KINDS, MASKS, ExportSample
from pipeline.datasets.parquet_columns import arrow_schema
from pipeline.scene.files import atomic_path

ROWS_A_GROUP = 16  # a reader holds one group: some 25 MB at KITTI's size


def write_parquet(path: Path, samples: Iterable[ExportSample], cameras: Sequence[str]) -> None:
    """Write one shard, whole or not at all; the same samples give the same bytes with one version of pyarrow.

    cameras: suffixes ("2", "left") that have columns, the same in all shards of a dataset.
    """
    import pyarrow
    import pyarrow.parquet

    schema, rows = arrow_schema(cameras), (_row(sample, cameras) for sample in samples)
    settings = {"compression": "zstd", "use_dictionary": False, "write_statistics": ["name", "scene"]}
    with atomic_path(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema, **settings) as writer:
        while group := list(itertools.islice(rows, ROWS_A_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _row(sample: ExportSample, cameras: Sequence[str]) -> dict[str, Any]:
    note, grid = sample.note(), sample.frame.grid
    row = {key: note[key] for key in ("name", "scene", "class_voxels", "ignored_voxels", "prompt", "accepted")}
    row |= {"grid_shape": grid.shape, "voxel_size_m": grid.voxel_size_m, "origin_m": grid.origin_m}
    row["provenance"] = json.dumps(note["provenance"], sort_keys=True, allow_nan=False)
    row["labels"] = packed_labels(sample.frame.scene().labels)
    for name in MASKS:
        mask = getattr(sample.frame, name)
        row[name] = None if mask is None else packed_mask(mask)
    for suffix in cameras:
        for kind in KINDS:
            picture = sample.pictures.get(f"{kind}_{suffix}")
            row[f"{kind}_{suffix}"] = picture and {"bytes": picture, "path": None}
        camera = sample.cameras.get(suffix)
        row[f"K_{suffix}"] = camera and camera.K.ravel().tolist()
        row[f"camera_from_velodyne_{suffix}"] = camera and camera.camera_from_world.ravel().tolist()
    return row


def packed_labels(labels: UInt8[np.ndarray, "x y z"]) -> bytes:
    return zlib.compress(np.ascontiguousarray(labels).tobytes(), 6)


def packed_mask(mask: Bool[np.ndarray, "x y z"]) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), 6)
