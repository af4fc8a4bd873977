"""A room of landmarks with known truth, from which exact matches are made and then spoilt."""

from __future__ import annotations

from dataclasses import dataclass

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import (
    invert,
    make_transform,
    transform_points,
)
import numpy as np
from rotations import rotation_from_vector

VGA = PinholeCamera(640, 480, 525.0, 520.0, 319.5, 239.5)


@dataclass(frozen=True, eq=False)
class Scene:
    """Pixels (N, 2) of points_map (N, 3) under T_map_camera, exact unless made with noise."""

    camera: PinholeCamera
    T_map_camera: np.ndarray
    points_map: np.ndarray
    pixels: np.ndarray
    is_outlier: np.ndarray


def random_pose(rng: np.random.Generator) -> np.ndarray:
    return make_transform(rotation_from_vector(rng.normal(size=3)), rng.uniform(-5, 5, 3))


def smooth_noise(
    pixels: np.ndarray, camera: PinholeCamera, cell_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Unit noise (N, 2) that neighbours share: bilinear between random values on a grid."""
    u = pixels / cell_px - rng.random(2) + 1
    shape = (int(camera.height / cell_px) + 3, int(camera.width / cell_px) + 3, 2)
    grid = rng.normal(size=shape)
    corner = np.clip(np.floor(u).astype(int), 0, (shape[1] - 2, shape[0] - 2))
    fraction = u - corner
    noise = np.zeros_like(pixels)
    norm = np.zeros(len(pixels))
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
            noise += weight[:, None] * grid[corner[:, 1] + dy, corner[:, 0] + dx]
            norm += weight**2
    return noise / np.sqrt(norm)[:, None]


def make_scene(
    seed: int,
    num_points: int = 500,
    *,
    camera: PinholeCamera = VGA,
    noise_px: float = 0.0,
    smooth_noise_px: float = 0.0,
    smooth_cell_px: float = 80.0,
    outlier_ratio: float = 0.0,
    depth_m: tuple[float, float] = (1.0, 6.0),
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> Scene:
    """Scatter landmarks over a region (x0 y0 x1 y1, shares of the image) and spoil the pixels."""
    rng = np.random.default_rng(seed)
    T_map_camera = random_pose(rng)
    size = np.array([camera.width, camera.height])
    pixels = rng.uniform(size * region[:2], size * region[2:], size=(num_points, 2)) - 0.5
    points_camera = camera.unproject(pixels, rng.uniform(*depth_m, num_points))
    points_map = transform_points(T_map_camera, points_camera)
    pixels = pixels + noise_px * rng.normal(size=pixels.shape)
    if smooth_noise_px:
        pixels = pixels + smooth_noise_px * smooth_noise(pixels, camera, smooth_cell_px, rng)
    is_outlier = np.arange(num_points) < round(outlier_ratio * num_points)
    is_outlier = rng.permutation(is_outlier)
    pixels[is_outlier] = rng.uniform((0, 0), size, size=(is_outlier.sum(), 2))
    return Scene(camera, T_map_camera, points_map, pixels, is_outlier)


def camera_points(scene: Scene) -> np.ndarray:
    return transform_points(invert(scene.T_map_camera), scene.points_map)
