"""The latency benchmark counts what can be counted by hand, and runs from end to end."""

from __future__ import annotations

import json
from pathlib import Path
import sys

from coam_ros.inference import CoamModel
from coam_ros.matching import CoamMatcher
import cv2
import numpy as np
import onnx
from onnx import helper, TensorProto
import pytest
from source_tree import ROOT

pytest.importorskip('torch', reason='PyTorch is not installed')


@pytest.fixture(scope='module', autouse=True)
def _scripts_import_each_other():
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    yield
    sys.path.remove(str(ROOT / 'benchmarks'))


@pytest.fixture
def small_network(tmp_path) -> Path:
    """Return 3 x 3 filters from 4 to 8 channels on 10 x 6 px, then every pixel times 8 x 5."""
    weights = [
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (('filters', (8, 4, 3, 3)), ('matrix', (8, 5)))
    ]
    nodes = [
        helper.make_node('Conv', ['x', 'filters'], ['c'], pads=[1, 1, 1, 1]),
        helper.make_node('Transpose', ['c'], ['t'], perm=[0, 2, 3, 1]),
        helper.make_node('MatMul', ['t', 'matrix'], ['y']),
    ]
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 4, 6, 10])
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 6, 10, 5])
    graph = helper.make_graph(nodes, 'small', [x], [y], weights)
    path = tmp_path / 'small.onnx'
    opset = [helper.make_opsetid('', 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_cost_is_what_a_hand_counts(small_network):
    from latency_cost import count_network

    inputs = {'x': np.ones((1, 4, 6, 10), np.float32)}
    cost = count_network(small_network, inputs, repeats=1, num_threads=1)
    assert cost.macs == 60 * 8 * (4 * 9) + 60 * 8 * 5
    assert cost.num_weights == 8 * 4 * 9 + 8 * 5
    assert cost.io_bytes == 4 * (60 * 4 + 60 * 5)
    # At least the input and the output of each of the two products.
    assert cost.num_map_values >= 60 * (4 + 8) + 60 * (8 + 5)
    assert 'MatMul' in cost.kernel_ms


def test_floor_is_the_longer_of_arithmetic_and_memory():
    from latency_cost import Cost, Machine

    cost = Cost(macs=10**9, num_weights=10**6, num_map_values=10**7, io_bytes=10**6, kernel_ms={})
    fast_memory = Machine('a', macs_per_s=1e10, bytes_per_s=1e12, bytes_per_value=4)
    assert cost.floor_ms(fast_memory) == pytest.approx(100.0)
    assert cost.layerwise_ms(fast_memory) == pytest.approx(100.0)
    slow_memory = Machine('b', macs_per_s=1e15, bytes_per_s=1e9, bytes_per_value=2)
    assert cost.floor_ms(slow_memory) == pytest.approx(3.0)
    assert cost.layerwise_ms(slow_memory) == pytest.approx(23.0)


@pytest.mark.parametrize('word', ['--repeats=0', '--soak=0', '--soak=9'])
def test_a_number_that_measures_nothing_is_refused(tmp_path, capsys, word):
    import latency

    with pytest.raises(SystemExit):
        latency.main([word, f'--out={tmp_path}'])
    assert 'wanted at least' in capsys.readouterr().err


@pytest.mark.slow
def test_benchmark_runs_on_a_tiny_setting(tmp_path):
    import latency

    words = ['--threads=1', '--repeats=1', '--keyframes=1', '--widths=448', '--map-sizes=9']
    assert latency.main([*words, '--paper-size=64', f'--out={tmp_path}']) == 0
    figures = json.loads((tmp_path / 'latency.json').read_text())
    (rows,) = (v for k, v in figures['backends'].items() if k.startswith('onnxruntime'))
    assert [row['what'] for row in rows['networks']] == ['encoder', 'pair matcher']
    (frame,) = rows['keyframes']
    # What is timed must be the whole way: a pose came out, and the stages are what it took.
    assert frame['localized'] == 1.0
    assert sum(frame['stages_ms'].values()) == pytest.approx(frame['median_ms'], rel=0.2)
    assert figures['pairs'][-1]['times_the_paper'] == 1.0
    assert all(cost['macs'] > 0 for cost in figures['costs'].values())
    assert '| image to pose |' in (tmp_path / 'latency.md').read_text()
    assert (tmp_path / 'latency.png').read_bytes().startswith(b'\x89PNG')


def test_a_frame_is_timed_with_its_keyframes_in_the_cache(monkeypatch):
    import latency_stages as stages

    encoded = []

    class Counting(CoamMatcher):
        def encode(self, image):
            encoded.append(image.shape)
            return super().encode(image)

    matcher = Counting(CoamModel.load(backend='onnxruntime'), 448 * 336)
    measure = stages.measure

    def measure_alone(function, repeats):
        encoded.clear()
        return measure(function, repeats)

    monkeypatch.setattr(stages, 'measure', measure_alone)
    stages.measure_frames(matcher, stages.make_scene(7), 1, 2)
    # The live image alone, each time.
    assert len(encoded) == stages._NUM_WARM_UP + 2


def test_soak_watches_memory_while_features_come_and_go(tmp_path, monkeypatch):
    import latency

    asked = []
    monkeypatch.setattr(cv2, 'setNumThreads', asked.append)
    assert latency.main(['--threads=1', '--widths=448', '--soak=10', f'--out={tmp_path}']) == 0
    row = json.loads((tmp_path / 'latency.json').read_text())['soak']
    assert row['cache_hits'] + row['cache_misses'] == row['num_frames'] == 10
    assert row['cache_hits']
    assert row['cache_evictions']
    assert len(row['resident_mib']) == 10
    assert 'MiB' in (tmp_path / 'latency.md').read_text()
    # OpenCV aligns, with all cores unless it is told.
    assert asked == [1]
