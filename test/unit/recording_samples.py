"""A recording of a textured wall in the 7-Scenes layout, exact in pose and depth."""

from __future__ import annotations

from pathlib import Path

import cv2
from map_samples import encode
import numpy as np

WIDTH, HEIGHT, FOCAL = 448, 336, 400.0
DEPTH_M = 2.0


def wall_image() -> np.ndarray:
    """Texture of many sizes, three times as wide as a view."""
    rng = np.random.default_rng(0)
    image = np.zeros((HEIGHT * 2, WIDTH * 2, 3), np.float32)
    for cell_px in (4, 8, 16, 32, 64):
        shape = (image.shape[0] // cell_px, image.shape[1] // cell_px, 3)
        noise = rng.uniform(0, 1, shape).astype(np.float32)
        image += cv2.resize(noise, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(image / 5 * 2 - 0.5, 0, 1)


def write_view(directory: Path, number: int, x_m: float, wall: np.ndarray) -> None:
    """Write a view of a wall DEPTH_M before the camera, which stands x_m to the right."""
    left = WIDTH / 2 + x_m * FOCAL / DEPTH_M
    shift = np.array([[1, 0, -left], [0, 1, -HEIGHT / 2]])
    view = cv2.warpAffine(wall, shift, (WIDTH, HEIGHT))
    name = directory / f'frame-{number:06d}'
    name.with_suffix('.color.jpg').write_bytes(encode((view * 255).astype(np.uint8), '.jpg'))
    counts = np.full((HEIGHT, WIDTH), 1000 * DEPTH_M, np.uint16)
    name.with_suffix('.depth.png').write_bytes(encode(counts, '.png'))
    T_world_camera = np.eye(4)
    T_world_camera[0, 3] = x_m
    np.savetxt(name.with_suffix('.pose.txt'), T_world_camera)


def write_recording(directory: Path) -> None:
    """Write four views: the first three are the map, the last is the query."""
    wall = wall_image()
    for number, x_m in enumerate((-0.4, -0.02, 0.4, 0.1)):
        write_view(directory, number, x_m, wall)
    (directory / 'intrinsics.txt').write_text(
        f'{FOCAL} 0 {(WIDTH - 1) / 2}\n0 {FOCAL} {(HEIGHT - 1) / 2}\n0 0 1\n'
    )
    (directory / 'map.txt').write_text('frame-000000\nframe-000001\nframe-000002\n')
    (directory / 'query.txt').write_text('frame-000003\n')
