"""Pictures for people: a build's gallery, from the files it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.layout import Place
from flows.recipes import BuildRecipe
from flows.sources import source_grid
from pipeline.datasets.image_files import read_depth, read_image, write_image
from pipeline.datasets.semantic_kitti import KittiRoot, open_root, read_frame
from pipeline.report.gallery import ClassRow, Gallery, GallerySample, Picture, write_gallery
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy

FARTHEST_M = 60.0  # depth pictures' darkest


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """Depth [m] as colours, near yellow to far violet on a logarithmic scale; black where there is none."""
    import cv2

    near = np.clip(np.log(FARTHEST_M / np.clip(depth, 2, FARTHEST_M)) / np.log(FARTHEST_M / 2), 0, 1)
    colours = cv2.applyColorMap((near * 255).astype(np.uint8), cv2.COLORMAP_PLASMA)[..., ::-1]
    return np.where(depth[..., None] > 0, colours, 0).astype(np.uint8)


def semantics_picture(semantics: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Class ids as the taxonomy's flat colours."""
    return taxonomy.color_table()[semantics]


def write_build_gallery(recipe: BuildRecipe, out: Path, places: list[Place]) -> list[str]:
    """Write gallery/index.html and its pictures of the first samples; the paths written."""
    root = open_root(out)
    shown = [_sample(root, place) for place in places[: recipe.gallery_samples]]
    counts = _counts(root, places)
    gallery = Gallery(
        title=f"{recipe.name}: {len(places)} samples",
        subtitle=recipe.description or "Semantic voxel scenes with their views, as a SemanticKITTI-layout dataset.",
        facts=_facts(recipe, places),
        class_note="Share of occupied, scored voxels, and the share of samples that a class appears in.",
        class_heads=["this build", "published training split", "samples with it"],
        class_rows=_class_rows(root.taxonomy, counts),
        sample_note=f"The first {len(shown)} of {len(places)}, uncurated. A picture opens the dataset's own file.",
        samples=shown,
    )
    write_gallery(out / "gallery" / "index.html", gallery)
    pictures = [f"gallery/{p.src}" for sample in shown for p in (*sample.strips, *sample.maps) if not p.src.startswith("..")]
    return ["gallery/index.html", *pictures]


def _sample(root: KittiRoot, place: Place) -> GallerySample:
    """Image as exported; depth, semantics and two maps made for the page."""
    from renderers.bird_eye import bird_eye_image, oblique_image

    image = f"{place.folder}/image_2/{place.frame}.png"
    size = read_image(root.path / image).shape
    strips = [Picture("image", f"../{image}", f"../{image}", size[1], size[0])]
    for kind in ("depth", "semantics"):
        original = f"{place.folder}/{kind}_2/{place.frame}.png"
        if kind == "depth":
            picture = depth_picture(read_depth(root.path / original))
        else:
            picture = semantics_picture(read_labels(root.path / original), root.taxonomy)
        strips.append(_picture(root.path, place, kind, picture, f"../{original}"))
    scene = read_frame(root, place.sequence, place.frame).scene()
    maps = {"from above": bird_eye_image(scene), "oblique": oblique_image(scene)}
    return GallerySample(
        place.name, tuple(strips), tuple(_picture(root.path, place, kind, image_, "") for kind, image_ in maps.items())
    )


def _picture(out: Path, place: Place, kind: str, image: np.ndarray, href: str) -> Picture:
    src = f"pictures/{place.sequence}_{place.frame}_{kind.replace(' ', '_')}.png"
    write_image(out / "gallery" / src, image)
    return Picture(kind, src, href or src, image.shape[1], image.shape[0])


def _counts(root: KittiRoot, places: list[Place]) -> np.ndarray:
    """(samples, 256) voxels by label."""
    frames = (read_frame(root, place.sequence, place.frame).scene().labels for place in places)
    return np.stack([np.bincount(labels.ravel(), minlength=256) for labels in frames])


def _class_rows(taxonomy: Taxonomy, counts: np.ndarray) -> list[ClassRow]:
    solid = counts[:, 1:IGNORE].sum()
    published = sum(taxonomy.voxel_counts[1:])
    rows = []
    for k in range(EMPTY + 1, len(taxonomy.classes)):
        here = f"{100 * counts[:, k].sum() / max(solid, 1):.3f} %"
        real = f"{100 * taxonomy.voxel_counts[k] / published:.3f} %" if published else "not published"
        seen = f"{100 * np.mean(counts[:, k] > 0):.0f} %"
        rows.append(ClassRow(taxonomy.classes[k], taxonomy.colors[k], (here, real, seen)))
    return rows


def _facts(recipe: BuildRecipe, places: list[Place]) -> list[tuple[str, str]]:
    grid = source_grid(recipe)
    x, y, z = grid.shape
    return [
        ("recipe", f"{recipe.name}, digest {recipe.digest()[:16]}"),
        ("seed", str(recipe.seed)),
        ("samples", f"{len(places)} in {len({place.sequence for place in places})} sequences"),
        ("grid", f"{x} x {y} x {z} voxels of {grid.voxel_size_m} m"),
        ("cameras", f"{', '.join(recipe.views.cameras)}"),
        ("images", recipe.images.kind),
    ]
