"""What the TensorRT backend does when TensorRT refuses; without a GPU, since nothing runs."""

from __future__ import annotations

import logging
from types import ModuleType, SimpleNamespace

from coam_ros.inference import EngineIncompatibleError, tensorrt_backend
from coam_ros.inference.cuda_graph import CudaGraphError
from coam_ros.inference.tensorrt_backend import TensorRTBackend
from coam_ros.inference.tensorrt_package import start, tensorrt_logger
import numpy as np
import pytest


class RefusingContext:
    """Stands for a context that refuses what it is told to."""

    def __init__(self, tensorrt):
        self.tensorrt = tensorrt
        self.refuses = None
        self.is_capturable = True
        self.calls = []

    def set_input_shape(self, name, shape):
        self.calls.append(shape)
        return self.refuses != 'shape'

    def execute_async_v3(self, stream):
        self.calls.append('run')
        if self.refuses == 'run':
            complain(self.tensorrt, 'out of tune')
        return self.refuses != 'run'

    def is_stream_capturable(self, stream):
        return self.is_capturable


class Freed:
    """Notes when it goes."""

    def __init__(self, events, name):
        self.events, self.name = events, name

    def __del__(self):
        self.events.append(f'free {self.name}')


class FakeAllocation(Freed):
    """Stands for memory of the GPU."""

    def __int__(self):
        return 4096

    def free(self):
        self.events.append(f'free {self.name}')

    def __del__(self):
        pass


class FakeDevice:
    """Stands for a GPU whose memory is never full."""

    def __init__(self, events):
        self.name = 'pretended'
        self.is_integrated = False
        self.driver = SimpleNamespace(
            Error=KeyError, mem_alloc=lambda size: FakeAllocation(events, f'{size} bytes')
        )
        self.stream = SimpleNamespace(handle=0)
        self.events = events

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        pass

    def close(self):
        self.events.append('close the device')


class FakeConfig(Freed):
    """Stands for TensorRT RTX's runtime config."""

    dynamic_shapes_kernel_specialization_strategy = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.events.append(strategy)


class FakeContext(Freed):
    """Stands for a context that is told its memory."""

    def set_device_memory(self, address, size):
        self.events.append((address, size))


class FakeEngine(Freed):
    """Stands for an engine without inputs and outputs."""

    num_io_tensors = 0
    device_memory_size_v2 = 1000

    def create_runtime_config(self):
        return FakeConfig(self.events, 'config')

    def create_execution_context(self, config=None):
        self.events.append('context' if config is None else f'context of {config.name}')
        return FakeContext(self.events, 'context')


def complain(tensorrt, message):
    tensorrt_logger(tensorrt).log(tensorrt.ILogger.ERROR, message)


def make_tensorrt(name, events=()):
    tensorrt = ModuleType(name)
    tensorrt.__version__ = '1.7.1'
    tensorrt.ILogger = type('ILogger', (), {'ERROR': 1, 'INTERNAL_ERROR': 0, 'VERBOSE': 4})
    tensorrt.Runtime = lambda logger: SimpleNamespace(
        deserialize_cuda_engine=lambda data: FakeEngine(events, 'engine')
    )
    tensorrt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER='eager')
    tensorrt.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED='user managed')
    return tensorrt


@pytest.fixture
def events(monkeypatch):
    """Return what happens, in order, on a GPU that is pretended."""
    events = []
    monkeypatch.setattr(tensorrt_backend, 'CudaDevice', lambda: FakeDevice(events))
    return events


@pytest.fixture
def backend():
    backend = TensorRTBackend.__new__(TensorRTBackend)
    backend.name = 'tensorrt'
    backend.input_names = ['x']
    backend._shapes = {'x': (-1, 4)}
    backend._batch, backend._graph, backend._can_record = 0, None, False
    backend._tensorrt, backend._is_rtx = make_tensorrt('tensorrt'), False
    backend._context = RefusingContext(backend._tensorrt)
    backend._device = FakeDevice([])
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


def test_inputs_that_disagree_about_the_batch_are_refused(backend):
    backend._shapes = {'features': (-1, 4), 'size': (-1, 2)}
    backend._dtypes = dict.fromkeys(backend._shapes, np.dtype(np.float32))
    backend._max_batch = 10
    backend._buffers = {
        name: SimpleNamespace(host=np.zeros((10, width), np.float32), upload=lambda rows: None)
        for name, (_, width) in backend._shapes.items()
    }
    inputs = {'features': np.zeros((3, 4), np.float32), 'size': np.zeros((2, 2), np.float32)}
    with pytest.raises(ValueError, match=r'Wrong size: got 2 of .* wants 3 of'):
        backend.run(inputs)


def test_what_tensorrt_says_is_in_the_message_once(backend):
    backend._context.refuses = 'run'
    with pytest.raises(RuntimeError, match=r'failed to run: out of tune\.$'):
        backend._enqueue(3)
    backend._context.refuses = 'shape'
    with pytest.raises(RuntimeError, match=r'failed to shape .*: no reason given'):
        backend._enqueue(3)


def test_a_recording_that_fails_does_not_fail_the_run(backend, monkeypatch, caplog):
    context = backend._context

    class FailingGraph:
        """Leaves behind what makes the next call fail, as CUDA does."""

        def __init__(self, stream, enqueue):
            context.refuses = 'run'
            execute = context.execute_async_v3

            def fail_once(stream):
                is_done = execute(stream)
                context.refuses = None
                return is_done

            monkeypatch.setattr(context, 'execute_async_v3', fail_once)
            raise CudaGraphError('cuStreamEndCapture failed.')

    monkeypatch.setattr(tensorrt_backend, 'CudaGraph', FailingGraph)
    backend._can_record = True
    for _ in range(3):
        backend._enqueue(3)
    assert 'without CUDA graphs, more slowly: cuStreamEndCapture failed.' in caplog.text
    assert caplog.text.count('without CUDA graphs') == 1
    assert not backend._can_record


def test_an_rtx_engine_that_cannot_be_recorded_is_not(backend, monkeypatch, caplog):
    monkeypatch.setattr(tensorrt_backend, 'CudaGraph', lambda *_: pytest.fail('was recorded'))
    backend._is_rtx = backend._can_record = True
    backend._context.is_capturable = False
    for _ in range(3):
        backend._enqueue(3)
    assert 'without CUDA graphs' in caplog.text


def test_rtx_works_in_memory_that_is_given_to_it_and_freed_after_it(events):
    backend = TensorRTBackend(make_tensorrt('tensorrt_rtx', events), b'', 'fp16', ())
    assert events == ['user managed', 'context of config', (4096, 1000)]
    # Nobody else gets it from the pool.
    backend._pool.take((1000,), np.dtype(np.uint8))
    assert len(backend._pool._allocations) == 2
    events.clear()
    backend.close()
    assert events == [
        'free context',
        'free config',
        'free engine',
        'free 1000 bytes',
        'free 1000 bytes',
        'close the device',
    ]


def test_rtx_is_given_no_memory_where_it_wants_none(events, monkeypatch):
    monkeypatch.setattr(FakeEngine, 'device_memory_size_v2', 0)
    TensorRTBackend(make_tensorrt('tensorrt_rtx', events), b'', 'fp16', ())
    assert events[:2] == ['user managed', 'context of config']
    assert not any(isinstance(event, tuple) for event in events)


def test_tensorrt_allocates_by_itself(events):
    backend = TensorRTBackend(make_tensorrt('tensorrt', events), b'', 'fp16', ())
    assert events == ['context']
    backend.close()
    assert events == ['context', 'free context', 'free engine', 'close the device']


def test_a_tensorrt_that_cannot_start_cuda_is_named_and_leaves_nothing_behind(events):
    tensorrt = make_tensorrt('tensorrt', events)

    def refuse(logger):
        complain(tensorrt, 'CUDA initialization failure with error: 35.\n')
        raise TypeError('pybind11::init(): factory function returned nullptr')

    tensorrt.Runtime = refuse
    message = r'cannot start CUDA: CUDA initialization failure with error: 35\. .*nvidia-smi'
    with pytest.raises(EngineIncompatibleError, match=message):
        TensorRTBackend(tensorrt, b'', 'fp16', ())
    assert events == ['close the device']


def test_an_engine_that_does_not_load_is_named_with_what_tensorrt_says(events):
    tensorrt = make_tensorrt('tensorrt', events)

    def refuse(data):
        complain(tensorrt, 'Serialization assertion failed')

    tensorrt.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=refuse)
    message = 'cannot load the engine of 5 bytes: Serialization assertion failed. Wanted'
    with pytest.raises(EngineIncompatibleError, match=message):
        TensorRTBackend(tensorrt, b'bytes', 'fp16', ())
    assert events == ['close the device']


def test_a_fault_that_nobody_foresaw_leaves_nothing_behind(events):
    tensorrt = make_tensorrt('tensorrt', events)
    tensorrt.Runtime = lambda logger: None
    with pytest.raises(AttributeError):
        TensorRTBackend(tensorrt, b'', 'fp16', ())
    assert events == ['close the device']


def test_what_tensorrt_says_goes_to_the_log_of_python(caplog):
    caplog.set_level(logging.DEBUG)
    tensorrt = make_tensorrt('tensorrt')
    logger = tensorrt_logger(tensorrt)
    logger.log(tensorrt.ILogger.VERBOSE, 'a kernel')
    logger.log(2, 'beware')
    complain(tensorrt, 'it broke')
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ('DEBUG', 'TensorRT: beware'),
        ('WARNING', 'TensorRT: it broke'),
    ]
    assert logger.take_error() == 'it broke'
    assert logger.take_error() == 'no reason given'
    assert tensorrt_logger(tensorrt) is logger


@pytest.fixture
def rtx():
    return pytest.importorskip(
        'tensorrt_rtx', reason='tensorrt_rtx is not here; ./run test brings it on x86-64'
    )


def test_what_is_pretended_here_is_there_in_tensorrt_rtx(rtx):
    for owner, names in (
        (rtx.IRuntimeConfig, 'dynamic_shapes_kernel_specialization_strategy'),
        (rtx.IRuntimeConfig, 'set_execution_context_allocation_strategy'),
        (rtx.DynamicShapesKernelSpecializationStrategy, 'EAGER'),
        (rtx.ExecutionContextAllocationStrategy, 'USER_MANAGED'),
        (rtx.ICudaEngine, 'create_runtime_config create_execution_context device_memory_size_v2'),
        (rtx.IExecutionContext, 'set_device_memory is_stream_capturable set_input_shape'),
        (rtx.IExecutionContext, 'execute_async_v3 set_tensor_address'),
    ):
        for name in names.split():
            assert hasattr(owner, name), (owner, name)


def test_tensorrt_rtx_says_what_is_wrong_with_an_engine(rtx, caplog):
    assert start(rtx, 'Runtime').deserialize_cuda_engine(bytes(5000)) is None
    assert 'TensorRT: ' in caplog.text
    assert tensorrt_logger(rtx).take_error() != 'no reason given'
