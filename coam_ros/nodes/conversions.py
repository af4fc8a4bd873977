"""Messages to records of the core and back; images have their own file."""

from __future__ import annotations

from array import array

from builtin_interfaces.msg import Time
from coam_msgs.msg import Keyframe as KeyframeMessage
from coam_msgs.msg import Matches, RelocalizationStatus
from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.geometry.transforms import (
    make_transform,
    quaternion_xyzw_from_rotation,
    rotation_from_quaternion_xyzw,
)
from coam_ros.localization import FailureReason, KeyframeMatches
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovarianceStamped,
    Quaternion,
    Transform,
    Vector3,
)
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

# Values of a status in words.
STATE_NAMES = {
    getattr(RelocalizationStatus, name): name.lower()
    for name in ('SEARCHING', 'LOCALIZED', 'LOST', 'BUILDING')
}
REASON_NAMES = {
    getattr(RelocalizationStatus, name): name.lower()
    for name in (
        'NONE',
        *(reason.name for reason in FailureReason),
        'NOT_CONFIRMED',
        'NO_CAMERA_INFO',
        'BAD_CALIBRATION',
        'BAD_IMAGE',
        'NO_MAP',
        'ENGINE_ERROR',
        'NO_TRANSFORM',
        'NO_IMAGE',
        'NO_ENGINE',
        'NOT_ACTIVE',
        'BAD_REQUEST',
    )
}


def float_array(values: ArrayLike) -> array:
    """Flatten to what rclpy takes for float32[] without looking at every value."""
    return array('f', np.asarray(values, np.float32).tobytes())


def seconds_from_stamp(stamp: Time) -> float:
    """Convert a stamp to seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def stamp_from_seconds(seconds: float) -> Time:
    """Convert seconds to a stamp, to the nanosecond that a float can tell."""
    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def pose_from_transform(T_a_b: NDArray[np.float64]) -> Pose:
    """Make a pose message of the pose of b in a.

    Args:
        T_a_b: (4, 4), rigid.
    """
    x, y, z, w = (float(q) for q in quaternion_xyzw_from_rotation(T_a_b[:3, :3]))
    tx, ty, tz = (float(t) for t in T_a_b[:3, 3])
    return Pose(position=Point(x=tx, y=ty, z=tz), orientation=Quaternion(x=x, y=y, z=z, w=w))


def transform_from_pose(pose: Pose) -> NDArray[np.float64]:
    """Read the pose of b in a as T_a_b, (4, 4) float64.

    Raises:
        ValueError: a quaternion of length zero, or numbers that are not finite.
    """
    position, rotation = pose.position, pose.orientation
    translation = (position.x, position.y, position.z)
    if not np.isfinite(translation).all():
        raise ValueError(f'Position {translation} is not finite; wanted metres. Correct the pose.')
    R = rotation_from_quaternion_xyzw([rotation.x, rotation.y, rotation.z, rotation.w])
    return make_transform(R, translation)


def tf_from_transform(T_parent_child: NDArray[np.float64]) -> Transform:
    """Make the message of TF of the pose of child in parent, (4, 4), rigid."""
    pose = pose_from_transform(T_parent_child)
    x, y, z = (float(t) for t in T_parent_child[:3, 3])
    return Transform(translation=Vector3(x=x, y=y, z=z), rotation=pose.orientation)


def transform_from_tf(transform: Transform) -> NDArray[np.float64]:
    """Read the pose of child in parent as T_parent_child, (4, 4) float64.

    Raises:
        ValueError: a quaternion of length zero, or numbers that are not finite.
    """
    t = transform.translation
    return transform_from_pose(
        Pose(position=Point(x=t.x, y=t.y, z=t.z), orientation=transform.rotation)
    )


def pose_with_covariance(
    T_map_frame: NDArray[np.float64], covariance: NDArray[np.float64], header: Header
) -> PoseWithCovarianceStamped:
    """Make the message of a pose.

    Args:
        T_map_frame: (4, 4), pose in the map of the frame that is localized.
        covariance: (6, 6), order x y z rx ry rz in the map frame [m, rad].
        header: stamp of the image, map frame.
    """
    message = PoseWithCovarianceStamped(header=header)
    message.pose.pose = pose_from_transform(T_map_frame)
    message.pose.covariance = np.asarray(covariance, np.float64).ravel()
    return message


def camera_from_info(info: CameraInfo, *, is_rectified: bool = False) -> PinholeCamera:
    """Read a calibration.

    Args:
        info: as the camera driver publishes it.
        is_rectified: the images are rectified, so P holds for them, without distortion.

    Raises:
        CalibrationError: not calibrated (k[0] is 0), or numbers that make no camera.
    """
    if info.k[0] == 0.0:
        raise CalibrationError(
            f'camera_info of {info.width} x {info.height} px has k[0] = 0, so the camera is not '
            'calibrated; wanted its focal length in pixels. Calibrate it (camera_calibration) '
            'and give the result to the driver.'
        )
    if is_rectified:
        return PinholeCamera.from_K(np.reshape(info.p, (3, 4))[:, :3], info.width, info.height)
    # An empty model goes with no coefficients; any name will do.
    model = info.distortion_model or 'plumb_bob'
    return PinholeCamera.from_K(info.k, info.width, info.height, tuple(info.d), model)


def info_from_camera(camera: PinholeCamera, header: Header) -> CameraInfo:
    """Make the camera_info of a camera."""
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model=camera.distortion_model,
        d=list(camera.distortion) or [0.0] * 5,
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack([camera.K, np.zeros(3)]).ravel(),
    )


def keyframe_to_message(keyframe: Keyframe) -> KeyframeMessage:
    """Make the message of a keyframe."""
    camera = keyframe.camera
    message = KeyframeMessage(
        id=int(keyframe.id),
        stamp=stamp_from_seconds(keyframe.stamp_s),
        pose=pose_from_transform(keyframe.T_map_camera),
        width=camera.width,
        height=camera.height,
        k=camera.K.ravel(),
        distortion_model=camera.distortion_model if camera.is_distorted else '',
        d=list(camera.distortion),
        image=array('B', keyframe.image),
        depth=array('B', keyframe.depth or b''),
        depth_scale=float(keyframe.depth_scale_m),
    )
    if keyframe.landmark_pixels is not None:
        message.landmark_pixels = float_array(keyframe.landmark_pixels)
        message.landmark_points = float_array(keyframe.landmark_points_map)
    if keyframe.global_descriptor is not None:
        message.global_descriptor = float_array(keyframe.global_descriptor)
    return message


def keyframe_from_message(message: KeyframeMessage) -> Keyframe:
    """Read a keyframe.

    Raises:
        MapFormatError: naming the keyframe and what is wrong with it.
    """
    try:
        T_map_camera = transform_from_pose(message.pose)
        camera = PinholeCamera.from_K(
            message.k,
            message.width,
            message.height,
            tuple(message.d),
            message.distortion_model or 'plumb_bob',
        )
        return Keyframe(
            id=message.id,
            stamp_s=seconds_from_stamp(message.stamp),
            T_map_camera=T_map_camera,
            camera=camera,
            image=bytes(message.image),
            depth=bytes(message.depth) or None,
            # 0.001 as float32 is 0.0010000000475; seven digits are what float32 holds.
            depth_scale_m=float(f'{message.depth_scale:.7g}'),
            landmark_pixels=_points(message.landmark_pixels, 2),
            landmark_points_map=_points(message.landmark_points, 3),
            global_descriptor=np.frombuffer(message.global_descriptor, np.float32)
            if len(message.global_descriptor)
            else None,
        )
    except MapFormatError:
        raise
    except ValueError as error:
        raise MapFormatError(f'Keyframe {message.id}: {error}') from error


def matches_to_message(
    matches: KeyframeMatches,
    header: Header,
    *,
    map_frame_id: str,
    engine_id: str,
    query_size: tuple[int, int],
    keyframe_size: tuple[int, int],
) -> Matches:
    """Make the message of the matches with one keyframe.

    Args:
        matches: of the core.
        header: stamp and frame of the image.
        map_frame_id: frame of the landmarks.
        engine_id: model that matched.
        query_size: (width, height) [px].
        keyframe_size: (width, height) [px].
    """
    return Matches(
        header=header,
        keyframe_id=int(matches.keyframe_id),
        map_frame_id=map_frame_id,
        engine_id=engine_id,
        query_width=query_size[0],
        query_height=query_size[1],
        keyframe_width=keyframe_size[0],
        keyframe_height=keyframe_size[1],
        query_pixels=float_array(matches.query_pixels),
        keyframe_pixels=float_array(matches.keyframe_pixels),
        scores=float_array(matches.scores),
        landmarks=float_array(matches.points_map),
        inlier_mask=array('B', np.asarray(matches.inlier_mask, np.uint8).tobytes()),
    )


def matches_from_message(message: Matches) -> KeyframeMatches:
    """Read the matches with one keyframe; the landmarks are as precise as float32.

    Raises:
        ValueError: an array that is no list of points.
    """
    return KeyframeMatches(
        keyframe_id=message.keyframe_id,
        query_pixels=np.array(message.query_pixels, np.float32).reshape(-1, 2),
        keyframe_pixels=np.array(message.keyframe_pixels, np.float32).reshape(-1, 2),
        scores=np.array(message.scores, np.float32),
        points_map=np.array(message.landmarks, np.float64).reshape(-1, 3),
        inlier_mask=np.array(message.inlier_mask, bool),
    )


def _points(flat: array, dimension: int) -> NDArray[np.float32] | None:
    """Give a flat float32[] as (N, dimension), or None when it is empty."""
    values = np.frombuffer(flat, np.float32) if len(flat) else None
    if values is not None and values.size % dimension:
        raise ValueError(
            f'Landmark array of {values.size} numbers; wanted a multiple of {dimension}. '
            'Correct the publisher of the keyframes.'
        )
    return None if values is None else values.reshape(-1, dimension)
