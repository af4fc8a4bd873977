"""The launch files, for real where launch is installed, else as far as Python can tell."""

from __future__ import annotations

import ast
from pathlib import Path
import runpy

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MATCHER, RECORDER = (ROOT / 'launch' / f'{n}.launch.py' for n in ('matcher', 'map_recorder'))
CONFIG = ROOT / 'config' / 'coam.yaml'
EXPECTED_ARGUMENTS = {
    'namespace',
    'params_file',
    'use_sim_time',
    'log_level',
    'map',
    'image',
    'camera_info',
    'image_transport',
    'is_rectified',
    'map_frame',
    'camera_frame',
}


def declared_constants(file):
    """Values of the module's constants that are literals, without importing launch."""
    tree = ast.parse(file.read_text())
    return {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


@pytest.mark.parametrize(
    ('file', 'own'),
    [
        (MATCHER, {'autostart', 'backend', 'engine', 'keyframes', 'publish_tf'}),
        (RECORDER, {'autostart', 'depth', 'camera_pose', 'overwrite'}),
    ],
    ids=['matcher', 'map_recorder'],
)
def test_compiles_and_declares_the_arguments_that_users_expect(file, own):
    compile(file.read_text(), file, 'exec')
    rows = declared_constants(file)['_ARGUMENTS'].elts
    names = {row.elts[0].value for row in rows}
    assert names >= EXPECTED_ARGUMENTS | own
    assert all(row.elts[2].value.endswith('.') for row in rows)


def parameters_set_by(file, *lists):
    constants = declared_constants(file)
    arguments = [name for words in lists for name in ast.literal_eval(constants[words])]
    names = ast.literal_eval(constants['_PARAMETER_NAMES'])
    # use_sim_time is every node's, of rclpy.
    return {names.get(name, name) for name in arguments} - {'use_sim_time'}


def test_sets_only_parameters_that_the_matcher_has():
    pytest.importorskip('rclpy')
    from coam_ros.nodes.parameters import MatcherParameters, parameter_fields

    known = {entry.name for entry in parameter_fields(MatcherParameters)}
    assert parameters_set_by(MATCHER, '_OF_BOTH', '_OF_MATCHER') <= known


def test_sets_only_parameters_that_the_recorder_has():
    pytest.importorskip('rclpy')
    from coam_ros.nodes.parameters import MapRecorderParameters, parameter_fields

    known = {entry.name for entry in parameter_fields(MapRecorderParameters)}
    used = parameters_set_by(RECORDER, '_PARAMETERS')
    assert used | {'uses_depth', 'pose_source'} <= known


def commands(file=MATCHER, **arguments):
    """Nodes that launch would start, and their command lines."""
    pytest.importorskip('launch.actions', reason='launch is not on PyPI')
    from launch import LaunchContext
    from launch.substitutions import LocalSubstitution

    context = LaunchContext()
    context.launch_configurations.update({'params_file': str(CONFIG), **arguments})
    description = runpy.run_path(str(file))['generate_launch_description']()
    nodes = []
    for entity in description.entities:
        nodes += entity.visit(context) or []
    lines = []
    for node in nodes:
        node._perform_substitutions(context)
        # What is local is known only while the process starts.
        words = [word for word in node.cmd if not isinstance(word[0], LocalSubstitution)]
        lines.append([''.join(part.perform(context) for part in word) for word in words])
    return nodes, lines


def parameters_in(command):
    """Parameters that the launch file sets beside those of the parameter file."""
    files = [command[i + 1] for i, word in enumerate(command) if word == '--params-file']
    (values,) = yaml.safe_load(Path(files[-1]).read_text()).values()
    return values['ros__parameters']


def test_without_a_map_only_the_matcher_starts():
    nodes, (command,) = commands()
    assert nodes[0].node_name == '/coam/matcher'
    assert 'image:=/camera/image_raw' in command
    assert 'image/compressed:=/camera/image_raw/compressed' in command
    assert 'camera_info:=/camera/camera_info' in command
    assert 'keyframes:=keyframes' in command
    # All else is as in the parameter file.
    assert parameters_in(command) == {}


def test_arguments_become_parameters():
    _, (matcher, server) = commands(
        namespace='robot1/coam',
        map='2026',
        model='/models/mine',
        engine='/engines/mine',
        image='rgb',
        publish_tf='True',
        is_rectified='true',
        image_transport='compressed',
        use_sim_time='true',
        autostart='false',
        keyframes='/coam_front/keyframes',
    )
    assert {'camera_info:=camera_info', 'keyframes:=/coam_front/keyframes'} <= set(matcher)
    assert parameters_in(matcher) == {
        'use_sim_time': True,
        'autostart': False,
        'model_file_path': '/models/mine',
        'engine_file_path': '/engines/mine',
        'image_transport': 'compressed',
        'publish_tf': True,
        'is_rectified': True,
    }
    assert parameters_in(server)['map_path'] == '2026'


@pytest.mark.parametrize(('file', 'argument'), [(MATCHER, 'publish_tf'), (RECORDER, 'overwrite')])
def test_wrong_word_for_a_bool_is_named(file, argument):
    with pytest.raises(RuntimeError, match=f'"{argument}" provided value "maybe"'):
        commands(file, map='/data/map', **{argument: 'maybe'})


def test_missing_parameter_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.yaml'):
        commands(params_file=str(tmp_path / 'nothing.yaml'))


def test_the_recorder_takes_depth_and_poses_from_where_the_arguments_say():
    _, (command,) = commands(RECORDER, map='2026', image='/front/rgb')
    assert parameters_in(command) == {
        'map_path': '2026',
        'uses_depth': False,
        'pose_source': 'tf',
    }
    assert {
        'image:=/front/rgb',
        'image/compressed:=/front/rgb/compressed',
        'camera_info:=/front/camera_info',
    } <= set(command)
    nodes, (command,) = commands(
        RECORDER,
        map='/data/map',
        depth='/front/depth',
        camera_pose='/slam/pose',
        overwrite='true',
        image_transport='compressed',
        map_frame='site',
        use_sim_time='true',
        autostart='False',
    )
    assert nodes[0].node_name == '/coam/map_recorder'
    assert parameters_in(command) == {
        'map_path': '/data/map',
        'uses_depth': True,
        'pose_source': 'topic',
        'overwrite': True,
        'image_transport': 'compressed',
        'map_frame': 'site',
        'use_sim_time': True,
        'autostart': False,
    }
    assert {'depth:=/front/depth', 'camera_pose:=/slam/pose'} <= set(command)
