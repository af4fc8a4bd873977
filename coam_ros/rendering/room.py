"""A closed room with boxes, all papered with photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.rendering.lighting import Lighting
from coam_ros.rendering.photographs import load_photographs
from coam_ros.rendering.rectangles import Rectangle, RectangleRenderer
from coam_ros.rendering.textures import paper_surface, PhotographDeck
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RoomConfig:
    """How to furnish a room.

    Attributes:
        size_m: extent along x, y and z; the floor is z = 0, one corner is the origin.
        num_floor_boxes: boxes that stand on the floor along the walls.
        num_hung_boxes: boxes that hang on the walls.
        num_centre_boxes: low boxes that stand near the middle of the floor.
        texels_per_m: resolution of walls and boxes; floor and ceiling get three quarters.
        picture_share: area of the pictures over the area of a wall.
    """

    size_m: tuple[float, float, float] = (6.0, 5.0, 3.0)
    num_floor_boxes: int = 7
    num_hung_boxes: int = 7
    num_centre_boxes: int = 2
    texels_per_m: float = 280.0
    picture_share: float = 0.8

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: for a room too small for its furniture, or a useless resolution.
        """
        if len(self.size_m) != 3 or min(self.size_m) < 2.0:
            raise ValueError(
                f'Room size is {self.size_m} m, wanted three lengths of at least 2 m; '
                'make the room larger.'
            )
        if not 20.0 <= self.texels_per_m <= 1000.0:
            raise ValueError(
                f'Texture resolution is {self.texels_per_m} texels/m, wanted 20 to 1,000; '
                '280 suits a 640 x 480 camera.'
            )


@dataclass(frozen=True)
class Box:
    """A box with vertical sides.

    Attributes:
        centre_room_m: (x, y, z) of its middle.
        size_m: length along its own x, y and z.
        yaw_rad: turn about the vertical.
    """

    centre_room_m: tuple[float, float, float]
    size_m: tuple[float, float, float]
    yaw_rad: float

    def distance_m(self, position_room_m: Sequence[float]) -> float:
        """Distance from a point to the box; 0 inside."""
        dx, dy, dz = np.subtract(position_room_m, self.centre_room_m)
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        local = np.abs((cos * dx + sin * dy, -sin * dx + cos * dy, dz))
        return float(np.linalg.norm(np.maximum(local - np.divide(self.size_m, 2), 0.0)))


class Room:
    """An endless source of posed images with depth: one room a seed.

    Attributes:
        config: what was asked for.
        boxes: the furniture.
    """

    def __init__(
        self, config: RoomConfig, boxes: Sequence[Box], surfaces: Sequence[Rectangle]
    ) -> None:
        """Put a room together; `generate` is the usual way.

        Args:
            config: size of the room.
            boxes: furniture, for `is_free`.
            surfaces: everything that can be seen.
        """
        self.config = config
        self.boxes = tuple(boxes)
        self._renderer = RectangleRenderer(surfaces)

    @classmethod
    def generate(
        cls,
        seed: int,
        config: RoomConfig | None = None,
        photographs: Sequence[NDArray[np.uint8]] | None = None,
    ) -> Room:
        """Furnish and paper a room; the same arguments give the same room.

        Args:
            seed: of geometry and textures.
            config: None for the default room.
            photographs: (H, W, 3) uint8 RGB images; None for those of scikit-image.

        Raises:
            FileNotFoundError: when photographs are None and scikit-image is missing.
            ValueError: for an empty list of photographs, or more texels than can be drawn.
        """
        config = RoomConfig() if config is None else config
        if photographs is None:
            photographs = list(load_photographs().values())
        rng = np.random.default_rng(seed)
        boxes = _furnish(rng, config)
        deck = PhotographDeck(photographs, rng)
        surfaces = []
        for sides in (_room_sides(config.size_m), *(_box_sides(box) for box in boxes)):
            for corner, edge_u, edge_v in sides:
                is_level = edge_v[2] == 0.0
                size_m = (float(np.linalg.norm(edge_u)), float(np.linalg.norm(edge_v)))
                texels_per_m = config.texels_per_m * (0.75 if is_level else 1.0)
                texture = paper_surface(deck, rng, size_m, texels_per_m, config.picture_share)
                surfaces.append(Rectangle(corner, edge_u, edge_v, texture))
        return cls(config, boxes, surfaces)

    def render(
        self,
        T_room_camera: NDArray[np.float64],
        camera: PinholeCamera,
        lighting: Lighting | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Draw one view.

        Args:
            T_room_camera: (4, 4) pose of the optical frame.
            camera: intrinsics, distorted or not.
            lighting: None shows the textures as they are.

        Returns:
            (H, W, 3) uint8 RGB image and (H, W) float32 depth along the optical axis at pixel
            centres [m]; NaN only where the camera sees out of the room.
        """
        return self._renderer.render(T_room_camera, camera, lighting)

    def is_free(self, position_room_m: Sequence[float], margin_m: float = 0.3) -> bool:
        """Tell whether a place is more than `margin_m` away from walls and boxes."""
        position = np.asarray(position_room_m, np.float64)
        inside = np.all(position > margin_m) and np.all(
            position < np.asarray(self.config.size_m) - margin_m
        )
        return bool(inside) and all(box.distance_m(position) > margin_m for box in self.boxes)


_Side = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _furnish(rng: np.random.Generator, config: RoomConfig) -> list[Box]:
    """Place boxes; they may touch or cross each other, as furniture does."""
    boxes = []
    for index in range(config.num_floor_boxes):
        size = (rng.uniform(0.4, 1.0), rng.uniform(0.25, 0.6), rng.uniform(0.5, 1.7))
        boxes.append(_box_at_wall(rng, config, index, size, size[2] / 2, rng.normal(0.0, 0.15)))
    for index in range(config.num_hung_boxes):
        size = (rng.uniform(0.25, 0.9), rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.6))
        height = rng.uniform(1.0, config.size_m[2] - 0.7)
        boxes.append(_box_at_wall(rng, config, index, size, height, 0.0))
    for _ in range(config.num_centre_boxes):
        size = (rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.7))
        x, y = np.multiply(config.size_m[:2], rng.uniform(0.42, 0.58, 2))
        boxes.append(Box((float(x), float(y), size[2] / 2), size, float(rng.uniform(0, np.pi))))
    return boxes


def _box_at_wall(
    rng: np.random.Generator,
    config: RoomConfig,
    index: int,
    size: tuple[float, float, float],
    height: float,
    askew_rad: float,
) -> Box:
    """Put a box against wall `index % 4`, with a gap of a few centimetres."""
    length_x, length_y = config.size_m[:2]
    wall = index % 4
    depth = size[1] / 2 + rng.uniform(0.005, 0.05)
    # The farther corner of a box that stands askew must not go through the wall.
    depth += abs(np.sin(askew_rad)) * size[0] / 2
    along = rng.uniform(0.12, 0.88) * (length_x if wall in (0, 2) else length_y)
    x, y = (
        (along, length_y - depth),
        (length_x - depth, along),
        (along, depth),
        (depth, along),
    )[wall]
    yaw = askew_rad + (0.0 if wall in (0, 2) else np.pi / 2)
    return Box((float(x), float(y), float(height)), size, float(yaw))


def _upright(centre: NDArray[np.float64], facing_rad: float, size_m: Sequence[float]) -> _Side:
    """A vertical side that is seen by who looks against the direction `facing_rad`."""
    right = np.array([-np.sin(facing_rad), np.cos(facing_rad), 0.0])
    edge_u, edge_v = size_m[0] * right, np.array([0.0, 0.0, -size_m[1]])
    return centre - (edge_u + edge_v) / 2, edge_u, edge_v


def _level(
    centre: NDArray[np.float64], yaw_rad: float, size_m: Sequence[float], is_seen_from_above: bool
) -> _Side:
    edge_u = size_m[0] * np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0])
    edge_v = size_m[1] * np.array([-np.sin(yaw_rad), np.cos(yaw_rad), 0.0])
    if is_seen_from_above:
        edge_v = -edge_v
    return centre - (edge_u + edge_v) / 2, edge_u, edge_v


def _room_sides(size_m: Sequence[float]) -> list[_Side]:
    """Walls, floor and ceiling, seen from inside."""
    x, y, z = size_m
    middle = np.array([x, y, z]) / 2
    sides = [_level(middle * (1, 1, 0), 0.0, (x, y), True)]
    sides.append(_level(middle * (1, 1, 2), 0.0, (x, y), False))
    for facing_rad, length, offset in (
        (0.0, y, (-x / 2, 0, 0)),
        (np.pi / 2, x, (0, -y / 2, 0)),
        (np.pi, y, (x / 2, 0, 0)),
        (-np.pi / 2, x, (0, y / 2, 0)),
    ):
        sides.append(_upright(middle + offset, facing_rad, (length, z)))
    return sides


def _box_sides(box: Box) -> list[_Side]:
    """Five or six sides, seen from outside; what stands on the floor has no underside."""
    centre = np.array(box.centre_room_m)
    length_x, length_y, length_z = box.size_m
    half_up = np.array([0.0, 0.0, length_z / 2])
    sides = [_level(centre + half_up, box.yaw_rad, (length_x, length_y), True)]
    if centre[2] > length_z / 2 + 1e-6:
        sides.append(_level(centre - half_up, box.yaw_rad, (length_x, length_y), False))
    for turn, length, distance in (
        (0.0, length_y, length_x / 2),
        (np.pi / 2, length_x, length_y / 2),
        (np.pi, length_y, length_x / 2),
        (-np.pi / 2, length_x, length_y / 2),
    ):
        facing = box.yaw_rad + turn
        outward = np.array([np.cos(facing), np.sin(facing), 0.0])
        sides.append(_upright(centre + distance * outward, facing, (length, length_z)))
    return sides
