"""A TensorRT engine on the GPU: bound once, recorded as a CUDA graph, features kept there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import contextlib
import logging
from types import ModuleType
from typing import Any

from coam_ros.inference.cuda_device import CudaDevice, DeviceArray, DevicePool, SharedBuffer
from coam_ros.inference.cuda_graph import CudaGraph, CudaGraphError
from coam_ros.inference.errors import DeviceLostError, EngineIncompatibleError
from coam_ros.inference.tensorrt_package import start, tensorrt_logger
import numpy as np
from numpy.typing import NDArray

_logger = logging.getLogger(__name__)


class TensorRTBackend:
    """One engine. Only one thread at a time may use it.

    Attributes:
        name: library, precision and GPU.
        input_names: of the engine.
        output_names: of the engine.
    """

    def __init__(
        self, tensorrt: ModuleType, data: bytes, precision: str, device_names: Collection[str]
    ) -> None:
        """Load an engine and allocate all that it will ever need.

        Args:
            tensorrt: `tensorrt` or `tensorrt_rtx`, the one that built it.
            data: the engine.
            precision: for the name.
            device_names: inputs and outputs that stay on the GPU, as `DeviceArray`.

        Raises:
            EngineIncompatibleError: there is no GPU, TensorRT cannot start, or the engine does not
                load on the GPU.
        """
        self._device = CudaDevice()
        self.name = (
            f'{tensorrt.__name__}-{tensorrt.__version__}-{precision} on {self._device.name}'
        )
        self._tensorrt = tensorrt
        self._is_rtx = tensorrt.__name__ == 'tensorrt_rtx'
        self._batch = 0
        self._graph: CudaGraph | None = None
        self._can_record = True
        self._buffers: dict[str, SharedBuffer] = {}
        # Objects of TensorRT, which has no types.
        self._engine: Any = None
        self._config: Any = None
        self._context: Any = None
        self._memory: DeviceArray | None = None
        self._pool = DevicePool(self._device)
        try:
            with self._device:
                self._load(data)
                self._bind(device_names)
        except (RuntimeError, self._device.driver.Error) as error:
            self._free()
            raise EngineIncompatibleError(
                f'{self.name} cannot hold the engine ({error}); free memory of the GPU, build for '
                'fewer keyframes, or choose another backend.'
            ) from error
        except BaseException:
            self._free()
            raise

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the engine.

        Args:
            inputs: by name an array, or several that follow each other along the first axis.
                Those named in `device_names` are `DeviceArray`s.

        Returns:
            Outputs by name, the host's as arrays of their own.

        Raises:
            RuntimeError: closed, or the GPU failed.
            DeviceLostError: it failed for good; only a new process can use it.
        """
        if self._context is None:
            raise RuntimeError('The backend was closed; load the model again.')
        parts = {
            name: value if isinstance(value, Sequence) else [value]
            for name, value in inputs.items()
        }
        batch = max(sum(part.shape[0] for part in value) for value in parts.values())
        if batch > self._max_batch:
            raise ValueError(
                f'Batch of {batch} keyframes, the engine was built for 1 to {self._max_batch}; '
                'build it again for more, or match fewer at once.'
            )
        # What was complained of before is no reason of what goes wrong now.
        tensorrt_logger(self._tensorrt).take_error()
        try:
            with self._device:
                return self._run(parts, batch)
        except (self._device.driver.Error, RuntimeError) as error:
            if self._device.is_lost():
                raise DeviceLostError(
                    f'{self.name} failed for good ({error}); start the process again.'
                ) from error
            raise RuntimeError(f'{self.name} failed: {error}') from error

    def _run(self, parts: Mapping[str, Sequence[Any]], batch: int) -> dict[str, Any]:
        for name, value in parts.items():
            self._put(name, value, batch)
        self._enqueue(batch)
        outputs = {name: self._take(name, batch) for name in self.output_names}
        self._device.wait()
        # The buffers are written again by the next run.
        return {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in outputs.items()
        }

    def close(self) -> None:
        """Free everything on the GPU, features in use too."""
        if self._context is not None:
            self._free()

    def _load(self, data: bytes) -> None:
        self._engine = start(self._tensorrt, 'Runtime').deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineIncompatibleError(
                f'{self.name} cannot load the engine of {len(data)} bytes: {self._reason()}. '
                'Wanted one that this version built for this GPU; build it again with '
                '`coam build-engine`.'
            )
        if self._is_rtx:
            self._configure()
            self._context = self._engine.create_execution_context(self._config)
        else:
            self._context = self._engine.create_execution_context()
        size = self._engine.device_memory_size_v2
        if self._context is None:
            raise EngineIncompatibleError(
                f'{self.name} cannot run the engine, which wants {size} bytes beside its weights: '
                f'{self._reason()}. Free memory of the GPU or build for fewer keyframes.'
            )
        if self._is_rtx and size:
            # Enough for the largest batch, so it is set once. Held, or the pool gives it away.
            self._memory = self._pool.take((size,), np.dtype(np.uint8))
            self._context.set_device_memory(self._memory.address, size)

    def _configure(self) -> None:
        """Let TensorRT RTX compile and allocate such that what it then does can be recorded."""
        tensorrt = self._tensorrt
        self._config = self._engine.create_runtime_config()
        # It compiles for a shape when it first runs it. A graph must not record what it puts in
        # the place of kernels that are still to come.
        self._config.dynamic_shapes_kernel_specialization_strategy = (
            tensorrt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        # The builder's REQUIRE_USER_ALLOCATION allows nothing else.
        self._config.set_execution_context_allocation_strategy(
            tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        )

    def _bind(self, device_names: Collection[str]) -> None:
        """Allocate for the largest batch and tell the engine the addresses, once."""
        # Not by a local name: the traceback of an error would hold the engine past its context.
        tensorrt = self._tensorrt
        names = [
            self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)
        ]
        is_input = {
            n: self._engine.get_tensor_mode(n) == tensorrt.TensorIOMode.INPUT for n in names
        }
        self.input_names = [name for name in names if is_input[name]]
        self.output_names = [name for name in names if not is_input[name]]
        self._shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        self._dtypes = {
            name: np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))) for name in names
        }
        free = [name for name in self.input_names if self._shapes[name][0] < 0]
        self._max_batch = self._engine.get_tensor_profile_shape(free[0], 0)[2][0] if free else 1
        self._kept: dict[str, DeviceArray] = {}
        for name in names:
            shape = self._shape(name, self._max_batch)
            if name in device_names:
                self._kept[name] = self._pool.take(shape, self._dtypes[name])
                address = self._kept[name].address
            else:
                buffer = SharedBuffer(self._device, shape, self._dtypes[name])
                self._buffers[name] = buffer
                address = buffer.address
            self._check(self._context.set_tensor_address(name, address), f'bind {name}')

    def _shape(self, name: str, batch: int) -> tuple[int, ...]:
        first, *others = self._shapes[name]
        return (batch if first < 0 else first, *others)

    def _put(self, name: str, parts: Sequence[NDArray[Any] | DeviceArray], batch: int) -> None:
        """Copy an input to where the engine reads it."""
        rows = sum(part.shape[0] for part in parts)
        wanted = self._shape(name, batch)
        for part in parts:
            if (
                part.shape[1:] != wanted[1:]
                or rows != wanted[0]
                or part.dtype != self._dtypes[name]
            ):
                raise ValueError(
                    f'Wrong {name}: got {rows} of {part.dtype} {tuple(part.shape[1:])}, the '
                    f'engine wants {wanted[0]} of {self._dtypes[name]} {wanted[1:]}; build it '
                    'for this image size, and give every keyframe features and a size.'
                )
        if name in self._buffers:
            np.concatenate(parts, out=self._buffers[name].host[:rows])
            self._buffers[name].upload(rows)
            return
        address = self._kept[name].address
        for part in parts:
            self._device.driver.memcpy_dtod_async(
                address, part.address, part.nbytes, self._device.stream
            )
            address += part.nbytes

    def _take(self, name: str, batch: int) -> NDArray[Any] | DeviceArray:
        """Copy an output from where the engine wrote it, at the latest when the stream is done."""
        shape = self._shape(name, batch)
        if name in self._buffers:
            self._buffers[name].download(shape[0])
            return self._buffers[name].host[: shape[0]]
        array = self._pool.take(shape, self._dtypes[name])
        self._device.driver.memcpy_dtod_async(
            array.address, self._kept[name].address, array.nbytes, self._device.stream
        )
        return array

    def _enqueue(self, batch: int) -> None:
        """Put the network on the stream: recorded, where the last run had this batch too.

        A recording is of no use after a change of shapes, which changes the state of the context
        (NVIDIA in issue 3798 of TensorRT); one context for each batch would take memory for each.
        """
        if batch != self._batch:
            self._drop_graph()
            # Not known until all of them are set: a failure half way leaves shapes of two batches.
            self._batch = 0
            for name in self.input_names:
                shape = self._shape(name, batch)
                self._check(self._context.set_input_shape(name, shape), f'shape {name} {shape}')
            # The first run does what is left to do for a shape; only then is it fit to record.
            self._execute()
            self._batch = batch
            return
        if self._graph is None and self._can_record:
            self._record()
        if self._graph is None:
            self._execute()
        else:
            self._graph.launch()

    def _record(self) -> None:
        stream = self._device.stream.handle
        try:
            if self._is_rtx and not self._context.is_stream_capturable(stream):
                raise CudaGraphError(f'TensorRT says that it cannot record: {self._reason()}.')
            self._graph = CudaGraph(stream, self._execute)
        except (CudaGraphError, RuntimeError) as error:
            self._can_record = False
            _logger.warning('%s runs without CUDA graphs, more slowly: %s', self.name, error)
            # A failed recording leaves an error behind, which the next call takes for its own.
            with contextlib.suppress(RuntimeError):
                self._execute()

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _execute(self) -> None:
        stream = self._device.stream.handle
        self._check(self._context.execute_async_v3(stream), 'run')

    def _check(self, is_done: bool, what: str) -> None:
        if not is_done:
            raise RuntimeError(f'{self.name} failed to {what}: {self._reason()}.')

    def _reason(self) -> str:
        return tensorrt_logger(self._tensorrt).take_error()

    def _free(self) -> None:
        try:
            with self._device:
                self._device.wait()
                self._drop_graph()
                # Before the engine, whose they are; the memory that it works in is the pool's.
                self._context = None
                self._config = None
                self._engine = None
                for buffer in self._buffers.values():
                    buffer.free()
                self._buffers.clear()
                self._pool.free()
            self._device.close()
        except (self._device.driver.Error, CudaGraphError) as error:
            # After a fault of the GPU nothing can be freed before the process ends.
            self._context = self._config = self._engine = None
            _logger.warning('%s was not freed: %s', self.name, error)
