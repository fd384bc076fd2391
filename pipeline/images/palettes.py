"""Palettes: the colour that each class, the sky and the plain have in one photograph, so its light and weather.

A render in a photograph's colours tells a ControlNet nearly all that labels don't; which photograph of those learned
from lends its colours is drawn for each image, and images of one scene differ by it. A palette is (k + 1, 3) uint8 for
k classes: row 0, the empty class's, is the sky, the last row the plain beyond the grid. They lie in the ControlNet's
folder, which diffusers opens as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float64, Integer, UInt8

from pipeline.scene.errors import InputError
from pipeline.scene.files import write_json

NAME, FORMAT = "palettes.json", "occfactory-palettes-1"
Palette = UInt8[np.ndarray, "r 3"]


@dataclass(frozen=True, eq=False)
class Palettes:
    """Those of n photographs. classes: names by id, empty first."""

    classes: tuple[str, ...]
    colours: UInt8[np.ndarray, "n r 3"]

    def drawn(self, seed: int) -> Palette:
        """One of them, by its seed alone."""
        return self.colours[np.random.default_rng(seed).integers(len(self.colours))]

    def write(self, folder: Path) -> None:
        """Beside a ControlNet's weights."""
        table = {"format": FORMAT, "classes": list(self.classes), "colours": self.colours.tolist()}
        write_json(Path(folder) / NAME, table)

    @classmethod
    def read(cls, folder: Path, classes: Sequence[str]) -> Self:
        """What `write` left in a ControlNet's folder. Raises InputError: none, damaged, or of other classes."""
        path = Path(folder) / NAME
        try:
            table: Any = json.loads(path.read_text())
            colours = np.array(table["colours"])
            good = (
                table["format"] == FORMAT and colours.dtype.kind == "i" and colours.ndim == 3 and colours.shape[0] > 0
            )
            good &= colours.shape[1:] == (len(table["classes"]) + 1, 3) and 0 <= colours.min() <= colours.max() <= 255
            names = tuple(table["classes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            remedy = "take control.parts without palette, or a ControlNet that was trained with them"
            raise InputError(path, "the palettes that the ControlNet was trained with", str(error), remedy) from None
        if not good:
            raise InputError(path, "colours (n, classes + 1, 3) in 0..255", f"{colours.shape} of {colours.dtype}")
        if names != tuple(classes):
            raise InputError(path, f"palettes of {len(classes)} classes, {classes[1]} first", f"{len(names)} others")
        return cls(names, colours.astype(np.uint8))


def mean_colours(
    regions: Integer[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w 3"], rows: int
) -> Float64[np.ndarray, "r 3"]:
    """Each region's mean colour, not a number where the image has none of it. regions: rows of the palette."""
    counts = np.bincount(regions.ravel(), minlength=rows)
    sums = [np.bincount(regions.ravel(), image[..., channel].ravel(), minlength=rows) for channel in range(3)]
    with np.errstate(invalid="ignore"):
        return np.stack(sums, axis=1) / counts[:, None]


def whole_palettes(classes: Sequence[str], measured: Iterable[Float64[np.ndarray, "r 3"]]) -> Palettes:
    """Palettes of photographs, with what one doesn't show as the others have it, as much brighter as it is itself.

    measured: mean_colours of each photograph. Raises InputError on none.
    """
    found = np.array(list(measured))  # (n, r, 3)
    if not len(found):
        raise InputError("palettes", "at least one photograph", "none")
    known = ~np.isnan(found)
    usual = _mean(found, known, axis=0)  # (1, r, 3)
    usual = np.where(np.isnan(usual), _mean(usual, ~np.isnan(usual), axis=1), usual)
    offset = _mean(found - usual, known, axis=1)  # (n, 1, 3)
    whole = np.where(known, found, usual + np.nan_to_num(offset))
    return Palettes(tuple(classes), np.clip(np.round(whole), 0, 255).astype(np.uint8))


def _mean(values: np.ndarray, known: np.ndarray, axis: int) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=axis, keepdims=True) / known.sum(axis=axis, keepdims=True)
