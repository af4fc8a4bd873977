"""Images of a structure-from-motion model, as keyframes with landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.image_header import read_image_header
from coam_ros.mapping.importers.text import read_lines
from coam_ros.mapping.keyframe import Keyframe
import numpy as np
from numpy.typing import NDArray

# COLMAP and VisualSFM count pixels from the corner of the top-left one, we from its centre.
HALF_PIXEL = 0.5
_PLUMB_BOB, _RATIONAL, _EQUIDISTANT = 'plumb_bob', 'rational_polynomial', 'equidistant'
# Model: number of focal lengths, our distortion model, number of coefficients.
_CAMERA_MODELS = {
    'SIMPLE_PINHOLE': (1, _PLUMB_BOB, 0),
    'PINHOLE': (2, _PLUMB_BOB, 0),
    'SIMPLE_RADIAL': (1, _PLUMB_BOB, 1),
    'RADIAL': (1, _PLUMB_BOB, 2),
    'OPENCV': (2, _PLUMB_BOB, 4),
    'FULL_OPENCV': (2, _RATIONAL, 8),
    'SIMPLE_RADIAL_FISHEYE': (1, _EQUIDISTANT, 1),
    'RADIAL_FISHEYE': (1, _EQUIDISTANT, 2),
    'OPENCV_FISHEYE': (2, _EQUIDISTANT, 4),
}


class SfmModelError(ValueError):
    """A model or a list of images that cannot be used; the message names the file."""


@dataclass(frozen=True, eq=False)
class SfmImage:
    """An image of a model.

    Attributes:
        name: of the file, relative to the folder of images.
        camera: its intrinsics, at the size at which the model was made.
        T_map_camera: (4, 4) float64.
        landmark_pixels: (M, 2) float32, (0, 0) being the centre of the top-left pixel.
        landmark_points_map: (M, 3) float64.
        landmark_ids: (M,) int64, the same for a point in all images of the model.
    """

    name: str
    camera: PinholeCamera
    T_map_camera: NDArray[np.float64]
    landmark_pixels: NDArray[np.float32]
    landmark_points_map: NDArray[np.float64]
    landmark_ids: NDArray[np.int64]


class SfmFrames(Sequence[Keyframe]):
    """Images of a model with their files, read when they are asked for.

    A file of another size than the model was made at is fine where the aspect is the same: the
    camera and the landmarks are scaled.

    Attributes:
        directory: of the image files.
        names: of the images.
    """

    def __init__(self, directory: Path, images: Sequence[SfmImage]) -> None:
        """Check that the files are there; reads none.

        Raises:
            SfmModelError: no images, or a file is missing.
        """
        if not images:
            raise SfmModelError(f'No images to read from {directory}; check the model and lists.')
        self.directory = directory
        self.names = [image.name for image in images]
        self._images = images
        for name in self.names:
            if not (directory / name).is_file():
                raise SfmModelError(
                    f'{directory} has no {name}, which a model or a list names; bring the image, '
                    'or remove it there.'
                )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Keyframe:  # type: ignore[override]
        """Read an image; its id is its place.

        Raises:
            SfmModelError: it is damaged, or its size does not go with its camera.
        """
        image = self._images[index]
        data = (self.directory / image.name).read_bytes()
        try:
            header = read_image_header(data)
            scale, camera = scaled_camera(image.camera, header.width, header.height)
            has_landmarks = len(image.landmark_pixels) > 0
            pixels = (image.landmark_pixels + HALF_PIXEL) * scale - HALF_PIXEL
            return Keyframe(
                id=range(len(self))[index],
                stamp_s=0.0,
                T_map_camera=image.T_map_camera,
                camera=camera,
                image=data,
                landmark_pixels=pixels if has_landmarks else None,
                landmark_points_map=image.landmark_points_map if has_landmarks else None,
            )
        except MapFormatError as error:
            raise SfmModelError(f'{self.directory / image.name}: {error}') from error


def is_colmap_model(directory: Path) -> bool:
    """Tell whether a folder holds a model of COLMAP."""
    return any((directory / f'images.{kind}').is_file() for kind in ('bin', 'txt'))


def colmap_camera(model: str, width: int, height: int, params: Sequence[float]) -> PinholeCamera:
    """Make a camera of what COLMAP writes of one.

    Args:
        model: name of COLMAP's camera model.
        width: of the image [px].
        height: of the image [px].
        params: in COLMAP's order.

    Raises:
        SfmModelError: a model that has no counterpart, or a wrong number of parameters.
        CalibrationError: the numbers do not describe a camera.
    """
    if model not in _CAMERA_MODELS:
        raise SfmModelError(
            f'Camera model {model}, wanted one of {", ".join(_CAMERA_MODELS)}; undistort the '
            'images.'
        )
    num_focal, distortion_model, num_coefficients = _CAMERA_MODELS[model]
    wanted = num_focal + 2 + num_coefficients
    if len(params) != wanted:
        raise SfmModelError(f'{len(params)} parameters of a {model} camera, wanted {wanted}.')
    focal, rest = params[:num_focal], params[num_focal:]
    distortion = tuple(rest[2:])
    if distortion and distortion_model != _RATIONAL:
        distortion += (0.0,) * (4 - len(distortion))
    return PinholeCamera(
        width,
        height,
        focal[0],
        focal[-1],
        rest[0] - HALF_PIXEL,
        rest[1] - HALF_PIXEL,
        distortion,
        distortion_model,
    )


def read_query_cameras(path: Path) -> dict[str, PinholeCamera]:
    """Read a list of images with intrinsics: name MODEL width height parameters, as of hloc.

    Raises:
        FileNotFoundError: no such list.
        SfmModelError: a line is wrong, or there are none.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'No list {path}; wanted a text file, a line an image: name MODEL width height '
            'parameters.'
        )
    cameras = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words or line.startswith('#'):
            continue
        try:
            name, model, width, height, *params = words
            cameras[name] = colmap_camera(
                model, int(width), int(height), [float(value) for value in params]
            )
        except ValueError as error:
            raise SfmModelError(
                f'{path}, line {number}: got {line!r} ({error}), wanted name MODEL width height '
                'parameters, as COLMAP has them; correct the line.'
            ) from error
    if not cameras:
        raise SfmModelError(f'{path} names no images, wanted at least one.')
    return cameras


def scaled_camera(camera: PinholeCamera, width: int, height: int) -> tuple[float, PinholeCamera]:
    """Scale a camera to an image of the same aspect.

    Returns:
        The factor, and the camera.

    Raises:
        MapFormatError: the aspects differ.
    """
    scale = width / camera.width
    if abs(camera.height * scale - height) > 1:
        raise MapFormatError(
            f'image of {width} x {height} pixels, camera of {camera.width} x {camera.height}; '
            'wanted one aspect. Bring the images that the model was made of'
        )
    return scale, replace(
        camera,
        width=width,
        height=height,
        fx=camera.fx * scale,
        fy=camera.fy * scale,
        cx=(camera.cx + HALF_PIXEL) * scale - HALF_PIXEL,
        cy=(camera.cy + HALF_PIXEL) * scale - HALF_PIXEL,
    )
