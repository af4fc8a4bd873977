"""The errors of models, engines and backends that a caller acts on."""

from __future__ import annotations


class EngineIncompatibleError(ValueError):
    """The files of a model do not fit their manifest, this software or this machine."""


class BuildCancelledError(RuntimeError):
    """Whoever watched the building of an engine asked it to stop."""
