"""How fast a view is: `python -m tests.bench rendering`. 1220 x 370 pixels of a 256 x 256 x 32 scene, KITTI's camera.

The slow twins, in the same run: Embree on the voxels' faces (meshing and scene build included, as a new scene needs
them), and a z-buffer of voxel centres in numpy, which is quick and wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pipeline.scene.camera import Camera
from pipeline.scene.grid import SEMANTIC_KITTI_GRID
from pipeline.scene.records import Scene
from pipeline.scene.taxonomy import load_taxonomy
from renderers.meshes import SurfaceCaster, voxel_surface
from renderers.shading import render, render_surface
from renderers.traversal import trace
from renderers.viewpoints import kitti_front

REPEATS = 7


def street() -> Scene:
    """A street of the embedded world at 0.2 m."""
    from pipeline.town.plan import plan_town
    from pipeline.town.surface import surface_at
    from renderers.voxelize import voxelize_surface

    labels = voxelize_surface(surface_at(plan_town("train", 1), 3), SEMANTIC_KITTI_GRID)
    return Scene(labels, SEMANTIC_KITTI_GRID, load_taxonomy("semantic_kitti"))


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Best and median wall time; the first call, which may compile, isn't counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times), float(np.median(times))


def z_buffer(scene: Scene, camera: Camera) -> np.ndarray:
    """Labels by voxel centres alone: each centre colours the pixel it falls on, the nearest one last."""
    index = np.argwhere(scene.occupied)
    pixels, depth = camera.project(scene.grid.centre(index))
    seen = camera.sees(pixels, depth)
    index, pixels, depth = index[seen], np.floor(pixels[seen] + 0.5).astype(int), depth[seen]
    order = np.argsort(-depth)
    image = np.zeros((camera.height_px, camera.width_px), np.uint8)
    image[pixels[order, 1], pixels[order, 0]] = scene.labels[tuple(index[order].T)]
    return image


def main() -> None:
    """Print seconds a view in parts, and the twins' with their agreement."""
    scene, camera = street(), kitti_front()
    caster = SurfaceCaster(voxel_surface(scene))
    exact, faces = trace(scene.labels, scene.grid, camera).label, caster.cast(camera).class_id
    whole, traversal = seconds(lambda: render(scene, camera)), seconds(lambda: trace(scene.labels, scene.grid, camera))
    rest = (whole[0] - traversal[0], whole[1] - traversal[1])
    rows = [
        ("whole view (rgb, depth, semantics, normals)", whole, render(scene, camera).semantics),
        ("  of which traversal", traversal, exact),
        ("  of which normals and shading", rest, exact),
        (
            "twin: meshing, Embree's build, view",
            seconds(lambda: render_surface(voxel_surface(scene), camera), 3),
            faces,
        ),
        ("twin: view of a surface already built", seconds(lambda: render_surface(caster, camera), 3), faces),
        (
            "twin: numpy z-buffer of centres, labels",
            seconds(lambda: z_buffer(scene, camera), 3),
            z_buffer(scene, camera),
        ),
    ]
    print(f"{'1220 x 370 of 256 x 256 x 32':46s} {'best':>8s} {'median':>8s} {'of whole':>9s} {'agrees':>9s}")
    for name, (best, median), labels in rows:
        agrees = 100 * np.mean(labels == exact)
        print(f"{name:46s} {best:7.3f}s {median:7.3f}s {best / whole[0]:8.2f}x {agrees:8.3f}%")


if __name__ == "__main__":
    main()
