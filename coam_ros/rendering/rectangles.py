"""Renderer of textured rectangles: exact depth, trilinear texture filter, smooth outlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.rendering.lighting import Lighting
import cv2
import numpy as np
from numpy.typing import NDArray

_NEAR_M = 0.02
_ATLAS_WIDTH_PX = 8192
# cv2.remap takes no longer side, neither of its image nor of its map.
_MAX_REMAP_SIDE_PX = 32767
_REMAP_SIDE_PX = 1024
# Temporary arrays of a few rows stay in the processor's cache: twice as fast as whole images.
_BAND_ROWS = 48
# Sub-pixel samples on a rotated grid, for pixels that an outline crosses.
_SAMPLES_PX = np.array(
    [(-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375)], np.float32
)
# Rectangles overlap by this share of their length, so that no light leaks at their seams.
_SEAM = 1e-5


@dataclass(frozen=True, eq=False)
class Rectangle:
    """A flat picture in space, seen only from the side from which it reads the right way round.

    Attributes:
        corner_room: (3,) float64, place of the picture's top-left corner [m].
        edge_u_room: (3,) float64, from there to the top-right corner [m].
        edge_v_room: (3,) float64, from there to the bottom-left corner [m].
        texture: (H, W, 3) uint8 RGB.
    """

    corner_room: NDArray[np.float64]
    edge_u_room: NDArray[np.float64]
    edge_v_room: NDArray[np.float64]
    texture: NDArray[np.uint8]

    @property
    def normal_room(self) -> NDArray[np.float64]:
        """(3,) unit normal on the visible side."""
        normal = np.cross(self.edge_v_room, self.edge_u_room)
        return normal / np.linalg.norm(normal)


class RectangleRenderer:
    """Draws rectangles as a pinhole camera sees them."""

    def __init__(self, rectangles: Sequence[Rectangle]) -> None:
        """Prepare textures.

        Args:
            rectangles: at least one.

        Raises:
            ValueError: without rectangles, or with more texels than fit into one image.
        """
        if not rectangles:
            raise ValueError('Got 0 rectangles, wanted at least 1; add walls to the scene.')
        self._corners = np.array([r.corner_room for r in rectangles])
        self._edges_u = np.array([r.edge_u_room for r in rectangles])
        self._edges_v = np.array([r.edge_v_room for r in rectangles])
        self._normals = np.array([r.normal_room for r in rectangles])
        self._atlas = _MipAtlas([r.texture for r in rectangles])

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
            centres [m], NaN where no rectangle is seen.
        """
        view = _View(self, np.asarray(T_room_camera, np.float64), camera, lighting)
        return view.draw()


class _View:
    """One camera looking at the rectangles of a renderer."""

    def __init__(
        self,
        renderer: RectangleRenderer,
        T_room_camera: NDArray[np.float64],
        camera: PinholeCamera,
        lighting: Lighting | None,
    ) -> None:
        self._atlas = renderer._atlas
        self._normals = renderer._normals.astype(np.float32)
        self._lighting = lighting
        self._camera = camera
        self._rotation = T_room_camera[:3, :3].astype(np.float32)
        self._centre = T_room_camera[:3, 3].astype(np.float32)

        # Along the ray (x, y, 1) inverse depth is linear in (x, y, 1), and so are the texture
        # coordinates divided by depth: three rows of coefficients say all of a rectangle.
        rotation, centre = T_room_camera[:3, :3], T_room_camera[:3, 3]
        offsets = renderer._corners - centre
        distances = np.einsum('qi,qi->q', renderer._normals, offsets)
        safe = np.where(distances < -1e-9, distances, -1.0)
        inverse_depth = renderer._normals @ rotation / safe[:, None]
        coefficients = [inverse_depth]
        for edges in (renderer._edges_u, renderer._edges_v):
            squared = np.einsum('qi,qi->q', edges, edges)
            start = -np.einsum('qi,qi->q', offsets, edges) / squared
            coefficients.append(
                start[:, None] * inverse_depth + edges @ rotation / squared[:, None]
            )
        self._coefficients = np.stack(coefficients, axis=1).astype(np.float32)

        across, along = renderer._edges_u, renderer._edges_v
        corners = (offsets, offsets + across, offsets + across + along, offsets + along)
        self._corners_camera = np.stack(corners, axis=1) @ rotation
        in_front = (self._corners_camera[..., 2] > _NEAR_M).any(axis=1)
        self._visible = np.flatnonzero((distances < -1e-9) & in_front)

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        ray_x, ray_y = _ray_grid(self._camera)
        shape = (self._camera.height, self._camera.width)
        ids, inverse_depth = self._intersect(ray_x, ray_y, shape, self._window)
        image = np.empty((*shape, 3), np.float32)
        for top in range(0, self._camera.height, _BAND_ROWS):
            band = np.s_[top : top + _BAND_ROWS, :]
            image[band] = self._colour(
                ids[band], inverse_depth[band], _crop(ray_x, band), _crop(ray_y, band)
            )
        self._smooth_outlines(image, ids, ray_x, ray_y)
        with np.errstate(divide='ignore'):
            depth_m = np.where(ids >= 0, 1.0 / inverse_depth, np.float32(np.nan))
        return np.clip(image + 0.5, 0.0, 255.0).astype(np.uint8), depth_m.astype(np.float32)

    def _window(self, index: int) -> tuple[slice, slice]:
        """Rows and columns of the image that can show a rectangle."""
        camera, corners = self._camera, self._corners_camera[index]
        if camera.is_distorted or (corners[:, 2] <= _NEAR_M).any():
            return slice(0, camera.height), slice(0, camera.width)
        x = camera.fx * corners[:, 0] / corners[:, 2] + camera.cx
        y = camera.fy * corners[:, 1] / corners[:, 2] + camera.cy
        columns = np.clip([np.floor(x.min()), np.ceil(x.max()) + 1], 0, camera.width).astype(int)
        rows = np.clip([np.floor(y.min()), np.ceil(y.max()) + 1], 0, camera.height).astype(int)
        return slice(rows[0], rows[1]), slice(columns[0], columns[1])

    def _intersect(
        self,
        ray_x: NDArray[np.float32],
        ray_y: NDArray[np.float32],
        shape: tuple[int, int],
        window: Callable[[int], tuple[slice, slice]],
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Find the nearest rectangle on every ray: index (-1 for none) and inverse depth."""
        ids = np.full(shape, -1, np.int32)
        nearest = np.zeros(shape, np.float32)
        for index in self._visible:
            part = window(index)
            x, y = _crop(ray_x, part), _crop(ray_y, part)
            inverse_depth, u, v = (c[0] * x + (c[1] * y + c[2]) for c in self._coefficients[index])
            slack = inverse_depth * np.float32(_SEAM)
            limit = inverse_depth + slack
            hit = inverse_depth > nearest[part]
            hit &= (u >= -slack) & (u <= limit) & (v >= -slack) & (v <= limit)
            nearest[part][hit] = inverse_depth[hit]
            ids[part][hit] = index
        return ids, nearest

    def _colour(
        self,
        ids: NDArray[np.int32],
        inverse_depth: NDArray[np.float32],
        ray_x: NDArray[np.float32],
        ray_y: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Shade rays that hit rectangles; (..., 3) float32, black where nothing is hit."""
        safe_ids = np.maximum(ids, 0)
        depth = 1.0 / np.where(ids >= 0, inverse_depth, 1.0).astype(np.float32)
        texture, steps = [], []
        for axis in (1, 2):
            cx, cy, c1 = (self._coefficients[:, axis, k][safe_ids] for k in range(3))
            coordinate = (cx * ray_x + cy * ray_y + c1) * depth
            # A distorted camera has no ray (NaN) beyond the reach of its lens model.
            coordinate[ids < 0] = 0.5
            texture.append(coordinate)
            # Change of the texture coordinate over one pixel to the right and one down.
            right = (cx - coordinate * self._coefficients[:, 0, 0][safe_ids]) * depth
            down = (cy - coordinate * self._coefficients[:, 0, 1][safe_ids]) * depth
            steps.append((right / np.float32(self._camera.fx), down / np.float32(self._camera.fy)))
        image = self._atlas.sample(safe_ids, texture[0], texture[1], steps[0], steps[1])
        if self._lighting is not None:
            rays = np.stack(np.broadcast_arrays(ray_x, ray_y, np.float32(1.0)), axis=-1)
            points = (rays @ self._rotation.T) * depth[..., None] + self._centre
            image *= self._lighting.shade(points, self._normals[safe_ids])
        image[ids < 0] = 0.0
        return image

    def _smooth_outlines(
        self,
        image: NDArray[np.float32],
        ids: NDArray[np.int32],
        ray_x: NDArray[np.float32],
        ray_y: NDArray[np.float32],
    ) -> None:
        """Draw the pixels on both sides of an outline again, from several rays each."""
        outline = np.zeros(ids.shape, bool)
        for one, other in (
            (np.s_[:, 1:], np.s_[:, :-1]),
            (np.s_[1:], np.s_[:-1]),
        ):
            changes = ids[one] != ids[other]
            outline[one] |= changes
            outline[other] |= changes
        ray_x, ray_y = (np.broadcast_to(r, ids.shape)[outline] for r in (ray_x, ray_y))
        if not len(ray_x):
            return
        ray_x = ray_x + _SAMPLES_PX[:, :1] / np.float32(self._camera.fx)
        ray_y = ray_y + _SAMPLES_PX[:, 1:] / np.float32(self._camera.fy)
        ids, inverse_depth = self._intersect(ray_x, ray_y, ray_x.shape, lambda _: np.s_[:, :])
        image[outline] = self._colour(ids, inverse_depth, ray_x, ray_y).mean(axis=0)


def _ray_grid(camera: PinholeCamera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rays (x, y, 1) of all pixels, as (1, W) and (H, 1), or both (H, W) with distortion."""
    columns, rows = np.arange(camera.width), np.arange(camera.height)
    x = ((columns - camera.cx) / camera.fx).astype(np.float32)[None]
    y = ((rows - camera.cy) / camera.fy).astype(np.float32)[:, None]
    if not camera.is_distorted:
        return x, y
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float64)
    ideal = np.asarray(camera.undistort(pixels)).reshape(camera.height, camera.width, 2)
    rays = (ideal - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    return rays[..., 0].astype(np.float32), rays[..., 1].astype(np.float32)


def _crop(rays: NDArray[np.float32], part: tuple[slice, slice]) -> NDArray[np.float32]:
    """Cut a window out of rays of which an axis may be of length 1 for broadcasting."""
    return rays[tuple(np.s_[:] if n == 1 else p for n, p in zip(rays.shape, part, strict=True))]


class _MipAtlas:
    """All textures at all halvings in one image, so that one remap samples any of them."""

    def __init__(self, textures: Sequence[NDArray[np.uint8]]) -> None:
        pyramids = [_halvings(texture) for texture in textures]
        self._num_levels = np.array([len(p) for p in pyramids], np.int32)
        levels = int(self._num_levels.max())
        placed = [(i, k, level) for i, p in enumerate(pyramids) for k, level in enumerate(p)]
        placed.sort(key=lambda entry: -entry[2].shape[0])
        # Offset x, y, width, height of every level, in rows of equally high shelves.
        self._places = np.zeros((len(pyramids), levels, 4), np.float32)
        width = max(_ATLAS_WIDTH_PX, max(p[0].shape[1] for p in pyramids))
        x = y = shelf = 0
        for i, k, level in placed:
            height_px, width_px = level.shape[:2]
            if x + width_px > width:
                x, y, shelf = 0, y + shelf, 0
            shelf = max(shelf, height_px)
            self._places[i, k] = x, y, width_px, height_px
            x += width_px
        height = y + shelf
        if max(width, height) > _MAX_REMAP_SIDE_PX:
            raise ValueError(
                f'The textures fill an image of {width} x {height} px, wanted no side over '
                f'{_MAX_REMAP_SIDE_PX} px; give surfaces fewer texels.'
            )
        self._image = np.zeros((height, width, 3), np.uint8)
        for i, k, level in placed:
            left, top, width_px, height_px = self._places[i, k].astype(int)
            self._image[top : top + height_px, left : left + width_px] = level

    def sample(
        self,
        ids: NDArray[np.int32],
        u: NDArray[np.float32],
        v: NDArray[np.float32],
        steps_u: tuple[NDArray[np.float32], NDArray[np.float32]],
        steps_v: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Look up textures with a filter that fits the footprint of a pixel.

        Two samples along the longer axis of the footprint, each between two halvings.

        Args:
            ids: (...) int32, which texture.
            u: (...) float32 in [0, 1], from left to right.
            v: (...) float32 in [0, 1], from top to bottom.
            steps_u: change of u over one pixel to the right and one down.
            steps_v: the same of v.

        Returns:
            (..., 3) float32 RGB in [0, 255].
        """
        width, height = self._places[:, 0, 2][ids], self._places[:, 0, 3][ids]
        right = np.hypot(steps_u[0] * width, steps_v[0] * height)
        down = np.hypot(steps_u[1] * width, steps_v[1] * height)
        is_right_longer = right >= down
        longer, shorter = np.maximum(right, down), np.minimum(right, down)
        footprint = np.maximum(np.maximum(shorter, 0.5 * longer), 1e-6)
        level = np.clip(np.log2(footprint), 0.0, (self._num_levels[ids] - 1).astype(np.float32))
        lower = level.astype(np.int32)
        weight = (level - lower)[..., None]
        upper = np.minimum(lower + 1, self._num_levels[ids] - 1)
        # A square footprint needs no second sample: the distance shrinks to nothing.
        spread = 0.25 * np.clip(2.0 - 2.0 * shorter / np.maximum(longer, 1e-6), 0.0, 1.0)
        offset_u = np.where(is_right_longer, steps_u[0], steps_u[1]) * spread
        offset_v = np.where(is_right_longer, steps_v[0], steps_v[1]) * spread
        total = np.zeros((*ids.shape, 3), np.float32)
        for sign in (-1.0, 1.0):
            at_u, at_v = u + sign * offset_u, v + sign * offset_v
            fine = self._look_up(ids, lower, at_u, at_v)
            total += fine + weight * (self._look_up(ids, upper, at_u, at_v) - fine)
        return 0.5 * total

    def _look_up(
        self,
        ids: NDArray[np.int32],
        level: NDArray[np.int32],
        u: NDArray[np.float32],
        v: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        places = self._places.reshape(-1, 4)
        index = ids * self._places.shape[1] + level
        left, top, width, height = (places[:, k][index] for k in range(4))
        x = left + np.clip(u * width - 0.5, 0.0, width - 1.0)
        y = top + np.clip(v * height - 0.5, 0.0, height - 1.0)
        shape = x.shape
        rows = -(-x.size // _REMAP_SIDE_PX)
        maps = np.zeros((2, rows * _REMAP_SIDE_PX), np.float32)
        maps[0, : x.size], maps[1, : x.size] = x.ravel(), y.ravel()
        maps = maps.reshape(2, rows, _REMAP_SIDE_PX)
        colours = cv2.remap(self._image, maps[0], maps[1], cv2.INTER_LINEAR)
        return colours.reshape(-1, 3)[: x.size].reshape(*shape, 3).astype(np.float32)


def _halvings(texture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [texture]
    while min(levels[-1].shape[:2]) >= 8:
        height, width = levels[-1].shape[:2]
        levels.append(
            cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        )
    return levels
