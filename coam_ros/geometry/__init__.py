"""Rigid transforms, cameras, epipolar residuals and absolute pose; numpy in, numpy out."""

from coam_ros.geometry.absolute_pose import AbsolutePose, estimate_absolute_pose
from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.geometry.transforms import invert, is_rigid, make_transform, pose_error

__all__ = [
    'AbsolutePose',
    'CalibrationError',
    'PinholeCamera',
    'estimate_absolute_pose',
    'invert',
    'is_rigid',
    'make_transform',
    'pose_error',
]
