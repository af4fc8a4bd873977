"""The GPU through PyCUDA: context, stream, and memory that is allocated once."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
import functools
import math
from types import ModuleType
from typing import Any
import weakref

from coam_ros.inference.errors import GpuMissingError
import numpy as np
from numpy.typing import NDArray

# CU_STREAM_NON_BLOCKING: work of others on the default stream neither waits for ours nor spoils a
# recording.
_NON_BLOCKING = 1


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in the memory of the GPU.

    Attributes:
        shape: of the array.
        dtype: of the array.
        address: on the device.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    address: int

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


class CudaDevice:
    """The first GPU, and a stream on it. `with device:` makes it current in this thread.

    One thread at a time may use it.

    Attributes:
        driver: PyCUDA's module.
        name: such as 'NVIDIA GeForce RTX 4090'.
        compute_capability: such as '8.9'.
        num_multiprocessors: tells the GPUs apart that have one name, as all of a Jetson Orin.
        is_integrated: it shares the memory of the CPU, as on a Jetson.
        stream: of all work.
    """

    def __init__(self) -> None:
        """Open the GPU.

        Raises:
            GpuMissingError: no PyCUDA, no driver or no GPU.
        """
        try:
            import pycuda.driver as driver
        except ImportError as error:
            raise GpuMissingError(
                f'No PyCUDA ({error}); wanted it for TensorRT. With an NVIDIA GPU `pip install '
                'pycuda`, else choose another backend.'
            ) from error
        self.driver = driver
        try:
            device, self._context = _open_gpu(driver)
            self.name = device.name()
            self.compute_capability = '{}.{}'.format(*device.compute_capability())
            attribute = driver.device_attribute
            self.num_multiprocessors = device.get_attribute(attribute.MULTIPROCESSOR_COUNT)
            self.is_integrated = bool(device.get_attribute(attribute.INTEGRATED))
            with self:
                self.stream = driver.Stream(_NON_BLOCKING)
                flags = driver.event_flags
                self._done = driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)
        except driver.Error as error:
            raise GpuMissingError(
                f'No NVIDIA GPU that CUDA can use ({error}); wanted one for TensorRT. Check '
                '`nvidia-smi`, or choose another backend.'
            ) from error

    def __enter__(self) -> CudaDevice:
        self._context.push()
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.Context.pop()

    def wait(self) -> None:
        """Sleep until the stream is done; the device must be current.

        The stream's own `synchronize` keeps a core busy for as long as the GPU works.
        """
        self._done.record(self.stream)
        self._done.synchronize()

    def is_lost(self) -> bool:
        """Tell whether a fault has left the GPU of no use to this process."""
        try:
            with self:
                self.wait()
        except self.driver.Error:
            return True
        return False

    def close(self) -> None:
        """Free the stream; what was allocated on the GPU must have been freed."""
        # PyCUDA leaks what it has to free while its context is not current.
        with self:
            del self.stream, self._done


@functools.cache
def _open_gpu(driver: ModuleType) -> tuple[Any, Any]:
    """Give the first GPU and its primary context, the one that TensorRT uses too.

    It stays open as long as the process: PyCUDA 2026.1 cannot give a primary context back without
    leaving it on the driver's stack of the thread.
    """
    driver.init()
    device = driver.Device(0)
    return device, device.retain_primary_context()


class SharedBuffer:
    """Memory that host and GPU both reach: one mapped block where the GPU is integrated, else two.

    Attributes:
        host: array of the host, page-locked.
        address: of the same values on the device.
    """

    def __init__(self, device: CudaDevice, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Allocate; the device must be current."""
        driver = device.driver
        flags = driver.host_alloc_flags.DEVICEMAP if device.is_integrated else 0
        self.host: NDArray[Any] = driver.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._device = device
        self._copy = None
        if device.is_integrated:
            self.address = int(self.host.base.get_device_pointer())
        else:
            self._copy = driver.mem_alloc(self.host.nbytes)
            self.address = int(self._copy)

    def upload(self, rows: int) -> None:
        """Let the device see the first rows of `host`, in the order of the stream."""
        if self._copy is not None:
            stream = self._device.stream
            self._device.driver.memcpy_htod_async(self.address, self.host[:rows], stream)

    def download(self, rows: int) -> None:
        """Bring the first rows into `host` once the stream is there."""
        if self._copy is not None:
            stream = self._device.stream
            self._device.driver.memcpy_dtoh_async(self.host[:rows], self.address, stream)

    def free(self) -> None:
        """Free both sides; `host` may not be touched afterwards."""
        if self._copy is not None:
            self._copy.free()
        self.host.base.free()


class DevicePool:
    """Device memory that is used again: no allocation once as much is there as is ever needed.

    An array gives its memory back when nobody refers to it any more. That takes no call to the
    GPU, so it may happen in any thread.
    """

    def __init__(self, device: CudaDevice) -> None:
        """Begin with nothing."""
        self._device = device
        self._allocations: list[Any] = []
        self._unused: dict[int, deque[Any]] = defaultdict(deque)

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> DeviceArray:
        """Give an array with any content; the device must be current."""
        num_bytes = math.prod(shape) * dtype.itemsize
        unused = self._unused[num_bytes]
        try:
            allocation = unused.pop()
        except IndexError:
            allocation = self._device.driver.mem_alloc(num_bytes)
            self._allocations.append(allocation)
        array = DeviceArray(shape, dtype, int(allocation))
        weakref.finalize(array, unused.append, allocation).atexit = False
        return array

    def free(self) -> None:
        """Free everything, arrays in use too; the device must be current."""
        for allocation in self._allocations:
            allocation.free()
        self._allocations.clear()
        self._unused.clear()
