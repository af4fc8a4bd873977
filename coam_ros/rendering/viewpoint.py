"""Camera poses from a position and three angles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def camera_pose(
    position_room_m: Sequence[float],
    yaw_rad: float,
    pitch_rad: float = 0.0,
    roll_rad: float = 0.0,
) -> NDArray[np.float64]:
    """Build the pose of an optical frame (z forward, y down) in a room whose z axis is up.

    Args:
        position_room_m: (3,) camera centre.
        yaw_rad: heading about the room's z axis; 0 looks along x, pi / 2 along y.
        pitch_rad: positive looks up.
        roll_rad: turn about the line of sight, positive clockwise as the camera sees forward.

    Returns:
        (4, 4) T_room_camera.
    """
    cos_yaw, sin_yaw = np.cos(yaw_rad), np.sin(yaw_rad)
    cos_pitch, sin_pitch = np.cos(pitch_rad), np.sin(pitch_rad)
    forward = np.array([cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch])
    right = np.array([sin_yaw, -cos_yaw, 0.0])
    down = np.cross(forward, right)
    cos_roll, sin_roll = np.cos(roll_rad), np.sin(roll_rad)
    T_room_camera = np.eye(4)
    T_room_camera[:3, 0] = cos_roll * right + sin_roll * down
    T_room_camera[:3, 1] = cos_roll * down - sin_roll * right
    T_room_camera[:3, 2] = forward
    T_room_camera[:3, 3] = position_room_m
    return T_room_camera
