"""What every inference backend can do, whatever library runs the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

# By name: arrays of NumPy, or features that a backend keeps on its device, with shape, dtype and
# nbytes like them.
Arrays = dict[str, Any]


class InferenceBackend(Protocol):
    """One loaded network.

    Attributes:
        name: library and device, for logs and diagnostics.
    """

    name: str

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the network.

        Args:
            inputs: arrays by name. In the place of one, several that a backend keeps on its
                device: they follow each other along the first axis.

        Returns:
            Outputs by name; those that stay on the device are for another network there.
        """

    def close(self) -> None:
        """Free memory and device; the backend cannot be used afterwards."""
