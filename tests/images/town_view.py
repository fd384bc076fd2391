"""A hand-made view: a level camera 1.73 m above the ground, sky above, a car's face before a road."""

from dataclasses import replace

import numpy as np

from pipeline.scene.camera import Camera, look_at
from pipeline.scene.records import View

CAR, ROAD, BUILDING = 1, 9, 13
HEIGHT, WIDTH, FOCAL, CENTRE_V = 16, 32, 20.0, 7.5  # the horizon lies between rows 7 and 8


def level_camera() -> Camera:
    K = np.array([[FOCAL, 0, 15.5], [0, FOCAL, CENTRE_V], [0, 0, 1]])
    return Camera(K, look_at(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0])), WIDTH, HEIGHT)


def street_view(building: bool = True) -> View:
    """Rows 12.. road; columns 4..11 of rows 8..13 a car at 6 m; columns 20..29 of rows 2..9 a building at 20 m."""
    depth, labels = np.zeros((HEIGHT, WIDTH), np.float32), np.zeros((HEIGHT, WIDTH), np.uint8)
    rows = np.arange(HEIGHT)[:, None]
    labels[12:], depth[12:] = ROAD, (1.73 * FOCAL / np.maximum(rows - CENTRE_V, 0.5))[12:]
    if building:
        labels[2:10, 20:30], depth[2:10, 20:30] = BUILDING, 20
    labels[8:14, 4:12], depth[8:14, 4:12] = CAR, 6
    rgb = np.repeat((labels * 10)[..., None], 3, -1).astype(np.uint8)
    return View(level_camera(), rgb, depth, labels, np.zeros((HEIGHT, WIDTH, 3), np.float32))


def labelled(labels: np.ndarray) -> View:
    """A view that shows just these labels, (h, w)."""
    h, w = labels.shape
    camera = replace(level_camera(), width_px=w, height_px=h)
    blank = np.zeros((h, w, 3))
    return View(camera, blank.astype(np.uint8), (labels > 0).astype(np.float32), labels, blank.astype(np.float32))
