"""Models of VisualSFM (NVM_V3), in which Cambridge Landmarks and Aachen come.

http://ccwu.me/vsfm/doc.html#nvm: a line a camera (name, focal length, quaternion w x y z of the
world in the camera, its centre, radial distortion, 0), then a line a point (x y z, r g b, number
of measurements, and for each: image, feature, x y from the centre of the image).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import invert, make_transform, rotation_from_quaternion_xyzw
from coam_ros.mapping.importers.sfm_model import HALF_PIXEL, SfmImage, SfmModelError
import numpy as np


def read_nvm(
    path: Path, camera_of: Callable[[str, float], PinholeCamera | None]
) -> dict[str, SfmImage]:
    """Read the images and the points that they see, by name, in the order of the file.

    Args:
        path: of the model.
        camera_of: gives the camera of an image by its name and its focal length [px]; None leaves
            the image out. The radial distortion of the file, which VisualSFM means the other way
            round, is not used.

    Raises:
        FileNotFoundError: no such file.
        SfmModelError: it is not such a model.
    """
    if not path.is_file():
        raise FileNotFoundError(f'No model {path}; wanted one of VisualSFM.')
    with path.open(encoding='utf-8', errors='replace') as file:
        lines = (line.split() for line in file if line.strip())
        try:
            # NVM_V3_R9T has matrices instead of quaternions.
            if (kind := next(lines)[0]) != 'NVM_V3':
                raise ValueError(f'got {kind} on the first line, wanted NVM_V3')
            return _read_model(lines, camera_of)
        except (IndexError, StopIteration, ValueError) as error:
            raise SfmModelError(
                f'{path}: not a whole model of VisualSFM ({error or "it ends too early"}); bring '
                'the file again.'
            ) from error


def _read_model(
    lines: Iterator[list[str]], camera_of: Callable[[str, float], PinholeCamera | None]
) -> dict[str, SfmImage]:
    heads = [next(lines) for _ in range(int(next(lines)[0]))]
    points: list[list[float]] = []
    # Of each image: x, y from its centre, and the place of the point.
    seen: list[list[tuple[float, float, int]]] = [[] for _ in heads]
    for place in range(int(next(lines)[0])):
        words = next(lines)
        points.append([float(value) for value in words[:3]])
        for start in range(7, 7 + 4 * int(words[6]), 4):
            image, x, y = words[start], words[start + 2], words[start + 3]
            seen[int(image)].append((float(x), float(y), place))
    points_map = np.array(points).reshape(-1, 3)
    images = {}
    for head, measurements in zip(heads, seen, strict=True):
        # Some write ./ before it.
        name, (focal, qw, qx, qy, qz, *centre) = Path(head[0]).as_posix(), map(float, head[1:9])
        camera = camera_of(name, focal)
        if camera is None:
            continue
        R = rotation_from_quaternion_xyzw((qx, qy, qz, qw))
        columns = np.array(measurements).reshape(-1, 3)
        places = columns[:, 2].astype(np.int64)
        middle = np.array([camera.width, camera.height]) / 2
        images[name] = SfmImage(
            name,
            camera,
            invert(make_transform(R, -R @ np.array(centre))),
            (columns[:, :2] + middle - HALF_PIXEL).astype(np.float32),
            points_map[places],
            places,
        )
    return images
