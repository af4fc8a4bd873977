"""Models of COLMAP, binary or text."""

from __future__ import annotations

from pathlib import Path

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import invert, make_transform
from coam_ros.mapping.importers.sfm_model import (
    colmap_camera,
    HALF_PIXEL,
    is_colmap_model,
    SfmImage,
    SfmModelError,
)
import numpy as np
import pycolmap


def read_colmap_model(directory: Path) -> dict[str, SfmImage]:
    """Read the images with a pose and the points that they see, by name, sorted.

    COLMAP ends a name at its first space in a model as text; a binary one keeps it.

    Raises:
        FileNotFoundError: no model there.
        SfmModelError: a camera that has no counterpart, or a model that COLMAP does not read.
    """
    if not is_colmap_model(directory):
        raise FileNotFoundError(
            f'No COLMAP model in {directory}; wanted cameras, images and points3D (.bin or .txt).'
        )
    try:
        model = pycolmap.Reconstruction(directory)
    # Files that are cut short give the last two.
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:
        raise SfmModelError(
            f'{directory}: COLMAP cannot read this model ({error}). Copy or export it whole again.'
        ) from error
    _check_length(directory / 'cameras.bin', model)
    cameras = {key: _camera(directory, camera) for key, camera in model.cameras.items()}
    images = {}
    for image in model.images.values():
        if not image.has_pose:
            continue
        seen = [point for point in image.points2D if point.has_point3D()]
        pixels = np.array([point.xy for point in seen]).reshape(-1, 2) - HALF_PIXEL
        ids = [point.point3D_id for point in seen]
        missing = next((key for key in ids if key not in model.points3D), None)
        if missing is not None:
            raise SfmModelError(
                f'{directory}: {image.name} sees point {missing}, which points3D does not hold; '
                'export the whole model again.'
            )
        pose = image.cam_from_world()
        images[image.name] = SfmImage(
            image.name,
            cameras[image.camera_id],
            invert(make_transform(pose.rotation.matrix(), pose.translation)),
            pixels.astype(np.float32),
            np.array([model.points3D[key].xyz for key in ids]).reshape(-1, 3),
            np.array(ids, np.int64),
        )
    return dict(sorted(images.items()))


def _check_length(path: Path, model: pycolmap.Reconstruction) -> None:
    """Refuse a file of cameras that is cut short, which COLMAP fills up with anything."""
    # The number of cameras; of each id, model, width, height and parameters.
    wanted = 8 + sum(24 + 8 * len(camera.params) for camera in model.cameras.values())
    if path.is_file() and path.stat().st_size != wanted:
        raise SfmModelError(
            f'{path} has {path.stat().st_size} bytes, wanted {wanted} for its '
            f'{len(model.cameras)} cameras: it is damaged. Copy or export the model again.'
        )


def _camera(directory: Path, camera: pycolmap.Camera) -> PinholeCamera:
    try:
        return colmap_camera(
            camera.model_name, camera.width, camera.height, camera.params.tolist()
        )
    except ValueError as error:
        raise SfmModelError(f'{directory}, camera {camera.camera_id}: {error}') from error
