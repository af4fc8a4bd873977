"""The engines on a real GPU: same matches, no growth of memory. Skipped where there is none."""

from __future__ import annotations

import gc

from coam_ros.inference import CoamModel, default_model_directory, EngineIncompatibleError
from coam_ros.inference.engine_manifest import EngineManifest, EngineOptions
from coam_ros.inference.engines import EnginePlan, load_engines, this_machine
from coam_ros.inference.gate_pairs import fixed_pairs
import numpy as np
import pytest

MODEL = default_model_directory()
OPTIONS = EngineOptions('fp16', (640, 480), 5)
# Other programs of the GPU, and the blocks in which the driver gives memory.
SLACK_BYTES = 32 << 20


@pytest.fixture(scope='module')
def machine():
    try:
        return this_machine()
    except EngineIncompatibleError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def engines(machine, tmp_path_factory):
    return tmp_path_factory.mktemp('engines') / 'built'


@pytest.fixture
def model(machine, engines):
    loaded = load_engines(EnginePlan.make(MODEL, OPTIONS, machine, engines), lambda text: True)
    yield loaded
    loaded.close()


@pytest.fixture(scope='module')
def images():
    pair = next(fixed_pairs(OPTIONS.image_size))
    return pair.query, pair.keyframe


def match(model, images, num_keyframes):
    query, keyframe = (model.encode(image)[0] for image in images)
    keyframes, sizes = [keyframe] * num_keyframes, [OPTIONS.image_size] * num_keyframes
    return model.match(query, OPTIONS.image_size, keyframes, sizes)


@pytest.mark.gpu
def test_new_engines_pass_the_gate_once(model, engines):
    assert EngineManifest.load(engines).gate['retention'] >= 0.98


@pytest.mark.gpu
@pytest.mark.parametrize('num_keyframes', [1, 3, 5, 7])
def test_every_keyframe_of_a_batch_gets_the_same_answer(model, images, num_keyframes):
    one, many = match(model, images, 1), match(model, images, num_keyframes)
    assert many.scores.shape[0] == num_keyframes
    for scores in many.scores:
        np.testing.assert_allclose(np.sort(scores), np.sort(one.scores[0]), atol=0.05)


@pytest.mark.gpu
def test_replayed_graphs_answer_as_the_first_run(model, images):
    first = match(model, images, 3)
    for _ in range(3):
        again = match(model, images, 3)
        np.testing.assert_array_equal(again.query_points, first.query_points)


@pytest.mark.gpu
def test_a_number_of_keyframes_that_comes_again_gets_the_same_answer(model, images):
    numbers = (1, 3, 3, 5, 5)
    first = [match(model, images, number).query_points for number in numbers]
    again = [match(model, images, number).query_points for number in numbers]
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.gpu
def test_descriptors_agree_with_onnx_runtime(model, images):
    reference = CoamModel.load(MODEL, backend='onnxruntime')
    assert model.encode(images[0])[1] @ reference.encode(images[0])[1] > 0.999


@pytest.mark.gpu
def test_memory_of_the_gpu_does_not_grow(model, images):
    driver = pytest.importorskip('pycuda.driver')
    # All is there once the shapes are set, the graph is recorded and has been replayed.
    for _ in range(3):
        match(model, images, 5)
    device = model._encoder._device
    with device:
        before = driver.mem_get_info()[0]
    for _ in range(500):
        match(model, images, 5)
    gc.collect()
    with device:
        assert driver.mem_get_info()[0] >= before - SLACK_BYTES


@pytest.mark.gpu
def test_a_closed_model_says_so(machine, engines, images):
    loaded = load_engines(EnginePlan.make(MODEL, OPTIONS, machine, engines), lambda text: True)
    loaded.close()
    with pytest.raises(RuntimeError, match='was closed'):
        loaded.encode(images[0])


@pytest.mark.gpu
def test_another_image_size_is_refused(model):
    with pytest.raises(ValueError, match='build it for this image size'):
        model.encode(np.zeros((256, 320, 3), np.uint8))
