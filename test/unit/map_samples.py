"""Small keyframes for the tests of maps."""

from __future__ import annotations

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.keyframe import Keyframe
import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48
CAMERA = PinholeCamera(WIDTH, HEIGHT, 60.0, 62.0, 31.0, 24.5)


def encode(image: np.ndarray, extension: str) -> bytes:
    is_written, data = cv2.imencode(extension, image)
    assert is_written
    return data.tobytes()


def make_image(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def make_keyframe(**fields: object) -> Keyframe:
    values = {
        'id': 7,
        'stamp_s': 12.5,
        'T_map_camera': np.eye(4),
        'camera': CAMERA,
        'image': encode(make_image(), '.jpg'),
        'depth': encode(np.full((HEIGHT, WIDTH), 2000, np.uint16), '.png'),
    }
    return Keyframe(**{**values, **fields})
