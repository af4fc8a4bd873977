"""Topics and services of the nodes: one list that the nodes use and the README shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from coam_msgs.msg import KeyframeArray, Matches, RelocalizationStatus
from coam_msgs.srv import LoadMap, Relocalize, SaveMap
from coam_ros.nodes import qos
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray, PoseStamped, PoseWithCovarianceStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2


@dataclass(frozen=True)
class Topic:
    """A topic of a node.

    Attributes:
        name: relative, except /diagnostics.
        type: message class.
        profile: makes its quality of service.
        description: for people.
    """

    name: str
    type: Any
    profile: Callable[[], QoSProfile]
    description: str


@dataclass(frozen=True)
class ServiceType:
    """A service of a node.

    Attributes:
        name: relative.
        type: service class.
        description: for people.
    """

    name: str
    type: Any
    description: str


IMAGE = Topic('image', Image, qos.sensor_data, 'Camera images, with `image_transport` raw.')
COMPRESSED_IMAGE = Topic(
    'image/compressed',
    CompressedImage,
    qos.sensor_data,
    'Camera images, with `image_transport` compressed.',
)
CAMERA_INFO = Topic(
    'camera_info', CameraInfo, qos.sensor_data, 'Calibration of the camera; the newest counts.'
)
KEYFRAMES = Topic(
    'keyframes',
    KeyframeArray,
    qos.every_latched,
    'The keyframe map in parts, from the map server or a SLAM system; merged and removed by id.',
)
DEPTH = Topic(
    'depth',
    Image,
    qos.sensor_data,
    'Depth registered to the image: 16UC1 in mm or 32FC1 in m.',
)
CAMERA_POSE = Topic(
    'camera_pose',
    PoseStamped,
    qos.sensor_data,
    'Pose of the optical frame in the map, with `pose_source` topic.',
)
INITIAL_POSE = Topic(
    'initialpose',
    PoseWithCovarianceStamped,
    qos.events,
    'Rough position in the map that narrows the search; optional. rviz/coam.rviz sends it.',
)
MATCHES = Topic(
    'matches',
    Matches,
    # One image brings about a message for each keyframe.
    partial(qos.events, depth=20),
    'Matches with each keyframe, with landmarks and inliers.',
)
POSE = Topic(
    'pose',
    PoseWithCovarianceStamped,
    qos.latched,
    'Pose in the map with covariance, stamped as the image; only when localized. The last one is '
    'kept for who comes later.',
)
STATUS = Topic(
    'status',
    RelocalizationStatus,
    qos.events,
    'State, reason and evidence, for every image used, and when images stay away.',
)
DEBUG_IMAGE = Topic(
    'debug_image',
    Image,
    partial(qos.events, depth=1),
    'Picture of the matches; drawn only when subscribed.',
)
LANDMARKS = Topic(
    'landmarks',
    PointCloud2,
    partial(qos.events, depth=1),
    'Landmarks that the pose rests on, in the colours of the image; made only when subscribed.',
)
KEYFRAME_POSES = Topic(
    'keyframe_poses',
    PoseArray,
    qos.latched,
    'Optical frames of the keyframes in the map; made only when subscribed.',
)
DIAGNOSTICS = Topic(
    '/diagnostics', DiagnosticArray, qos.events, 'State, input rate, drops, latency, engine, map.'
)

RELOCALIZE = ServiceType(
    'relocalize', Relocalize, 'Localizes the next image and answers with its very outcome.'
)
LOAD_MAP = ServiceType(
    'load_map', LoadMap, 'Replaces the map; the former one stays when loading fails.'
)
SERVER_LOAD_MAP = ServiceType(
    '~/load_map', LoadMap, 'Loads another map and publishes it in the place of the former.'
)
RECORDER_SAVE_MAP = ServiceType(
    '~/save_map', SaveMap, 'Writes what has been recorded; an empty path stands for `map_path`.'
)
SAVE_MAP = ServiceType(
    'save_map',
    SaveMap,
    'Writes the map in use to disk, with all keyframes that came on the topic.',
)

MATCHER_SUBSCRIPTIONS = (IMAGE, COMPRESSED_IMAGE, CAMERA_INFO, KEYFRAMES, INITIAL_POSE)
MATCHER_PUBLISHERS = (
    POSE,
    STATUS,
    MATCHES,
    DEBUG_IMAGE,
    LANDMARKS,
    KEYFRAME_POSES,
    DIAGNOSTICS,
)
MATCHER_SERVICES = (RELOCALIZE, LOAD_MAP, SAVE_MAP)
MAP_SERVER_PUBLISHERS = (KEYFRAMES,)
MAP_SERVER_SERVICES = (SERVER_LOAD_MAP,)
MAP_RECORDER_SUBSCRIPTIONS = (IMAGE, COMPRESSED_IMAGE, CAMERA_INFO, DEPTH, CAMERA_POSE)
MAP_RECORDER_SERVICES = (RECORDER_SAVE_MAP,)


def interface_table() -> str:
    """Make the table of topics and services for the README, in Markdown."""
    rows = ['| node | name | type | QoS | what |', '|---|---|---|---|---|']
    groups = (
        ('matcher, in', MATCHER_SUBSCRIPTIONS),
        ('matcher, out', MATCHER_PUBLISHERS),
        ('matcher, service', MATCHER_SERVICES),
        ('map_server, out', MAP_SERVER_PUBLISHERS),
        ('map_server, service', MAP_SERVER_SERVICES),
        ('map_recorder, in', MAP_RECORDER_SUBSCRIPTIONS),
        ('map_recorder, service', MAP_RECORDER_SERVICES),
    )
    for group, endpoints in groups:
        for endpoint in endpoints:
            kind = 'srv' if isinstance(endpoint, ServiceType) else 'msg'
            package = endpoint.type.__module__.split('.')[0]
            name = f'`{package}/{kind}/{endpoint.type.__name__}`'
            profile = '' if isinstance(endpoint, ServiceType) else _qos_words(endpoint.profile())
            rows.append(
                f'| {group} | `{endpoint.name}` | {name} | {profile} | {endpoint.description} |'
            )
    return '\n'.join(rows) + '\n'


def _qos_words(profile: QoSProfile) -> str:
    words = [profile.reliability.name.lower().replace('_', ' ')]
    if profile.durability.name == 'TRANSIENT_LOCAL':
        words.append('transient local')
    return ', '.join(words)
