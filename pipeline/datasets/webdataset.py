"""WebDataset: tar shards that webdataset, or any tar, reads in order: a sample's members stand together under its key.

    KEY.image_2.png  KEY.depth_2.png  KEY.semantics_2.png  (and those of further cameras)
    KEY.voxels.npz   labels, invalid, occluded, scan: uint8 (x, y, z), labels 255 where not scored
    KEY.json         split, scene, taxonomy, grid, cameras, class_voxels, prompt, accepted, provenance

KEY is sequence_frame. Written with tarfile and fixed times, owners and order: webdataset's own writer puts the clock
into every header, and its ShardWriter begins with an empty shard.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.datasets.export_sample import ExportSample
from pipeline.scene.files import atomic_path


def write_shard(path: Path, samples: Iterable[ExportSample]) -> None:
    """Write one tar, whole or not at all; the same samples give the same bytes."""
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for name, content in members(sample):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
                tar.addfile(entry, io.BytesIO(content))


def members(sample: ExportSample) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a sample's members, in order."""
    key = sample_key(sample.name)
    for folder, content in sample.pictures.items():
        yield f"{key}.{folder}.png", content
    yield f"{key}.voxels.npz", packed(sample.arrays())
    yield f"{key}.json", json.dumps(sample.note(), sort_keys=True, allow_nan=False).encode()


def sample_key(name: str) -> str:
    """What a sample is called in a tar: no slash, and no dot, which would end it."""
    return name.replace("/", "_").replace(".", "-")


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as a compressed .npz; numpy gives its entries a fixed time."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
