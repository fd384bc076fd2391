"""A synthetic camera for the formats' tests; helpers of this folder are importable."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.kitti_calibration import Calibration, calibration_of
from pipeline.scene.camera import Camera, look_at

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def camera() -> Camera:
    """A camera near KITTI's, tilted and shifted so that no entry is round."""
    K = np.array([[707.0912, 0, 601.8873], [0, 707.0912, 183.1104], [0, 0, 1]])
    eye, target = np.array([0.271, 0.003, -0.08]), np.array([1.271, 0.016, -0.101])
    return Camera(K, look_at(eye, target, np.array([0.0, 0.01, 1.0])), 1220, 370)


@pytest.fixture
def calibration(camera: Camera) -> Calibration:
    return calibration_of(camera)
