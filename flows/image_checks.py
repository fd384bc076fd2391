"""A build's images before its first stage and after its last: what would fail is found at once, rejects are counted.

Nothing here imports torch unless a recipe draws images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.recipes import BuildRecipe, ControlNetImages
from flows.sources import source_taxonomy
from pipeline.scene.files import write_json

STATISTICS = "image_statistics.json"


def check_images(recipe: BuildRecipe) -> None:
    """Weights, sizes and words of the recipe's images, before hours of other stages. Raises InputError."""
    if not isinstance(recipe.images, ControlNetImages):
        return
    from flows.image_weights import check_weights

    check_weights(recipe.images, source_taxonomy(recipe))


def write_image_statistics(out: Path, provenances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write how many draws the critic rejected, by class in view; the paths written, none where it judged nothing."""
    notes = [note for p in provenances if "image" in p for note in (p["image"], *p.get("images", {}).values())]
    rows = [row for note in notes for row in note.get("outcomes", ())]
    if not rows:
        return []
    from pipeline.images.fidelity import Outcome, reject_rates

    judged = [p for p in provenances if "accepted" in p]
    rates = reject_rates([Outcome(tuple(row["in_view"]), row["accepted"], tuple(row["blamed"])) for row in rows])
    table = {
        "samples": len(judged),
        "accepted": sum(p["accepted"] for p in judged),
        "draws": asdict(rates.pop("")),
        "classes": {name: asdict(rate) for name, rate in rates.items()},
    }
    write_json(out / STATISTICS, table)
    return [STATISTICS]
