"""`ssc check`: is a root fit for training? Labels, masks, calibration, axes; then whether one frame can be learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.ssc_check_axes import Shown, check_axes, overlay_sheet, shown_frames
from flows.ssc_check_files import (
    Finding,
    FrameFacts,
    check_calibration,
    check_images,
    check_labels,
    check_masks,
    check_order,
    check_up,
    check_view,
    frame_facts,
)
from pipeline.datasets.image_files import write_image
from pipeline.datasets.kitti_root import KittiRoot
from pipeline.scene.errors import InputError
from ssc_eval.predictions import Key, Truth, open_truth

DRAWN = 6  # frames on the picture
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Root:
    """A root to check: its files, and the split whose frames are looked at."""

    files: KittiRoot
    truth: Truth


def open_for_check(path: Path, split: str) -> Root:
    """Raises InputError on a root that isn't made of sequences with images, or has no labelled frame in the split."""
    truth = open_truth(path, split)
    if not isinstance(truth.dataset, KittiRoot) or truth.form.camera is None:
        raise InputError(path, "a dataset with cameras", truth.form.name, "occfactory convert ROOT --to semantic_kitti")
    return Root(truth.dataset, truth)


def check_root(root: Root, facts: Sequence[FrameFacts], frames: int, picture: Path | None = None) -> Iterator[Finding]:
    """Findings one by one; writes the overlay picture. What can't be looked at after a fault is left out.

    facts: `all_facts` of the root; frames: so many of the split, evenly spaced, are rendered.
    """
    yield check_images(root.files, root.truth.split)
    labels = check_labels(root.files, facts)
    yield labels
    yield from check_masks(root.files, facts)
    if labels.verdict == "FAULT":
        return
    keys = _spread(root.truth.keys, frames)
    yield check_order(root.files, keys)
    yield check_up(facts)
    yield from _before_cameras(root.truth, frames, keys, picture)


def all_facts(root: KittiRoot, progress: Progress = lambda done, total: None) -> list[FrameFacts]:
    """What the files of every labelled frame of every split say."""
    keys = [key for split in root.splits for key in root.frames(split) if key[1] in root.sequences[key[0]].labelled]
    facts = []
    for done, key in enumerate(keys, 1):
        facts.append(frame_facts(root, key))
        progress(done, len(keys))
    return facts


def _before_cameras(truth: Truth, frames: int, keys: list[Key], picture: Path | None) -> Iterator[Finding]:
    calibration = check_calibration(truth, keys)
    yield calibration
    try:
        shown = shown_frames(truth, frames)
    except InputError as error:
        yield Finding("axes", "FAULT", str(error))
        return
    yield check_view(truth, [frame.key for frame in shown], lambda key: truth.dataset.scene(*key).occupied)
    yield from check_axes(shown)
    if picture is not None:
        yield write_overlay(truth, shown, picture)


def write_overlay(truth: Truth, shown: list[Shown], picture: Path) -> Finding:
    """Draw the first frames; says where."""
    drawn = [shown[place] for place in _spread(range(len(shown)), DRAWN)]
    write_image(
        picture, overlay_sheet(drawn, f"{truth.path.resolve().name}, split {truth.split}: voxels on photographs")
    )
    return Finding("picture", "ok", f"{picture}: projected voxels on {len(drawn)} photographs")


def learn_one(root: Root, recipe: str, changes: tuple[str, ...] = (), frame: str = "") -> Finding:
    """Whether a recipe's network can learn one frame ("SEQUENCE/NAME", else the split's middle one) by heart.

    Raises InputError on a recipe that doesn't fit the root.
    """
    from flows.ssc_recipes import ssc_recipe
    from ssc_eval.samples import Source
    from ssc_eval.training import overfit_frame

    truth = root.truth
    name = frame or "/".join(truth.keys[len(truth.keys) // 2])
    config = ssc_recipe(recipe, (Source(root=truth.path, split=truth.split),), changes)
    result = overfit_frame(config, truth.path, truth.split, name)
    text = (
        f"{name} to IoU {100 * result['iou']:.1f} %, mIoU {100 * result['miou']:.1f} % over {len(result['classes'])} "
        f"classes and {result['voxels']:,} voxels in view, {result['steps']} steps, {result['seconds']:.0f} s"
    )
    if result["reached"]:
        return Finding("one frame", "ok", f"learnt {text}")
    remedy = "more steps (--set training.steps=2000), another --frame, or a larger network; then look at the picture"
    return Finding("one frame", "FAULT", f"could not be learnt above 95 %: {text}", remedy)


def _spread(things: Any, count: int) -> list[Any]:
    last = len(things) - 1
    places = sorted({round(k * last / max(count - 1, 1)) for k in range(count)}) if count <= last else range(last + 1)
    return [things[place] for place in places]
