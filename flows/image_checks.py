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
from flows.viewing import cameras_of
from pipeline.scene.errors import InputError
from pipeline.scene.files import write_json

STATISTICS = "image_statistics.json"
MAX_SIZE_DIFFERENCE = 0.1  # of a camera's size from the critic's; KITTI's own differ by 2 %


def check_images(recipe: BuildRecipe) -> None:
    """Weights, sizes and words of the recipe's images, before hours of other stages. Raises InputError."""
    if not isinstance(recipe.images, ControlNetImages):
        return
    from flows.image_weights import check_weights

    check_weights(recipe.images, source_taxonomy(recipe))
    if recipe.images.critic is not None:
        _check_judged_size(recipe, recipe.images.critic)


def _check_judged_size(recipe: BuildRecipe, critic: Path) -> None:
    """A critic's thresholds hold for images about as large as the photographs they come from. Raises InputError."""
    from flows.image_judge import judge_size

    height, width = judge_size(critic)
    for name, camera in cameras_of(recipe, 0).items():
        if max(abs(camera.width_px / width - 1), abs(camera.height_px / height - 1)) > MAX_SIZE_DIFFERENCE:
            found = f"{camera.width_px} x {camera.height_px}"
            remedy = "set views.width_px and views.height_px, or train a critic at this size"
            raise InputError(f"camera {name}", f"about {width} x {height} px, as {critic} was trained", found, remedy)


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
