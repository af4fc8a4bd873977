"""A node whose engines are missing builds them, answers meanwhile, and says BUILDING.

TensorRT RTX really builds; only the GPU is pretended, so that afterwards nothing can run on it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
import sys
import threading

import pytest

pytest.importorskip('rclpy')
pytest.importorskip(
    'tensorrt_rtx', reason='tensorrt_rtx is not here; ./run test brings it on x86-64'
)

from coam_msgs.msg import RelocalizationStatus
from coam_msgs.srv import LoadMap, Relocalize
from coam_ros.inference import engines as tensorrt_engines
from coam_ros.inference.engine_manifest import EngineManifest, Target
from coam_ros.nodes.matcher_node import MatcherNode
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from ros_harness import DEADLINE_S, wait_until
import tensorrt_rtx

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec('pycuda') is not None,
    reason='PyCUDA is here: no GPU can be pretended',
)
PRETENDED = Target('tensorrt_rtx', tensorrt_rtx.__version__, '8.9', gpu='pretended')


@pytest.fixture
def parameters(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt_engines, 'this_machine', lambda: PRETENDED)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return {'map_path': str(scene.map_path), 'engine_file_path': str(tmp_path / 'engines')}


def test_a_node_that_builds_answers_and_then_goes_on_without_a_gpu(robot, scene, parameters):
    diagnostics = robot.listen(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
    node = robot.start_matcher(**parameters)
    pixels = scene.view(0.3)[0]
    status = robot.send_image_only(robot.image(pixels))
    assert status.state == RelocalizationStatus.BUILDING
    assert status.reason == RelocalizationStatus.NO_ENGINE
    assert 'The engine is not ready: ' in status.message
    answer = robot.call(Relocalize, 'relocalize', timeout_s=60.0)
    assert not answer.success
    assert answer.status.state == RelocalizationStatus.BUILDING
    assert answer.status.reason == RelocalizationStatus.NO_ENGINE
    assert 'The engine is not ready: ' in answer.status.message
    answer = robot.call(LoadMap, 'load_map', path=str(scene.map_path))
    assert 'The engine is not ready: ' in answer.message
    diagnostics.wait_for(
        lambda array: any(s.message.startswith('building: ') for s in array.status)
    )
    wait_until(lambda: node._localizer is not None)
    assert EngineManifest.load(Path(parameters['engine_file_path']))
    status = robot.send(robot.image(pixels))
    assert status.reason == RelocalizationStatus.NONE, status.message
    assert node._matcher.backend_name.startswith(('onnxruntime', 'openvino'))


def test_images_that_come_while_engines_are_loaded_are_counted(
    robot, scene, parameters, monkeypatch
):
    may_end = threading.Event()

    def load_engines(*_, **__):
        may_end.wait(DEADLINE_S)
        raise RuntimeError('the test is over')

    monkeypatch.setattr(tensorrt_engines, 'load_engines', load_engines)
    diagnostics = robot.listen(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
    robot.start_matcher(**parameters)

    def received(array):
        (status,) = [s for s in array.status if s.name == 'coam/matcher: input']
        return next(int(v.value) for v in status.values if v.key == 'received')

    for count in (1, 2):
        robot.send_image_only(robot.image(scene.other_image))
        diagnostics.wait_for(lambda array, count=count: received(array) == count)
    may_end.set()


def test_a_node_lives_on_whatever_breaks_while_it_loads_engines(
    robot, scene, parameters, monkeypatch
):
    def load_engines(*_, must_build):
        assert must_build
        return 1 / 0

    monkeypatch.setattr(tensorrt_engines, 'load_engines', load_engines)
    node = robot.start(MatcherNode, force_engine_update=True, **parameters)
    wait_until(lambda: node.last_error)
    assert 'Cannot configure: division by zero' in node.last_error
    wait_until(lambda: node.lifecycle_label == 'unconfigured')
    # A manager knows nothing of that.
    for transition in ('deactivate', 'activate'):
        assert not robot.change_state('matcher', transition)
    assert robot.state_of('matcher') == 'unconfigured'


def test_without_a_package_of_the_builder_the_cpu_runs_the_model(
    robot, scene, parameters, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.delitem(sys.modules, 'coam_ros.inference.tensorrt_builder', raising=False)
    node = robot.start_matcher(**parameters)
    wait_until(lambda: node._localizer is not None)
    assert robot.send(robot.image(scene.view(0.3)[0])).reason == RelocalizationStatus.NONE


def test_a_node_that_wants_tensorrt_alone_says_why_it_has_none(robot, parameters):
    node = robot.start(MatcherNode, backend='tensorrt', **parameters)
    wait_until(lambda: node.last_error)
    assert 'Cannot configure: No PyCUDA' in node.last_error
    wait_until(lambda: node.lifecycle_label == 'unconfigured')
    assert node.count_subscribers('/coam/image') == 0


def test_a_node_can_be_ended_while_it_builds(robot, parameters, tmp_path):
    node = robot.start_matcher(**parameters)
    assert node._loading is not None
    robot.stop_node(node)
    assert node._loading is None
    # The build notices at its next step.
    wait_until(lambda: not (tmp_path / 'engines').exists())


def test_without_a_gpu_a_node_that_wants_tensorrt_does_not_configure(robot, scene):
    node = robot.start(MatcherNode, backend='tensorrt', map_path=str(scene.map_path))
    wait_until(lambda: node.last_error)
    assert 'Cannot configure: No PyCUDA' in node.last_error
    assert node.lifecycle_label == 'unconfigured'
