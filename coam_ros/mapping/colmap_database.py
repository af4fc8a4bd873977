"""Matches into a COLMAP database, and what COLMAP makes of it: a reconstruction, or points alone.

COLMAP's pixel (0, 0) is the corner of the top-left pixel, ours its centre: half a pixel is added
on the way there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory

from coam_ros.mapping.importers.sfm_model import HALF_PIXEL
from coam_ros.mapping.shared_keypoints import SharedKeypoints
import numpy as np
from numpy.typing import NDArray
import pycolmap

_SEED = 0
# A model of fewer images is no reconstruction.
_MIN_IMAGES = 3
# Of a triangulated point: the rays must meet at this angle, and pass its key points this near
# [px at 640 x 480]. With less of either, poses that drift spoil depths, and false poses pass the
# gates. Measured in docs/maps.md.
_MIN_ANGLE_DEG, _MAX_REPROJECTION_ERROR_PX = 8.0, 2.0


def write_database(
    path: Path,
    directory: Path,
    shared: SharedKeypoints,
    intrinsics: Mapping[str, NDArray[np.float64]],
) -> None:
    """Write cameras, images, key points, matches and verified two-view geometries.

    Args:
        path: of the database; a former file stays whole until the new one is.
        directory: of the images.
        shared: key points and matches.
        intrinsics: (3, 3) by name; images without are given COLMAP's guess, from EXIF where there
            is one. Images of equal size and intrinsics share a camera.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + '.part')
    unfinished.unlink(missing_ok=True)
    with _quiet():
        with pycolmap.Database.open(unfinished) as database:
            ids = _write_images(database, directory, shared, intrinsics)
            for (name0, name1), matches in shared.matches.items():
                if len(matches):
                    database.write_matches(ids[name0], ids[name1], matches.astype(np.uint32))
        pycolmap.geometric_verification(
            unfinished,
            two_view_geometry_options=pycolmap.TwoViewGeometryOptions(
                {'ransac': {'random_seed': _SEED}}
            ),
        )
    unfinished.replace(path)


def _write_images(
    database: pycolmap.Database,
    directory: Path,
    shared: SharedKeypoints,
    intrinsics: Mapping[str, NDArray[np.float64]],
) -> dict[str, int]:
    """Write every image with camera, alone on a rig, and key points; returns the ids by name."""
    rigs: dict[object, tuple[int, pycolmap.sensor_t, int]] = {}
    ids = {}
    key: object
    for name, size in shared.image_sizes.items():
        if name in intrinsics:
            key = (size, intrinsics[name].tobytes())
            camera = _pinhole(intrinsics[name], size)
        else:
            camera = pycolmap.infer_camera_from_image(directory / name)
            # Without EXIF nothing says that two images are of one camera.
            key = (size, tuple(camera.params)) if camera.has_prior_focal_length else name
        if key not in rigs:
            camera.camera_id = database.write_camera(camera)
            rig = pycolmap.Rig()
            rig.add_ref_sensor(camera.sensor_id)
            rigs[key] = (database.write_rig(rig), camera.sensor_id, camera.camera_id)
        rig_id, sensor_id, camera_id = rigs[key]
        image = pycolmap.Image(name=name, camera_id=camera_id)
        ids[name] = image.image_id = database.write_image(image)
        frame = pycolmap.Frame(rig_id=rig_id)
        frame.add_data_id(pycolmap.data_t(sensor_id, image.image_id))
        database.write_frame(frame)
        keypoints = shared.keypoints[name] + np.float32(HALF_PIXEL)
        database.write_keypoints(image.image_id, keypoints)
    return ids


def _pinhole(K: NDArray[np.float64], size: tuple[int, int]) -> pycolmap.Camera:
    params = [K[0, 0], K[1, 1], K[0, 2] + HALF_PIXEL, K[1, 2] + HALF_PIXEL]
    width, height = size
    camera = pycolmap.Camera(model='PINHOLE', width=width, height=height, params=params)
    camera.has_prior_focal_length = True
    return camera


def reconstruct(
    database: Path,
    directory: Path,
    out: Path,
    *,
    refine_intrinsics: bool,
    num_threads: int | None = None,
) -> pycolmap.Reconstruction | None:
    """Reconstruct a scene and write the model with the most images.

    Args:
        database: as `write_database` makes it.
        directory: of the images.
        out: folder for the model; a former one stays until the new one is whole.
        refine_intrinsics: for intrinsics that are a guess.
        num_threads: CPU threads; None takes all.

    Returns:
        That model, or None when there is none of at least 3 images; then `out` stays as it is.
    """
    unfinished = out.with_name(out.name + '.part')
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    options: dict[str, object] = {
        'random_seed': _SEED,
        'min_model_size': _MIN_IMAGES,
        'num_threads': num_threads or -1,
        'ba_refine_focal_length': refine_intrinsics,
        'ba_refine_extra_params': refine_intrinsics,
        'mapper': {
            'abs_pose_refine_focal_length': refine_intrinsics,
            'abs_pose_refine_extra_params': refine_intrinsics,
        },
    }
    with _quiet():
        models = pycolmap.incremental_mapping(
            database,
            directory,
            unfinished,
            options=pycolmap.IncrementalPipelineOptions(options),
        )
    best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
    if best is not None:
        made = unfinished / 'best'
        made.mkdir()
        best.write(made)
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    shutil.rmtree(unfinished)
    return best


def triangulate(
    shared: SharedKeypoints,
    intrinsics: Mapping[str, NDArray[np.float64]],
    T_camera_map: Mapping[str, NDArray[np.float64]],
    num_threads: int | None = None,
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Find the 3D points of key points of images whose poses are known; the poses stay.

    Args:
        shared: key points, free of distortion, and matches, all of which are believed.
        intrinsics: (3, 3) by name.
        T_camera_map: (4, 4) by name.
        num_threads: CPU threads; None takes all.

    Returns:
        By name of the image the (M,) key points that have a point, and (M, 3) these in the map.
    """
    options = {
        'random_seed': _SEED,
        'num_threads': num_threads or -1,
        'triangulation': {
            'random_seed': _SEED,
            'ignore_two_view_tracks': False,
            'min_angle': _MIN_ANGLE_DEG,
        },
        'mapper': {'filter_max_reproj_error': _MAX_REPROJECTION_ERROR_PX},
    }
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / 'database.db'
        with pycolmap.Database.open(path) as database:
            # The folder of the images is not asked for: all have intrinsics.
            ids = _write_images(database, Path(), shared, intrinsics)
            for (name0, name1), matches in shared.matches.items():
                verified = pycolmap.TwoViewGeometry(
                    config=pycolmap.TwoViewGeometryConfiguration.CALIBRATED,
                    inlier_matches=matches.astype(np.uint32),
                )
                database.write_two_view_geometry(ids[name0], ids[name1], verified)
            model = _posed_model(database, T_camera_map)
        model = pycolmap.triangulate_points(
            model,
            path,
            folder,
            folder,
            options=pycolmap.IncrementalPipelineOptions(options),
        )
    found = {}
    for image in model.images.values():
        seen = [(i, p.point3D_id) for i, p in enumerate(image.points2D) if p.has_point3D()]
        points_map = [model.points3D[point].xyz for _, point in seen]
        indices = np.array([index for index, _ in seen], np.int64)
        found[image.name] = indices, np.array(points_map).reshape(-1, 3)
    return found


def _posed_model(
    database: pycolmap.Database, T_camera_map: Mapping[str, NDArray[np.float64]]
) -> pycolmap.Reconstruction:
    """Make a model of the images of a database at known poses, without points."""
    model = pycolmap.Reconstruction()
    for camera in database.read_all_cameras():
        model.add_camera(camera)
    for rig in database.read_all_rigs():
        model.add_rig(rig)
    images = {image.image_id: image for image in database.read_all_images()}
    for frame in database.read_all_frames():
        (data_id,) = frame.data_ids
        pose = T_camera_map[images[data_id.id].name]
        frame.rig_from_world = pycolmap.Rigid3d(pose[:3])
        model.add_frame(frame)
    for image in images.values():
        model.add_image(image)
        model.register_frame(image.frame_id)
    return model


def relative_poses(
    model: pycolmap.Reconstruction | None, pairs: Sequence[tuple[str, str]]
) -> list[NDArray[np.float64] | None]:
    """Give T_1_0 (4, 4), of the model's scale, of named pairs; None where an image is missing."""
    poses = {}
    if model is not None:
        for image in model.images.values():
            if image.has_pose:
                pose = image.cam_from_world()
                poses[image.name] = np.vstack([pose.matrix(), (0, 0, 0, 1)])
    return [
        poses[name1] @ np.linalg.inv(poses[name0]) if {name0, name1} <= poses.keys() else None
        for name0, name1 in pairs
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep COLMAP's log off the terminal; what goes wrong it raises, here as OSError."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    except RuntimeError as error:
        # Of SQLite mostly, which says little.
        raise OSError(
            f'COLMAP failed ({error}). Its database may not be writable: make room, or choose '
            'another folder (TMPDIR for temporary files).'
        ) from error
    finally:
        pycolmap.logging.minloglevel = level
