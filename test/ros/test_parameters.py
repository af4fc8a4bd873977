"""Parameters are declared once; files, tables and nodes agree about them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
import re

import pytest
import yaml

pytest.importorskip('rclpy')

from coam_msgs.msg import RelocalizationStatus
from coam_ros.localization import LocalizationConfig, TrackerConfig
from coam_ros.nodes import reference
from coam_ros.nodes.parameters import (
    declare_parameters,
    find_unknown_overrides,
    MapRecorderParameters,
    MapServerParameters,
    MatcherParameters,
    parameter_fields,
)
from rcl_interfaces.srv import DescribeParameters, SetParameters
import rclpy
from rclpy.parameter import Parameter
from ros_harness import wait_until

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'config' / 'coam.yaml'
NODES = {
    'matcher': MatcherParameters,
    'map_server': MapServerParameters,
    'map_recorder': MapRecorderParameters,
}


@pytest.fixture
def make_node(ros):
    nodes = []

    def make(parameters_class, name='tested', **values):
        overrides = [Parameter(key, value=value) for key, value in values.items()]
        node = rclpy.create_node(name, parameter_overrides=overrides)
        nodes.append(node)
        return node, declare_parameters(node, parameters_class)

    yield make
    for node in nodes:
        node.destroy_node()


@pytest.mark.parametrize('name', NODES)
def test_parameter_file_holds_every_parameter_at_its_default(name):
    values = yaml.safe_load(CONFIG.read_text())[f'/**/{name}']['ros__parameters']
    expected = {entry.name: entry.default for entry in parameter_fields(NODES[name])}
    assert values == expected
    assert [type(value) for value in values.values()] == [type(v) for v in expected.values()]


def test_parameter_file_is_the_generated_one():
    assert CONFIG.read_text() == reference.parameter_file(), (
        'run: python -m coam_ros.nodes.reference config/coam.yaml'
    )


@pytest.mark.parametrize('name', NODES)
def test_real_node_takes_the_parameter_file(ros, name):
    arguments = ['--ros-args', '--params-file', str(CONFIG)]
    node = rclpy.create_node(name, namespace='/coam', cli_args=arguments)
    given = set(node._parameter_overrides)
    parameters = declare_parameters(node, NODES[name])
    unknown = find_unknown_overrides(node)
    node.destroy_node()
    assert given == {entry.name for entry in parameter_fields(NODES[name])}
    assert unknown == {}
    assert parameters == NODES[name]()


@pytest.mark.parametrize(
    'path', [path for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')) if path.exists()]
)
def test_tables_in_documents_are_the_generated_ones(path):
    text = path.read_text()
    assert reference.update(text) == text, f'run: python -m coam_ros.nodes.reference {path}'


def test_documents_show_every_table():
    marks = set()
    for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
        if path.exists():
            marks |= set(re.findall(r'<!-- generated: ([\w -]+) -->', path.read_text()))
    assert marks == set(reference.tables())


@pytest.mark.parametrize('parameters_class', NODES.values())
def test_every_parameter_has_a_description_and_a_default_in_range(parameters_class):
    for entry in parameter_fields(parameters_class):
        assert entry.description.endswith('.'), entry.name
        if entry.range is not None:
            assert entry.range[0] <= entry.default <= entry.range[1], entry.name
        if entry.choices:
            assert entry.default in entry.choices


def test_settings_of_the_core_are_parameters_of_the_matcher(make_node):
    _, parameters = make_node(MatcherParameters, min_inliers=77, max_rate_hz=2.5)
    assert parameters.localization == LocalizationConfig(min_inliers=77)
    assert parameters.max_rate_hz == 2.5
    names = {entry.name for entry in parameter_fields(MatcherParameters)}
    for config in (LocalizationConfig, TrackerConfig):
        assert names >= {field.name for field in dataclasses.fields(config)}


def test_integer_is_taken_for_a_double(make_node):
    _, parameters = make_node(MatcherParameters, max_rate_hz=5, min_coverage=0)
    assert parameters.max_rate_hz == 5.0
    assert isinstance(parameters.localization.min_coverage, float)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'max_rate_hz': -1.0}, r'max_rate_hz is -1.0; wanted 0 \.\. 1000'),
        ({'max_rate_hz': 1001.0}, r'max_rate_hz is 1001.0; wanted 0 \.\. 1000'),
        ({'max_rate_hz': 'fast'}, "max_rate_hz is 'fast'.*wanted a double"),
        ({'publish_tf': 'yes'}, "publish_tf is 'yes'.*wanted a bool"),
        ({'min_inliers': 3}, 'min_inliers is 3; wanted 6'),
        ({'min_inliers': 40.0}, r'min_inliers is 40.0.*wanted a int'),
        ({'image_transport': 'theora'}, 'raw, compressed'),
        ({'backend': 'abacus'}, 'auto'),
        ({'publish_tf': True, 'odom_frame': 'map'}, 'odom_frame'),
        ({'publish_tf': True, 'odom_frame': ''}, 'odom_frame'),
    ],
)
def test_wrong_values_are_refused_by_name(make_node, values, words):
    with pytest.raises(ValueError, match=words):
        make_node(MatcherParameters, **values)


def test_unknown_source_of_poses_is_refused(make_node):
    with pytest.raises(ValueError, match='wanted one of tf, topic'):
        make_node(MapRecorderParameters, pose_source='gps')


def test_misspelt_parameter_is_found_with_the_nearest_name(make_node):
    qos_override = {'qos_overrides./image.subscription.depth': 5}
    node, _ = make_node(MatcherParameters, min_inlier=50, zebra=1, **qos_override)
    assert find_unknown_overrides(node) == {'min_inlier': 'min_inliers', 'zebra': ''}


def test_tuning_changes_at_run_time_and_structure_does_not(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path))

    def set_parameter(name, value):
        parameter = Parameter(name, value=value).to_parameter_msg()
        answer = robot.call(SetParameters, 'matcher/set_parameters', parameters=[parameter])
        return answer.results[0]

    assert set_parameter('min_inliers', 41).successful
    assert node.parameters.localization.min_inliers == 41
    assert not set_parameter('map_path', '/elsewhere').successful
    assert not set_parameter('min_inliers', 1).successful
    assert node.parameters.localization.min_inliers == 41
    assert set_parameter('confirmation_inliers', 100_000).successful
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == RelocalizationStatus.NOT_CONFIRMED
    assert set_parameter('min_inliers', 4800).successful
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == RelocalizationStatus.TOO_FEW_MATCHES


@pytest.mark.parametrize('slow_hz', [1e-12, 1e-3])
def test_an_image_that_a_slow_rate_holds_back_is_taken_when_the_rate_rises(robot, scene, slow_hz):
    node = robot.start_matcher(map_path=str(scene.map_path))

    def set_rate(rate_hz):
        parameter = Parameter('max_rate_hz', value=rate_hz).to_parameter_msg()
        answer = robot.call(SetParameters, 'matcher/set_parameters', parameters=[parameter])
        assert answer.results[0].successful

    set_rate(slow_hz)
    robot.send(robot.image(scene.view(0.3)[0]))
    num_images = node._num_images
    image = robot.image(scene.view(0.3)[0])
    robot.images.publish(image)
    wait_until(lambda: node._num_images > num_images)
    assert robot.statuses.find(lambda status: status.header == image.header, 0.5) is None
    set_rate(0.0)
    robot.statuses.wait_for(lambda status: status.header == image.header)


def test_description_and_range_are_there_for_tools(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    names = ['max_rate_hz', 'min_inliers', 'map_path']
    answer = robot.call(DescribeParameters, 'matcher/describe_parameters', names=names)
    rate, inliers, path = answer.descriptors
    (span,) = rate.floating_point_range
    assert (span.from_value, span.to_value) == (0.0, 1000.0)
    assert inliers.integer_range[0].from_value == 6
    assert 'inliers' in inliers.description
    assert path.read_only
    assert not rate.read_only
