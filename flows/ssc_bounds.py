"""`ssc bounds`: how much of a dataset's scenes one image can tell, as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.ssc_recipes import ssc_recipe
from ssc_eval.bounds import bounds
from ssc_eval.metrics import ALL, IN_VIEW, region_scores
from ssc_eval.prior import prior_of
from ssc_eval.samples import Source, SscDataset

HEADER = "| known | IoU | mIoU | precision | recall | IoU in view |\n| --- | ---: | ---: | ---: | ---: | ---: |\n"
ROWS = {
    "prior": "nothing: the prior of the training frames",
    "sight": "what is seen; the prior elsewhere",
    "sight_and_one": "what is seen, and a voxel's depth behind",
    "view": "all in view, hidden or not",
}


def bounds_of(root: Path, split: str, frames: int | None, progress: Callable[[int, int], None]) -> str:
    """The table in Markdown. Raises InputError."""
    recipe = ssc_recipe("small", (Source(root=root),))
    train = SscDataset(recipe.sources, recipe.samples, 0, recipe.network)
    held_out = SscDataset((Source(root=root, split=split, frames=frames),), recipe.samples, 0, recipe.network)
    found = bounds(prior_of(train), held_out, progress)
    text = f"{root}, split {split}: {len(held_out.keys)} frames, in percent\n\n{HEADER}"
    for name, caption in ROWS.items():
        tally = getattr(found, name)
        whole, view = (region_scores(tally.of(region), held_out.taxonomy.classes) for region in (ALL, IN_VIEW))
        cells = [*(whole[key] for key in ("iou", "miou", "precision", "recall")), view["iou"]]
        text += f"| {caption} | {' | '.join(f'{100 * cell:.2f}' for cell in cells)} |\n"
    shares = [
        f"{100 * share:.1f} % {name}" for name, share in zip(("seen", "hidden", "out of view"), found[4:], strict=True)
    ]
    return f"{text}\nOf the occupied voxels {', '.join(shares)}.\n"
