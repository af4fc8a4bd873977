"""The errors of models, engines and backends that a caller acts on."""

from __future__ import annotations


class EngineIncompatibleError(ValueError):
    """The files of a model do not fit their manifest, this software or this machine."""


class GpuMissingError(EngineIncompatibleError):
    """There is no GPU that CUDA can use, or no PyCUDA to use it with."""


class DeviceLostError(RuntimeError):
    """The device failed such that this process cannot use it any more."""


class BuildCancelledError(RuntimeError):
    """Whoever watched the building of an engine asked it to stop."""
