"""COLMAP models as text: images with pose, intrinsics and the 3D points that they see.

COLMAP writes binary models by default; `colmap model_converter --output_type TXT` makes text of
them. https://colmap.github.io/format.html#text-format
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coam_ros.geometry.transforms import make_transform, rotation_from_quaternion_xyzw
from coam_ros.mapping.importers.sfm_model import colmap_camera
import numpy as np
from numpy.typing import NDArray

# Without distortion.
_MODELS = ('SIMPLE_PINHOLE', 'PINHOLE')


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """An image of a model.

    Attributes:
        name: of the file.
        T_camera_world: (4, 4).
        K: (3, 3) intrinsics, (0, 0) being the centre of the top-left pixel.
        point_ids: (N,) int64, sorted ids of the 3D points that it sees.
    """

    name: str
    T_camera_world: NDArray[np.float64]
    K: NDArray[np.float64]
    point_ids: NDArray[np.int64]


def read_colmap_text(model: Path) -> list[ColmapImage]:
    """Read `cameras.txt` and `images.txt`.

    Args:
        model: folder that holds them.

    Returns:
        Images in the order of the file.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line is not as COLMAP writes it, or a camera has distortion.
    """
    cameras = _read_cameras(model / 'cameras.txt')
    path = model / 'images.txt'
    lines = [line for line in path.read_text().split('\n') if not line.startswith('#')]
    images = []
    # Two lines an image; the second, its points, may be empty.
    for head, points in zip(lines[::2], lines[1::2], strict=False):
        try:
            words = head.split(maxsplit=9)
            qw, qx, qy, qz, *translation = (float(word) for word in words[1:8])
            R = rotation_from_quaternion_xyzw((qx, qy, qz, qw))
            point_ids = np.array(points.split()[2::3], np.int64)
            images.append(
                ColmapImage(
                    words[9],
                    make_transform(R, translation),
                    cameras[words[8]],
                    np.unique(point_ids[point_ids >= 0]),
                )
            )
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f'{path}: got {head[:80]!r} ({error}), wanted IMAGE_ID QW QX QY QZ TX TY TZ '
                'CAMERA_ID NAME, and the points on the next line; write the model again with '
                '`colmap model_converter --output_type TXT`.'
            ) from error
    return images


def _read_cameras(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read intrinsics by camera id."""
    cameras = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if not words or line.startswith('#'):
            continue
        if len(words) < 7 or words[1] not in _MODELS:
            raise ValueError(
                f'{path}: got {line!r}, wanted CAMERA_ID, one of {", ".join(_MODELS)}, WIDTH, '
                'HEIGHT and the parameters; undistort the images with `colmap image_undistorter`.'
            )
        parameters = [float(word) for word in words[4:]]
        cameras[words[0]] = colmap_camera(words[1], int(words[2]), int(words[3]), parameters).K
    return cameras
