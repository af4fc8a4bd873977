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
# Launch arguments that are parameters of the same name.
_PARAMETER_TYPES = {
    'use_sim_time': bool,
    'overwrite': bool,
    'image_transport': str,
    'is_rectified': bool,
    'map_frame': str,
    'camera_frame': str,
}
# What a large map takes to write, before launch ends the node the hard way [s].
_SAVE_TIMEOUT = '600'


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
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
    parameters = {
        name: ParameterValue(LaunchConfiguration(name), value_type=value_type)
        for name, value_type in _PARAMETER_TYPES.items()
        if given[name]
    }
    return [
        Node(
            package='coam_ros',
            executable='map_recorder',
            name='map_recorder',
            namespace=given['namespace'],
            parameters=[
                given['params_file'],
                {
                    # Left alone, launch makes a number of a folder that is called 2026.
                    'map_path': ParameterValue(given['map'], value_type=str),
                    'uses_depth': bool(given['depth']),
                    'pose_source': 'topic' if given['camera_pose'] else 'tf',
                    **parameters,
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
