"""For conditioning an image model: a scene without stairs, and a ground that goes on to the horizon. Both optional.

Smoothing: G. Taubin, "A Signal Processing Approach to Fair Surface Design", SIGGRAPH 1995: a shrinking and a swelling
Laplacian step in turn, on the mesh of the voxels' exposed faces. Sizes stay; stairs become
slopes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from pipeline.scene.camera import Camera
from pipeline.scene.records import Scene, Surface, View
from renderers.meshes import voxel_surface
from renderers.shading import LOOK, Look, render_surface

SHRINK, SWELL = 0.5, -0.526  # Taubin's lambda and mu: pass band 1/lambda + 1/mu = 0.1


def smoothed_surface(scene: Scene, rounds: int = 6) -> Surface:
    """The voxels' exposed faces, smoothed; `rounds` pairs of steps. A vertex moves by under a voxel or so."""
    surface = voxel_surface(scene)
    return replace(surface, vertices=taubin(surface.vertices, surface.triangles, rounds))


def render_smoothed(scene: Scene, camera: Camera, rounds: int = 6, look: Look = LOOK) -> View:
    """The view of the smoothed surface: like `render`, with rounded depth and normals. Some ten times as slow."""
    return render_surface(smoothed_surface(scene, rounds), camera, look)


def taubin(vertices: Float[np.ndarray, "v 3"], triangles: np.ndarray, rounds: int) -> Float[np.ndarray, "v 3"]:
    """Smoothed vertex positions; each step moves a vertex towards or from the mean of its neighbours."""
    from scipy.sparse import coo_matrix

    count = len(vertices)
    if count == 0:
        return vertices
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ends = np.concatenate([ends, ends[:, ::-1]])
    links = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count)).tocsr()
    links.data[:] = 1.0  # an edge of several triangles counts once
    degree = np.asarray(links.sum(axis=1))
    for factor in (SHRINK, SWELL) * rounds:
        vertices = vertices + factor * (links @ vertices / degree - vertices)
    return vertices


def with_horizon(view: View, ground_z_m: float, class_id: int = 0) -> View:
    """Fill pixels that see nothing and look down with the plane z = ground_z_m: depth, upward normals, class_id.

    The default class 0 leaves the semantics as they were. RGB is untouched: it shows a plain there already.
    """
    camera = view.camera
    directions = camera.ray_directions()
    drop = ground_z_m - camera.centre[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = drop / directions[..., 2]
    filled = (view.depth == 0) & np.isfinite(depth) & (depth > 0) & (depth < np.finfo(np.float32).max)
    return replace(
        view,
        depth=np.where(filled, depth, view.depth).astype(np.float32),
        semantics=np.where(filled, np.uint8(class_id), view.semantics).astype(np.uint8),
        normals=np.where(filled[..., None], np.array([0, 0, 1], np.float32), view.normals).astype(np.float32),
    )
