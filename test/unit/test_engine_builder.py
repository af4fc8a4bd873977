"""The real networks through the real parser and builder, for GPUs that are not here."""

from __future__ import annotations

import collections
import re
import subprocess
import sys
import threading
import time
import types

import pytest

pytest.importorskip('onnx', reason='onnx is not here; ./run test brings it')
trt = pytest.importorskip(
    'tensorrt_rtx', reason='tensorrt_rtx is not here; ./run test brings it on x86-64'
)

from coam_ros.inference import (  # noqa: E402
    default_model_directory,
    EngineIncompatibleError,
    tensorrt_builder,
)
from coam_ros.inference.manifest import Manifest  # noqa: E402
from coam_ros.inference.tensorrt_builder import (  # noqa: E402
    build,
    BuildCancelledError,
    BuildSettings,
    capabilities,
)
from coam_ros.inference.tensorrt_package import import_tensorrt  # noqa: E402
import onnx  # noqa: E402

MODEL = default_model_directory()
MANIFEST = Manifest.load(MODEL)
ENCODER, PAIR_MATCHER = (MODEL / n.file for n in (MANIFEST.encoder, MANIFEST.pair_matcher))
IMAGE = {'image': (1, 480, 640, 3)}
HEAVY = ('CONVOLUTION', 'MATRIX_MULTIPLY')


def settings(tmp_path, **changes):
    defaults = {
        'is_half': True,
        'max_keyframes': 5,
        'compute_capability': '8.9',
        'is_integrated': False,
        'timing_cache': tmp_path / 'timing.cache',
    }
    return BuildSettings(**defaults | changes)


def pair_shapes(encoder):
    shapes = {'query_size': (1, 2), 'keyframe_size': (-1, 2)}
    for name, shape in encoder.output_shapes.items():
        shapes |= {f'query_{name}': shape, f'keyframe_{name}': (-1, *shape[1:])}
    return {name: shapes[name] for name in MANIFEST.pair_matcher.inputs}


def count(engine, kinds):
    return collections.Counter(x.element_type for x in engine.layers if x.kind in kinds)


def test_tensorrt_rtx_builds_for_the_gpus_it_is_made_for():
    assert set(capabilities(trt)) >= {'7.5', '8.0', '8.6', '8.9', '12.0', '12.1'}
    assert import_tensorrt('tensorrt_rtx') is trt


CAPABILITIES = ['7.5', '8.0', '8.6', '8.9', '12.0', '12.1']


@pytest.mark.parametrize(
    ('capability', 'is_half'),
    [(c, True) for c in CAPABILITIES] + [(c, False) for c in CAPABILITIES[1:]],
)
def test_both_networks_build_for_every_gpu(tmp_path, capability, is_half):
    chosen = settings(tmp_path, compute_capability=capability, is_half=is_half)
    encoder = build(trt, ENCODER, IMAGE, chosen, lambda text: True)
    pair_matcher = build(trt, PAIR_MATCHER, pair_shapes(encoder), chosen, lambda text: True)
    for engine, file in ((encoder, ENCODER), (pair_matcher, PAIR_MATCHER)):
        assert len(engine.data) > 1000
        # Every convolution of the ONNX file is there, in the type asked for, none by a plug-in.
        wanted = sum(node.op_type == 'Conv' for node in onnx.load(file).graph.node)
        assert count(engine, ('CONVOLUTION',)) == {('HALF' if is_half else 'FLOAT'): wanted}
        assert not count(engine, ('PLUGIN', 'PLUGIN_V2', 'PLUGIN_V3'))
        assert count(engine, ('SOFTMAX', 'NORMALIZATION', 'TOPK')).keys() == {'FLOAT'}
    matmuls = count(pair_matcher, ('MATRIX_MULTIPLY',))
    assert bool(matmuls['FLOAT']) == (capability != '7.5')
    assert bool(matmuls['HALF']) == is_half
    assert pair_matcher.output_shapes['scores'] == (-1, MANIFEST.num_matches)


def test_turing_has_no_fp32_in_tensorrt_rtx_and_the_message_says_so(tmp_path):
    chosen = settings(tmp_path, compute_capability='7.5', is_half=False)
    with pytest.raises(EngineIncompatibleError, match=r'7\.5 in fp32.*FP32 GEMM.*enable_fp16'):
        build(trt, ENCODER, IMAGE, chosen, lambda text: True)


def test_memory_that_is_shared_with_the_cpu_is_not_all_taken(tmp_path, monkeypatch):
    """The default number of keyframes finds room; a network that does not is refused."""
    chosen = settings(tmp_path, is_integrated=True, max_keyframes=10)
    encoder = build(trt, ENCODER, IMAGE, chosen, lambda text: True)
    build(trt, PAIR_MATCHER, pair_shapes(encoder), chosen, lambda text: True)
    monkeypatch.setattr(tensorrt_builder, '_SHARED_WORKSPACE_BYTES', 1 << 20)
    with pytest.raises(EngineIncompatibleError, match=r'cannot build .*smaller images'):
        build(trt, ENCODER, IMAGE, chosen, lambda text: True)
    build(trt, ENCODER, IMAGE, settings(tmp_path), lambda text: True)


def test_only_a_network_with_a_free_axis_has_a_profile(tmp_path, monkeypatch):
    added = []

    def refuse(config, profile):
        added.append(profile)
        return -1

    encoder = build(trt, ENCODER, IMAGE, settings(tmp_path), lambda text: True)
    monkeypatch.setattr(trt.IBuilderConfig, 'add_optimization_profile', refuse)
    build(trt, ENCODER, IMAGE, settings(tmp_path), lambda text: True)
    assert not added
    with pytest.raises(EngineIncompatibleError, match='batches of 1 to 5 keyframes'):
        build(trt, PAIR_MATCHER, pair_shapes(encoder), settings(tmp_path), lambda text: True)
    assert len(added) == 1


def test_feature_maps_leave_the_encoder_as_fp16_and_static(tmp_path):
    engine = build(trt, ENCODER, IMAGE, settings(tmp_path, is_half=False), lambda text: True)
    assert engine.output_shapes['features_32'][2:] == (15, 20)
    assert engine.output_shapes['global_descriptor'] == (1, MANIFEST.global_descriptor_dim)


def test_progress_is_told_while_other_threads_go_on(tmp_path):
    told, ticks, is_over = [], [], threading.Event()

    def tick():
        while not is_over.wait(0.005):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        build(trt, ENCODER, IMAGE, settings(tmp_path), lambda text: told.append(text) or True)
    finally:
        is_over.set()
        ticker.join()
    assert told[0] == 'encoder: Building engine'
    assert any('1/' in text for text in told)
    assert len(ticks) > 5


def test_a_build_can_be_cancelled(tmp_path):
    with pytest.raises(BuildCancelledError, match=r'encoder\.onnx was cancelled'):
        build(trt, ENCODER, IMAGE, settings(tmp_path), lambda text: False)


def test_a_network_that_tensorrt_does_not_take_is_named(tmp_path):
    path = tmp_path / 'strange.onnx'
    model = onnx.load(ENCODER)
    node = next(node for node in model.graph.node if node.op_type == 'Relu')
    node.op_type, node.domain = 'Strange', 'elsewhere'
    model.opset_import.add(domain='elsewhere', version=1)
    onnx.save(model, path)
    with pytest.raises(EngineIncompatibleError, match=r'does not take.*strange\.onnx.*Strange'):
        build(trt, path, IMAGE, settings(tmp_path, is_half=False), lambda text: True)


def test_a_gpu_that_cannot_be_built_for_is_named(tmp_path):
    chosen = settings(tmp_path, compute_capability='9.0')
    with pytest.raises(EngineIncompatibleError, match=r'7\.5, .*only, got 9\.0'):
        build(trt, ENCODER, IMAGE, chosen, lambda text: True)


def test_a_missing_tensorrt_is_named():
    with pytest.raises(EngineIncompatibleError, match=r'No TensorRT.*pip install'):
        import_tensorrt('tensorrt_for_nobody')


@pytest.mark.parametrize(
    ('name', 'version', 'least'),
    [
        ('tensorrt', '8.6.1', '10.1'),
        ('tensorrt', '10.0.1', '10.1'),
        ('tensorrt_rtx', '1.1.1.26', '1.2'),
    ],
)
def test_a_tensorrt_that_is_too_old_is_named(monkeypatch, name, version, least):
    old = types.ModuleType(name)
    old.__version__ = version
    monkeypatch.setitem(sys.modules, name, old)
    message = re.escape(f'{name}: version {version}, wanted {least} or newer')
    with pytest.raises(EngineIncompatibleError, match=message):
        import_tensorrt(name)


@pytest.mark.parametrize(
    ('name', 'version'),
    [('tensorrt', '10.1.0'), ('tensorrt', '10.13.3.9.post1'), ('tensorrt_rtx', '1.10.0.1')],
)
def test_a_tensorrt_that_is_new_enough_is_taken(monkeypatch, name, version):
    new = types.ModuleType(name)
    new.__version__ = version
    monkeypatch.setitem(sys.modules, name, new)
    assert import_tensorrt(name) is new


def test_a_builder_that_cannot_start_cuda_is_named(tmp_path, monkeypatch):
    def refuse(logger):
        logger.log(trt.ILogger.ERROR, 'CUDA initialization failure with error: 35')
        raise TypeError('pybind11::init(): factory function returned nullptr')

    monkeypatch.setattr(trt, 'Builder', refuse)
    with pytest.raises(EngineIncompatibleError, match=r'start CUDA: .*error: 35\. .*nvidia-smi'):
        build(trt, ENCODER, IMAGE, settings(tmp_path), lambda text: True)


def test_what_tensorrt_says_while_python_ends_is_dropped():
    """Handlers of a log may be gone by then, and what they write to."""
    program = """
import tensorrt_rtx
from coam_ros.inference.tensorrt_package import start, tensorrt_logger

class Late:
    logger, severity = tensorrt_logger(tensorrt_rtx), tensorrt_rtx.ILogger.ERROR
    kept = start(tensorrt_rtx, 'Builder')

    def __del__(self):
        self.logger.log(self.severity, 'late')

late = Late()
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
