"""Pictures for people: a build's gallery, from the files it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.layout import Place
from flows.recipes import BuildRecipe
from flows.sources import source_grid
from pipeline.datasets.image_files import read_depth, read_image, read_label_image, write_image
from pipeline.datasets.semantic_kitti import KittiRoot, open_root, read_frame
from pipeline.datasets.statistics import Statistics, dataset_statistics, statistics_path
from pipeline.report.gallery import ClassRow, Gallery, GallerySample, Picture, write_gallery
from pipeline.scene.taxonomy import EMPTY, Taxonomy

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
    split = next(iter(root.splits))
    found = dataset_statistics(root, split)
    gallery = Gallery(
        title=f"{recipe.name}: {len(places)} samples",
        subtitle=recipe.description or "Semantic voxel scenes with their views, as a SemanticKITTI-layout dataset.",
        facts=_facts(recipe, places),
        class_note=(
            "Shares of occupied, scored voxels. "
            f"Valid voxels: {100 * found.valid_share:.1f} % of the grid (SemanticKITTI 72.4 %); "
            f"occupied: {100 * found.occupied_share:.2f} % of the valid ones (6.93 %)."
        ),
        class_heads=["this build", "published training split", "samples with it"],
        class_rows=class_rows(root.taxonomy, found),
        sample_note=f"The first {len(shown)} of {len(places)}, uncurated. A picture opens the dataset's own file.",
        samples=shown,
    )
    write_gallery(out / "gallery" / "index.html", gallery)
    pictures = [
        f"gallery/{p.src}" for sample in shown for p in (*sample.strips, *sample.maps) if not p.src.startswith("..")
    ]
    statistics = statistics_path(out, split).relative_to(out).as_posix()
    return ["gallery/index.html", statistics, *pictures]


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
            picture = semantics_picture(read_label_image(root.path / original), root.taxonomy)
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


def class_rows(taxonomy: Taxonomy, found: Statistics) -> list[ClassRow]:
    """Each class's share of occupied voxels here and as published, and the share of frames with it."""
    published = np.array(taxonomy.voxel_counts or (0,) * len(taxonomy.classes), float)
    published[EMPTY] = 0
    rows = []
    for k in range(EMPTY + 1, len(taxonomy.classes)):
        here = f"{100 * found.occupied_frequencies[k]:.3f} %"
        real = f"{100 * published[k] / published.sum():.3f} %" if published.any() else "not published"
        rows.append(
            ClassRow(taxonomy.classes[k], taxonomy.colors[k], (here, real, f"{100 * found.frame_shares[k]:.0f} %"))
        )
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
