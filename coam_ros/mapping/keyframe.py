"""One image of the map: its pose, camera, pixels and the 3D that belongs to them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import is_rigid, transform_points
from coam_ros.mapping.depth import depth_m_from_counts, interpolate_depth
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.image_header import ImageHeader, read_image_header
from coam_ros.matching.image_files import decode_rgb
from coam_ros.matching.preprocessing import is_strip, MAX_ASPECT
import cv2
import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

# A pixel takes the 3D point of a landmark that was seen at most this far away, in pixels of an
# image of 640 x 480; scaled with the root of the area for other sizes.
LANDMARK_RADIUS_PX = 3.0


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One image of the map.

    Attributes:
        id: not negative, unique in a map.
        stamp_s: when the image was taken [s].
        T_map_camera: (4, 4) float64, pose of the optical frame (x right, y down, z forward).
        camera: intrinsics of the image; the depth has the same.
        image: encoded JPEG or PNG.
        depth: encoded 16-bit grey PNG of the same size, registered to the image, depth along the
            optical axis; 0 and 65535 mean none. None: the keyframe has no depth image.
        depth_scale_m: metres a count of the depth image.
        landmark_pixels: (M, 2) float32 positions of known 3D points, or None.
        landmark_points_map: (M, 3) float64, the same points in the map frame [m], or None.
        global_descriptor: (D,) float32 of unit length, for retrieval; None until it is computed.
    """

    id: int
    stamp_s: float
    T_map_camera: NDArray[np.float64]
    camera: PinholeCamera
    image: bytes
    depth: bytes | None = None
    depth_scale_m: float = 0.001
    landmark_pixels: NDArray[np.float32] | None = None
    landmark_points_map: NDArray[np.float64] | None = None
    global_descriptor: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Check every field without decoding a pixel, and freeze the arrays.

        Raises:
            MapFormatError: naming the keyframe and the field.
        """
        try:
            self._check_scalars()
            self._check_images()
            self._freeze('T_map_camera', np.float64)
            self._freeze('landmark_pixels', np.float32)
            self._freeze('landmark_points_map', np.float64)
            self._freeze('global_descriptor', np.float32)
            self._check_arrays()
            self._check_descriptor()
        except MapFormatError as error:
            raise MapFormatError(f'Keyframe {self.id}: {error}') from error

    def with_descriptor(self, global_descriptor: NDArray[np.float32] | None) -> Keyframe:
        """Give this keyframe with another global descriptor; its images are not checked again.

        Raises:
            MapFormatError: it is no (D,) of length 1.
        """
        keyframe = copy.copy(self)
        object.__setattr__(keyframe, 'global_descriptor', global_descriptor)
        keyframe._freeze('global_descriptor', np.float32)
        keyframe._check_descriptor()
        return keyframe

    @property
    def image_format(self) -> str:
        """'jpeg' or 'png'."""
        return 'jpeg' if self.image.startswith(b'\xff\xd8') else 'png'

    @property
    def num_bytes(self) -> int:
        """Memory that the encoded image, the depth, the landmarks and the descriptor take."""
        arrays = (self.landmark_pixels, self.landmark_points_map, self.global_descriptor)
        return (
            len(self.image)
            + len(self.depth or b'')
            + sum(array.nbytes for array in arrays if array is not None)
        )

    def decode_image(self) -> NDArray[np.uint8]:
        """Decode the image.

        Returns:
            (H, W, 3) uint8 RGB, as stored; see `decode_rgb`.

        Raises:
            MapFormatError: the data is damaged.
        """
        return self._checked('image', decode_rgb(self.image))

    def decode_depth_m(self) -> NDArray[np.float32] | None:
        """Decode the depth image.

        Returns:
            (H, W) float32 depth along the optical axis [m], NaN where there is none; None for a
            keyframe without a depth image.

        Raises:
            MapFormatError: the data is damaged.
        """
        if self.depth is None:
            return None
        try:
            counts = cv2.imdecode(np.frombuffer(self.depth, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:  # for example more pixels than OpenCV takes
            counts = None
        return depth_m_from_counts(self._checked('depth', counts), self.depth_scale_m)

    def lift(self, pixels: ArrayLike, depth_m: NDArray[np.float32] | None) -> NDArray[np.float64]:
        """Find the 3D points behind pixels of this keyframe.

        Depth comes first; where it says nothing, the nearest landmark within
        `LANDMARK_RADIUS_PX` stands in.

        Args:
            pixels: (N, 2) positions in the image.
            depth_m: what `decode_depth_m` gave (decoding once is the caller's affair), or None.

        Returns:
            (N, 3) float64 in the map frame [m]; NaN where nothing is known and at depth edges.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        points_map = np.full((len(pixels), 3), np.nan)
        if depth_m is not None:
            depth = interpolate_depth(depth_m, pixels)
            known = np.isfinite(depth)
            points_camera = self.camera.unproject(pixels[known], depth[known])
            points_map[known] = transform_points(self.T_map_camera, points_camera)
        landmark_pixels, landmark_points_map = self.landmark_pixels, self.landmark_points_map
        if landmark_pixels is not None and landmark_points_map is not None:
            unknown = np.flatnonzero(np.isnan(points_map[:, 0]) & np.isfinite(pixels).all(axis=1))
            radius_px = LANDMARK_RADIUS_PX * self.camera.pixels_per_nominal
            nearest, is_near = _find_nearest(landmark_pixels, pixels[unknown], radius_px)
            points_map[unknown[is_near]] = landmark_points_map[nearest[is_near]]
        return points_map

    def _checked(self, name: str, pixels: NDArray[Any] | None) -> NDArray[Any]:
        """Return what was decoded, or raise where it is nothing or of another size."""
        shape = (self.camera.height, self.camera.width)
        if pixels is None or pixels.shape[:2] != shape:
            raise MapFormatError(
                f'Keyframe {self.id}: {name} does not decode ({len(getattr(self, name))} bytes), '
                f'wanted {shape[1]} x {shape[0]} pixels; the data is damaged, make the map again'
            )
        return pixels

    def _freeze(self, name: str, dtype: type) -> None:
        value = getattr(self, name)
        if value is None:
            return
        try:
            array: NDArray[Any] = np.array(value, dtype=dtype, order='C')
        except (OverflowError, TypeError, ValueError) as error:
            raise MapFormatError(
                f'{name} is not an array of numbers ({error}); give one of {dtype.__name__}'
            ) from error
        array.flags.writeable = False
        object.__setattr__(self, name, array)

    def _check_scalars(self) -> None:
        is_whole = isinstance(self.id, int | np.integer) and not isinstance(self.id, bool)
        if not is_whole or not 0 <= self.id < 2**63:
            raise MapFormatError(
                f'id is {self.id!r}, wanted an integer of at least 0 and below 2^63; number the '
                'keyframes anew'
            )
        for name in ('stamp_s', 'depth_scale_m'):
            value = getattr(self, name)
            # Not np.isfinite: it does not take integers of any size.
            if not isinstance(value, int | float | np.number) or not abs(value) < 1e300:
                raise MapFormatError(f'{name} is {value!r}, wanted a finite number; correct it')
        if self.depth is not None and self.depth_scale_m <= 0:
            raise MapFormatError(
                f'depth_scale_m is {self.depth_scale_m}, wanted metres a count above 0 '
                '(0.001 for a depth image in millimetres); correct it'
            )

    def _check_images(self) -> None:
        for name in ('image', 'depth'):
            data = getattr(self, name)
            if data is None and name == 'depth':
                continue
            if not isinstance(data, bytes):
                raise MapFormatError(
                    f'{name} is {type(data).__name__}, wanted bytes of an encoded image; '
                    'encode it as JPEG or PNG'
                )
            try:
                header = read_image_header(data)
            except MapFormatError as error:
                raise MapFormatError(f'{name}: {error}') from error
            self._check_header(name, header)

    def _check_header(self, name: str, header: ImageHeader) -> None:
        camera = self.camera
        if (header.width, header.height) != (camera.width, camera.height):
            raise MapFormatError(
                f'{name} is {header.width} x {header.height} pixels, wanted the size of the '
                f'camera {camera.width} x {camera.height}; give the intrinsics of this very '
                'image size' + (', and register the depth to the image' if name == 'depth' else '')
            )
        # One such keyframe would end the description of a whole map.
        if is_strip(header.height, header.width):
            raise MapFormatError(
                f'{name} is {header.width} x {header.height} pixels, wanted sides of at most '
                f'{MAX_ASPECT} : 1; cut it'
            )
        kind = (header.format, header.bits, header.channels)
        if name == 'depth' and kind != ('png', 16, 1):
            raise MapFormatError(
                f'depth is a {header.format} of {header.channels} channels of {header.bits} bits, '
                'wanted a 16-bit grey PNG; convert it'
            )

    def _check_arrays(self) -> None:
        if self.T_map_camera is None or not is_rigid(self.T_map_camera):
            raise MapFormatError(
                f'T_map_camera is not a rigid transform: {self.T_map_camera}, wanted '
                '(4, 4) finite, a rotation, last row 0 0 0 1; correct the pose'
            )
        pixels, points = self.landmark_pixels, self.landmark_points_map
        if (pixels is None) != (points is None):
            raise MapFormatError(
                'landmark_pixels and landmark_points_map come together, only one was given; '
                'give both or none'
            )
        if pixels is not None and points is not None:
            shapes, rows = (pixels.shape, points.shape), pixels.shape[:1]
            if shapes != ((*rows, 2), (*rows, 3)) or not (
                np.isfinite(pixels).all() and np.isfinite(points).all()
            ):
                raise MapFormatError(
                    f'landmarks have shapes {shapes[0]} and {shapes[1]}, wanted finite (M, 2) '
                    'pixels and (M, 3) points; leave out landmarks that are not known'
                )

    def _check_descriptor(self) -> None:
        descriptor = self.global_descriptor
        if descriptor is None:
            return
        # float32 of 256 entries keeps the length to about 1e-6; float16 messages to 1e-3.
        if descriptor.ndim != 1 or not abs(np.linalg.norm(descriptor) - 1) < 1e-2:
            raise MapFormatError(
                f'global_descriptor has shape {descriptor.shape} and length '
                f'{np.linalg.norm(descriptor):.3g}, wanted (D,) of length 1; compute it again'
            )


def _find_nearest(
    landmark_pixels: NDArray[np.float32], pixels: NDArray[np.float64], radius_px: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find the landmark nearest to each pixel, and whether it is within a radius."""
    if not len(pixels) or not len(landmark_pixels):
        return np.zeros(len(pixels), np.int64), np.zeros(len(pixels), bool)
    queries = np.ascontiguousarray(pixels, dtype=np.float32)
    nearest = faiss.knn(queries, landmark_pixels, 1)[1][:, 0]
    # faiss loses digits of the distance in float32 (it expands the square): measure again.
    offset_px = np.linalg.norm(landmark_pixels[nearest] - pixels, axis=1)
    return nearest, offset_px <= radius_px
