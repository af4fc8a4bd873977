"""What every inference backend can do, whatever library runs the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class DeviceLostError(RuntimeError):
    """The device failed such that this process cannot use it any more."""


class InferenceBackend(Protocol):
    """One loaded network.

    Attributes:
        name: library and device, for logs and diagnostics.
    """

    name: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the network on arrays by input name and return the outputs by name."""

    def close(self) -> None:
        """Free memory and device; the backend cannot be used afterwards."""
