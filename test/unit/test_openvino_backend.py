"""OpenVINO finds what the reference finds, and is taken only where it is faster."""

from __future__ import annotations

from dataclasses import replace
import shutil
import sys

from coam_ros.inference import CoamModel, default_model_directory, EngineIncompatibleError
from coam_ros.inference.gate import compare_backends
from coam_ros.inference.gate_pairs import fixed_pairs
from coam_ros.inference.manifest import Manifest
from coam_ros.matching import CoamMatcher
import numpy as np
import pytest

# The smallest image that holds the points that the model selects.
SIZE = (448, 352)


@pytest.fixture(scope='module')
def openvino_backend():
    pytest.importorskip('openvino', reason='OpenVINO is not here; ./run test brings it')
    from coam_ros.inference import openvino_backend

    return openvino_backend


def test_the_gate_accepts_it(openvino_backend):
    reference = CoamModel.load(backend='onnxruntime')
    report = compare_backends(reference, CoamModel.load(backend='openvino'), fixed_pairs(SIZE))
    assert report.candidate.startswith('openvino')
    assert not report.failures


def test_without_bfloat16_the_convolutions_are_int8_and_the_gate_accepts_that(
    openvino_backend, monkeypatch
):
    monkeypatch.setattr(openvino_backend, 'has_bfloat16', lambda: False)
    reference = CoamModel.load(backend='onnxruntime')
    report = compare_backends(reference, CoamModel.load(backend='openvino'), fixed_pairs(SIZE))
    assert report.candidate.endswith('int8')
    assert report.retention < 1  # it is rounded
    assert not report.failures


def test_a_model_without_int8_is_run_in_float32(openvino_backend, monkeypatch, tmp_path):
    monkeypatch.setattr(openvino_backend, 'has_bfloat16', lambda: False)
    folder = shutil.copytree(default_model_directory(), tmp_path / 'model')
    (folder / 'pair_matcher_int8.onnx').unlink()
    with pytest.raises(FileNotFoundError, match=r'pair_matcher_int8\.onnx'):
        CoamModel.load(folder, backend='openvino')
    replace(Manifest.load(default_model_directory()), pair_matcher_int8=None).save(folder)
    assert CoamModel.load(folder, backend='openvino').backend_name.endswith('f32')


def test_without_avx2_auto_takes_onnx_runtime_and_openvino_computes_in_float32(
    openvino_backend, monkeypatch
):
    monkeypatch.setattr(openvino_backend, 'has_bfloat16', lambda: False)
    monkeypatch.setattr(openvino_backend, 'has_avx2', lambda: False)
    assert CoamModel.load().backend_name.startswith('onnxruntime')
    assert CoamModel.load(backend='openvino').backend_name.endswith('cpu-f32')


def test_auto_takes_it_where_the_cpu_has_avx2(openvino_backend, monkeypatch):
    monkeypatch.setattr(openvino_backend, 'has_avx2', lambda: True)
    assert CoamModel.load().backend_name.startswith('openvino')


def test_only_the_pair_matcher_is_rounded_and_the_name_tells(openvino_backend):
    names = CoamModel.load(backend='openvino').backend_name.split(' + ')
    rounded = 'bf16' if openvino_backend.has_bfloat16() else 'int8'
    assert [name.rpartition('-')[2] for name in names] == ['f32', rounded]


def test_without_openvino_auto_takes_onnx_runtime(monkeypatch):
    # As if it were not installed: an import of None fails.
    monkeypatch.setitem(sys.modules, 'coam_ros.inference.openvino_backend', None)
    assert CoamModel.load().backend_name.startswith('onnxruntime')
    with pytest.raises(EngineIncompatibleError, match='pip install openvino'):
        CoamModel.load(backend='openvino')


def test_a_file_that_is_no_network_is_refused(openvino_backend, tmp_path):
    path = tmp_path / 'encoder.onnx'
    path.write_bytes(b'not a network')
    with pytest.raises(EngineIncompatibleError, match=r'encoder\.onnx.*onnxruntime'):
        openvino_backend.OpenVinoBackend(path)


def test_answers_stay_when_the_next_image_comes(openvino_backend):
    """The request's own memory is written again by the next run."""
    matcher = CoamMatcher.load(backend='openvino', image_area_px=SIZE[0] * SIZE[1])
    pair = next(fixed_pairs(SIZE))
    first = matcher.encode(pair.query)
    kept = {name: array.copy() for name, array in first.features.items()}
    found = matcher.match_encoded(first, [matcher.encode(pair.keyframe)])[0]
    points = found.points0.copy()
    matcher.match(pair.keyframe, pair.keyframe)
    for name, array in first.features.items():
        np.testing.assert_array_equal(array, kept[name])
    np.testing.assert_array_equal(found.points0, points)


def test_keyframes_of_any_number_and_size_match(openvino_backend):
    matcher = CoamMatcher.load(backend='openvino', image_area_px=SIZE[0] * SIZE[1])
    pair = next(fixed_pairs(SIZE))
    query, keyframe = matcher.encode(pair.query), matcher.encode(pair.keyframe)
    other = matcher.encode(np.ascontiguousarray(pair.keyframe[:, :320]))
    results = matcher.match_encoded(query, [keyframe, other, keyframe])
    assert all(len(result) > 50 for result in results)
    np.testing.assert_allclose(results[0].points0, results[2].points0, atol=1e-3)


def test_a_backend_runs_in_the_threads_that_it_is_given_and_closed_says_so(openvino_backend):
    path = default_model_directory() / 'encoder.onnx'
    backend = openvino_backend.OpenVinoBackend(path, num_threads=1)
    compiled = backend._request.get_compiled_model()
    assert compiled.get_property('INFERENCE_NUM_THREADS') == 1
    backend.close()
    with pytest.raises(RuntimeError, match='closed'):
        backend.run({})


def test_a_model_of_other_networks_is_refused(openvino_backend, tmp_path):
    folder = shutil.copytree(default_model_directory(), tmp_path / 'model')
    (folder / 'encoder.onnx').write_bytes(b'other')
    with pytest.raises(EngineIncompatibleError, match='sha256'):
        CoamModel.load(folder, backend='openvino')
