"""Rooms rendered from photographs, with exact poses and depth; free of ROS."""

from coam_ros.rendering.lighting import Lighting
from coam_ros.rendering.photographs import load_photographs
from coam_ros.rendering.photometric import CameraEffects
from coam_ros.rendering.room import Room, RoomConfig
from coam_ros.rendering.viewpoint import camera_pose

__all__ = [
    'CameraEffects',
    'Lighting',
    'Room',
    'RoomConfig',
    'camera_pose',
    'load_photographs',
]
