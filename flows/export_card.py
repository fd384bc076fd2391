"""What an export's card says of the build: licences and provenance of its sources and weights, splits, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.export_formats import Shard
from pipeline.datasets.dataset_card import Card, Source, class_rows
from pipeline.datasets.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from flows.export import ExportRecipe

Note = dict[str, Any]
WEIGHTS = "that of its weights"
SYNTHETIC = {  # by kind of a build's source
    "town": "Every scene and every image was made by a program; nothing was recorded, and no person or place is real.",
    "split": "The images were made by a program; the scenes are those of the recorded dataset that is named below.",
    "generator": "Scenes and images were made by programs and networks; what those were trained on is named below.",
}


def card_of(recipe: ExportRecipe, shards: Sequence[Shard], notes: list[Note], split_bytes: Mapping[str, int]) -> Card:
    """The card of an export: notes are its samples', split_bytes what each split's files take."""
    build, manifest = shards[0].build, read_manifest(recipe.root)
    return Card(
        name=str(manifest.recipe.get("name", "dataset")),
        description=str(manifest.recipe.get("description") or ""),
        synthetic=SYNTHETIC.get(manifest.recipe["source"]["kind"], SYNTHETIC["generator"]),
        target=recipe.to,
        licence=recipe.licence,
        published=recipe.published.isoformat() if recipe.published else "",
        version=manifest.versions.get("occfactory", ""),
        manifest_digest=recipe.build_digest,
        sources=tuple(sources_of(manifest)),
        splits=_split_counts(notes),
        split_bytes=split_bytes,
        cameras=build.cameras,
        classes=tuple(class_rows(build.root.taxonomy, notes)),
        checked=sum(note["accepted"] is not None for note in notes),
        accepted=sum(note["accepted"] is True for note in notes),
        prompted=sum(note["prompt"] is not None for note in notes),
        recipe=manifest.recipe,
        versions=manifest.versions,
    )


def _split_counts(notes: list[Note]) -> dict[str, tuple[int, int]]:
    splits = dict.fromkeys(note["split"] for note in notes)
    members = {split: [note for note in notes if note["split"] == split] for split in splits}
    return {split: (len(found), len({note["scene"] for note in found})) for split, found in members.items()}


def sources_of(manifest: Manifest) -> list[Source]:
    """What the build was made from: its scenes' source, further inputs by role, and licences that the recipe states."""
    source = manifest.recipe["source"]
    scenes = {
        "town": Source("scenes", "occfactory's embedded world, procedural", "", "Apache-2.0, as occfactory"),
        "split": Source("scenes", f"split {source.get('split')} of a recorded dataset", "", "that of the dataset"),
        "generator": Source("scenes", "a scene generator", source.get("weights_digest", ""), WEIGHTS),
    }
    found = [scenes.get(source["kind"], Source("scenes", source["kind"], "", "not recorded"))]
    images = manifest.recipe.get("images", {})
    if images.get("kind") == "controlnet":
        found.append(Source("images", "a diffusion pipeline with ControlNet", images["weights_digest"], WEIGHTS))
    if images.get("critic_digest"):
        found.append(Source("check of images", "a critic's network", images["critic_digest"], WEIGHTS))
    stated = dict(_stated_licences(manifest.recipe, ""))
    for role, digest in sorted(manifest.inputs.items()):
        what = "provenance of all samples" if role == "source" else role
        found.append(Source(role, what, digest, "" if role == "source" else stated.pop(role, "not recorded")))
    return [*found, *(Source(where, "", "", licence) for where, licence in stated.items())]


def _stated_licences(table: dict[str, Any], where: str) -> list[tuple[str, str]]:
    """(place in the recipe, licence) of every table of a recipe that names its licence."""
    found = [(where or "recipe", str(table[key])) for key in ("licence", "license") if table.get(key)]
    for name, value in sorted(table.items()):
        if isinstance(value, dict):
            found += _stated_licences(value, name)
    return found
