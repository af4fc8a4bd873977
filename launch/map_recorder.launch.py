"""Start the map recorder: posed images, live or of a bag that is played, become a map."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

_SHARE = get_package_share_directory('coam_ros')

# name, default (None: must be given), description
_ARGUMENTS = (
    ('map', None, 'Folder of the map, written when the node ends, and meanwhile.'),
    ('namespace', 'coam', 'Namespace of the node and its service save_map.'),
    ('params_file', f'{_SHARE}/config/coam.yaml', 'Parameter file of the node.'),
    ('use_sim_time', '', 'Whether time comes from /clock; empty = as in params_file.'),
    (
        'autostart',
        '',
        'Whether the node configures and activates itself; empty = as in params_file.',
    ),
    ('log_level', 'info', 'Least severe level that is logged: debug, info, warn, error, fatal.'),
    ('image', '/camera/image_raw', 'Topic of the camera images, without /compressed.'),
    ('camera_info', '', 'Topic of the calibration; empty = camera_info beside the image topic.'),
    ('depth', '', 'Topic of the depth registered to the images; empty = record without depth.'),
    ('camera_pose', '', 'Topic of the poses of the optical frame; empty = poses come from TF.'),
    ('overwrite', '', 'Whether to replace a map that is there; empty = as in params_file.'),
    ('image_transport', '', 'raw or compressed; empty = as in params_file.'),
    ('is_rectified', '', 'Whether the images are rectified; empty = as in params_file.'),
    ('map_frame', '', 'Frame of the map and of the poses; empty = as in params_file.'),
    (
        'camera_frame',
        '',
        'Optical frame of the camera; empty = as in params_file, or else of the images.',
    ),
)
_BOOLS = ('use_sim_time', 'autostart', 'overwrite', 'is_rectified')
_BOOL_CHOICES = ['', 'true', 'false', 'True', 'False']
# Launch arguments that set parameters of other names; the others set those of their own.
_PARAMETER_NAMES = {'map': 'map_path'}
_PARAMETERS = (
    'map',
    'use_sim_time',
    'autostart',
    'overwrite',
    'image_transport',
    'is_rectified',
    'map_frame',
    'camera_frame',
)
# What a large map takes to write, before launch ends the node the hard way [s].
_SAVE_TIMEOUT = '600'


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
        # launch only warns, and the node would start with its defaults.
        raise FileNotFoundError(f'No parameter file {given["params_file"]}; correct params_file.')
    image = given['image']
    parent, slash, _ = image.rpartition('/')
    return [
        Node(
            package='coam_ros',
            executable='map_recorder',
            name='map_recorder',
            namespace=given['namespace'],
            parameters=[
                given['params_file'],
                {
                    'uses_depth': bool(given['depth']),
                    'pose_source': 'topic' if given['camera_pose'] else 'tf',
                    **_parameters(given, _PARAMETERS),
                },
            ],
            remappings=[
                ('image', image),
                ('image/compressed', f'{image}/compressed'),
                ('camera_info', given['camera_info'] or f'{parent}{slash}camera_info'),
                ('depth', given['depth'] or 'depth'),
                ('camera_pose', given['camera_pose'] or 'camera_pose'),
            ],
            arguments=['--ros-args', '--log-level', given['log_level']],
            sigterm_timeout=_SAVE_TIMEOUT,
            output='screen',
        )
    ]


def _parameters(given: dict[str, str], arguments: tuple[str, ...]) -> dict[str, ParameterValue]:
    return {
        # Left alone, launch makes a number of a folder that is called 2026.
        _PARAMETER_NAMES.get(name, name): ParameterValue(
            LaunchConfiguration(name), value_type=bool if name in _BOOLS else str
        )
        for name in arguments
        if given[name]
    }
