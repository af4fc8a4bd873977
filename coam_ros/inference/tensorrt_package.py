"""TensorRT: which one is here, its start, its log. `tensorrt_rtx` is called as `tensorrt` is."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from types import ModuleType
from typing import Any

from coam_ros.inference.errors import EngineIncompatibleError

# The first of each that has all that is called here: the memory of an engine in 64 bits, and
# engines that leave all allocation to the caller, which a CUDA graph wants.
_LEAST_VERSIONS = {'tensorrt': (10, 1), 'tensorrt_rtx': (1, 2)}
PACKAGES = tuple(_LEAST_VERSIONS)

_logger = logging.getLogger(__name__)


def import_tensorrt(package: str | None = None) -> ModuleType:
    """Import TensorRT.

    Args:
        package: one of `PACKAGES`; None = the first that is installed.

    Raises:
        EngineIncompatibleError: it, or all of them, cannot be imported or are too old.
    """
    reasons = []
    for name in PACKAGES if package is None else (package,):
        try:
            found = importlib.import_module(name)
        except (ImportError, OSError) as error:
            reasons.append(f'{name}: {error}')
            continue
        major, minor = _LEAST_VERSIONS[name]
        if tuple(map(int, found.__version__.split('.')[:2])) < (major, minor):
            reasons.append(f'{name}: version {found.__version__}, wanted {major}.{minor} or newer')
            continue
        return found
    raise EngineIncompatibleError(
        f'No TensorRT ({"; ".join(reasons)}); wanted the Python package '
        f'{package or " or ".join(PACKAGES)}. It comes with JetPack or from '
        '`pip install tensorrt`, for RTX GPUs from `pip install tensorrt-rtx-cu13`.'
    )


def start(tensorrt: ModuleType, kind: str) -> Any:  # noqa: ANN401 - of the package
    """Make a `Builder` or a `Runtime`.

    Raises:
        EngineIncompatibleError: TensorRT cannot start CUDA.
    """
    logger = tensorrt_logger(tensorrt)
    try:
        return getattr(tensorrt, kind)(logger)
    except TypeError as error:
        # So the bindings report a null pointer; the library throws nothing.
        raise EngineIncompatibleError(
            f'{tensorrt.__name__} {tensorrt.__version__} cannot start CUDA: '
            f'{logger.take_error()}. The driver may be older than it wants, see `nvidia-smi`; '
            'update it, install an older TensorRT, or choose another backend.'
        ) from error


@functools.cache
def tensorrt_logger(tensorrt: ModuleType) -> Any:  # noqa: ANN401 - of the package
    """Give the logger of a package.

    There is one as long as the process: TensorRT keeps the first that it meets for all that
    follows, and does not notice when it is gone.
    """

    class Logger(tensorrt.ILogger):
        """Forwards to `logging`, and remembers what went wrong."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self._last_error = ''

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            # What is freed last may speak after `logging` has ended.
            if sys.is_finalizing():
                return
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                self._last_error = message.strip().rstrip('.')
                _logger.warning('TensorRT: %s', message)
            # VERBOSE tells every kernel that is tried, in tens of thousands of lines.
            elif severity != tensorrt.ILogger.VERBOSE:
                _logger.debug('TensorRT: %s', message)

        def take_error(self) -> str:
            """Give the last error to whoever reports it, and forget it."""
            error, self._last_error = self._last_error, ''
            return error or 'no reason given'

    return Logger()
