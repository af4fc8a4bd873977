"""What the TensorRT backend does when TensorRT refuses; without a GPU, since nothing runs."""

from __future__ import annotations

from types import SimpleNamespace

from coam_ros.inference.tensorrt_backend import TensorRTBackend
import pytest


class RefusingContext:
    """Stands for a context that refuses what it is told to."""

    def __init__(self):
        self.refuses = None
        self.calls = []

    def set_input_shape(self, name, shape):
        self.calls.append(shape)
        return self.refuses != 'shape'

    def execute_async_v3(self, stream):
        self.calls.append('run')
        return self.refuses != 'run'


@pytest.fixture
def backend():
    backend = TensorRTBackend.__new__(TensorRTBackend)
    backend.name = 'tensorrt'
    backend.input_names = ['x']
    backend._shapes = {'x': (-1, 4)}
    backend._batch, backend._graph, backend._can_record = 0, None, False
    backend._context = RefusingContext()
    backend._device = SimpleNamespace(stream=SimpleNamespace(handle=0))
    return backend


@pytest.mark.parametrize('refusal', ['shape', 'run'])
def test_shapes_are_set_anew_after_a_batch_that_failed(backend, refusal):
    context = backend._context
    backend._enqueue(3)
    context.refuses = refusal
    with pytest.raises(RuntimeError, match='failed to'):
        backend._enqueue(5)
    context.refuses = None
    context.calls.clear()
    # The former batch again: the context may hold the shapes of the one that failed.
    backend._enqueue(3)
    assert context.calls == [(3, 4), 'run']
    backend._enqueue(3)
    assert context.calls == [(3, 4), 'run', 'run']
