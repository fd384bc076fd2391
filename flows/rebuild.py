"""`occfactory rebuild`: make a build again from its manifest alone, and compare the two file by file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.build import build_dataset
from flows.engine import Engine
from flows.recipes import BuildRecipe, validated, weights_digest
from pipeline.datasets.manifest import Manifest, read_manifest
from pipeline.scene.errors import InputError


@dataclass(frozen=True)
class Rebuilt:
    """differences: (path, what differs), empty if the bytes are the same; versions: packages that are others now."""

    files: int
    differences: tuple[tuple[str, str], ...]
    versions: tuple[str, ...]


def rebuild_dataset(
    directory: Path,
    out: Path,
    root: Path | None = None,
    engine: Engine = "none",
    workers: int = 1,
    quiet: bool = True,
    images: Mapping[str, Path] | None = None,
) -> Rebuilt:
    """Build the manifest's recipe anew in `out`. root: the dataset or weights that the recipe reads, if it reads one;
    images: `weights`, `controlnet` and `critic`, the folders that its images were drawn with, if they were drawn.

    Raises InputError (no manifest, other weights, a recipe of another version of occfactory), JobError.
    """
    manifest = read_manifest(directory)
    if Path(out).resolve() == Path(directory).resolve():
        raise InputError("--out", "another folder than the build's own", str(out))
    recipe = recipe_of(manifest, directory, root, images)
    build_dataset(recipe, out, engine, workers, quiet)
    return compared(manifest, read_manifest(out))


def recipe_of(
    manifest: Manifest, directory: Path, root: Path | None, images: Mapping[str, Path] | None = None
) -> BuildRecipe:
    """The manifest's recipe, with the paths it reads from put back. Raises InputError."""
    table: dict[str, Any] = {**manifest.recipe, "source": dict(manifest.recipe.get("source") or {})}
    reads = {"split": "root", "generator": "weights"}.get(str(table["source"].get("kind")))
    if (reads is None) != (root is None):
        raise InputError("--root", f"the folder of the recipe's {reads}" if reads else "none", str(root or "none"))
    if reads is not None and root is not None:
        table["source"][reads] = root
    if reads == "weights" and root is not None and weights_digest(root) != table["source"].get("weights_digest"):
        expected = str(table["source"].get("weights_digest"))[:12]
        raise InputError(root, f"the weights of the build, {expected}...", weights_digest(root)[:12])
    _give_images(table, images or {})
    recipe = validated(BuildRecipe, table)
    if recipe.digest() != manifest.recipe_digest:
        remedy = f"install occfactory {manifest.versions.get('occfactory', '')}".strip()
        raise InputError(directory, f"recipe digest {manifest.recipe_digest[:12]}", recipe.digest()[:12], remedy)
    return recipe


def _give_images(table: dict[str, Any], folders: Mapping[str, Path]) -> None:
    """Folders of drawn images; whether they are the build's own is found before the first stage. Raises InputError."""
    images = dict(table.get("images") or {})
    drawn = images.get("kind") == "controlnet"
    for name, needed in (("weights", drawn), ("critic", drawn and images.get("critic_digest") is not None)):
        option = {"weights": "--images", "critic": "--critic"}[name]
        if needed and name not in folders:
            raise InputError(option, f"the folder of the {name} that the build's images were drawn with", "none")
        if name in folders and not needed:
            raise InputError(option, "none, as the build used none", str(folders[name]))
    table["images"] = {**images, **folders}


def compared(before: Manifest, after: Manifest) -> Rebuilt:
    """What of the first isn't the same in the second, by path."""
    old, new = ({file.path: file for file in manifest.files} for manifest in (before, after))
    found = []
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            found.append((path, "was not built again"))
        elif path not in old:
            found.append((path, "was not in the first build"))
        elif old[path] != new[path]:
            what = f"SHA-256 {old[path].sha256[:12]}, now {new[path].sha256[:12]}"
            found.append((path, f"{old[path].bytes} bytes, {what} of {new[path].bytes} bytes"))
    if (before.samples, before.dropped) != (after.samples, after.dropped):
        found.append(("manifest.json", "records other samples"))
    versions = tuple(
        f"{name} was {was}, now {after.versions.get(name, 'not there')}"
        for name, was in before.versions.items()
        if after.versions.get(name) != was
    )
    return Rebuilt(len(old), tuple(found), versions)
