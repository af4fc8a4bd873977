"""Which TensorRT is here: `tensorrt` and `tensorrt_rtx` have one interface."""

from __future__ import annotations

import importlib
from types import ModuleType

from coam_ros.inference.errors import EngineIncompatibleError

PACKAGES = ('tensorrt', 'tensorrt_rtx')
# The first `tensorrt` with strongly typed networks whose build can be watched.
_LEAST_MAJOR_VERSION = 10


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
        if name == 'tensorrt' and int(found.__version__.split('.')[0]) < _LEAST_MAJOR_VERSION:
            reasons.append(
                f'{name}: version {found.__version__}, wanted {_LEAST_MAJOR_VERSION} or newer'
            )
            continue
        return found
    raise EngineIncompatibleError(
        f'No TensorRT ({"; ".join(reasons)}); wanted the Python package '
        f'{package or " or ".join(PACKAGES)}. It comes with JetPack or from '
        '`pip install tensorrt`, for RTX GPUs from `pip install tensorrt-rtx-cu13`.'
    )
