"""Start the matcher and, with a map, the map server, in one namespace."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

_SHARE = get_package_share_directory('coam_ros')

# name, default, description; an empty value leaves the choice to the parameter file
_ARGUMENTS = (
    ('namespace', 'coam', 'Namespace of the nodes and their topics.'),
    ('params_file', f'{_SHARE}/config/coam.yaml', 'Parameter file of both nodes.'),
    ('use_sim_time', '', 'Whether time comes from /clock; empty = as in params_file.'),
    (
        'autostart',
        '',
        'Whether the nodes configure and activate themselves; empty = as in params_file.',
    ),
    ('log_level', 'info', 'Least severe level that is logged: debug, info, warn, error, fatal.'),
    ('use_respawn', 'false', 'Whether a node that dies is started again.'),
    ('map', '', 'Folder of the map for the map server; without it none is started.'),
    ('model', '', 'Folder of the model; empty = as in params_file.'),
    ('engine', '', 'Folder of its TensorRT engines; empty = as in params_file.'),
    ('image', '/camera/image_raw', 'Topic of the camera images, without /compressed.'),
    ('camera_info', '', 'Topic of the calibration; empty = camera_info beside the image topic.'),
    (
        'keyframes',
        '',
        'Topic of the map of another map server; empty = that of the namespace.',
    ),
    ('backend', '', 'Library that runs the model; empty = as in params_file.'),
    ('image_transport', '', 'raw or compressed; empty = as in params_file.'),
    ('is_rectified', '', 'Whether the images are rectified; empty = as in params_file.'),
    ('map_frame', '', 'Frame in which poses are published; empty = as in params_file.'),
    (
        'camera_frame',
        '',
        'Optical frame of the camera; empty = as in params_file, or else of the images.',
    ),
    ('odom_frame', '', 'Frame of the odometry; empty = as in params_file.'),
    ('base_frame', '', 'Frame whose pose is published; empty = as in params_file.'),
    ('publish_tf', '', 'Whether to publish map -> odom; empty = as in params_file.'),
)

_BOOLS = ('use_sim_time', 'autostart', 'use_respawn', 'is_rectified', 'publish_tf')
_BOOL_CHOICES = ['', 'true', 'false', 'True', 'False']
# Launch arguments that set parameters of other names; the others set those of their own.
_PARAMETER_NAMES = {
    'model': 'model_file_path',
    'engine': 'engine_file_path',
    'map': 'map_path',
}
_OF_BOTH = ('use_sim_time', 'autostart')
_OF_MATCHER = (
    'model',
    'engine',
    'backend',
    'image_transport',
    'is_rectified',
    'map_frame',
    'camera_frame',
    'odom_frame',
    'base_frame',
    'publish_tf',
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value=default,
                    description=description,
                    choices=_BOOL_CHOICES if name in _BOOLS else None,
                )
                for name, default, description in _ARGUMENTS
            ),
            OpaqueFunction(function=_make_nodes),
        ]
    )


def _make_nodes(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in _ARGUMENTS}
    given['params_file'] = str(Path(given['params_file']).expanduser())
    if not Path(given['params_file']).is_file():
        # launch only warns, and the nodes would start with their defaults.
        raise FileNotFoundError(f'No parameter file {given["params_file"]}; correct params_file.')
    image = given['image']
    parent, slash, _ = image.rpartition('/')
    camera_info = given['camera_info'] or f'{parent}{slash}camera_info'
    remappings = [
        ('image', image),
        ('image/compressed', f'{image}/compressed'),
        ('camera_info', camera_info),
        ('keyframes', given['keyframes'] or 'keyframes'),
    ]
    nodes = [_make_node('matcher', given, (*_OF_BOTH, *_OF_MATCHER), remappings)]
    if given['map']:
        nodes.append(_make_node('map_server', given, (*_OF_BOTH, 'map')))
    return nodes


def _make_node(
    name: str,
    given: dict[str, str],
    arguments: tuple[str, ...],
    remappings: list[tuple[str, str]] | None = None,
) -> Node:
    return Node(
        package='coam_ros',
        executable=name,
        name=name,
        namespace=given['namespace'],
        parameters=[given['params_file'], _parameters(given, arguments)],
        remappings=remappings or [],
        arguments=['--ros-args', '--log-level', given['log_level']],
        respawn=given['use_respawn'].lower() == 'true',
        respawn_delay=2.0,
        output='screen',
    )


def _parameters(given: dict[str, str], arguments: tuple[str, ...]) -> dict[str, ParameterValue]:
    return {
        # Left alone, launch makes a number of a folder that is called 2026.
        _PARAMETER_NAMES.get(name, name): ParameterValue(
            LaunchConfiguration(name), value_type=bool if name in _BOOLS else str
        )
        for name in arguments
        if given[name]
    }
