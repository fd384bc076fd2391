"""Intermediate files between stages: arrays in uncompressed .npz with fixed times, JSON beside them inside."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.scene.errors import InputError
from pipeline.scene.files import atomic_path


def write_payload(path: Path, arrays: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> None:
    """Write arrays and a JSON note; the same content gives the same bytes."""
    text = np.frombuffer(json.dumps(note, sort_keys=True, allow_nan=False).encode(), np.uint8)
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays, note=text)


def read_payload(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_payload` wrote. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays, json.loads(arrays.pop("note").tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(path, "an intermediate file of this build", str(error), "delete it and build again") from None
