"""CUDA graphs: GPU work recorded once and started by one call. PyCUDA 2026.1 has none of it."""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import functools

# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do does not spoil the recording.
_THREAD_LOCAL = 1


class CudaGraphError(RuntimeError):
    """The driver refused to record or to start a graph."""


class CudaGraph:
    """Work that was recorded on a stream. The CUDA context must be current in all calls."""

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        """Record.

        Args:
            stream: handle of the stream.
            enqueue: puts the work on that stream; it is recorded and not done.

        Raises:
            CudaGraphError: the work, or this driver, cannot be recorded.
        """
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        _call('cuStreamBeginCapture_v2', self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            try:
                enqueue()
            finally:
                # The stream is of no use before the recording has ended, however it went.
                _call('cuStreamEndCapture', self._stream, ctypes.byref(graph))
            executable, flags = ctypes.byref(self._executable), ctypes.c_ulonglong(0)
            _call('cuGraphInstantiateWithFlags', executable, graph, flags)
        finally:
            if graph:
                _call('cuGraphDestroy', graph)

    def launch(self) -> None:
        """Put the recorded work on the stream."""
        _call('cuGraphLaunch', self._executable, self._stream)

    def close(self) -> None:
        """Free it."""
        _call('cuGraphExecDestroy', self._executable)


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL('libcuda.so.1')


def _call(function: str, *arguments: object) -> None:
    code = getattr(_driver(), function)(*arguments)
    if code:
        name = ctypes.c_char_p()
        _driver().cuGetErrorName(ctypes.c_int(code), ctypes.byref(name))
        reason = name.value.decode() if name.value else f'error {code}'
        raise CudaGraphError(f'{function} of the CUDA driver failed with {reason}.')
