"""ONNX Runtime on the CPU: the backend that runs everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coam_ros.inference.backend import Arrays
from coam_ros.inference.errors import EngineIncompatibleError
from numpy.typing import NDArray
import onnxruntime


class OnnxRuntimeBackend:
    """An ONNX file in an ONNX Runtime CPU session."""

    def __init__(self, path: Path, num_threads: int | None = None) -> None:
        """Load an ONNX file.

        Args:
            path: ONNX file.
            num_threads: threads of one run; None = one for each physical core.

        Raises:
            EngineIncompatibleError: ONNX Runtime cannot load the file.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        # A robot's other nodes need the cores: waiting threads sleep instead of spinning.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 3
        self.name = f'onnxruntime-{onnxruntime.__version__}-cpu'
        try:
            self._session: onnxruntime.InferenceSession | None = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:
            raise EngineIncompatibleError(
                f'ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}. Wanted a '
                'CoAM network as `coam export` writes it; export it again.'
            ) from error
        self.output_names = [output.name for output in self._session.get_outputs()]
        self.input_names = [value.name for value in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the network on arrays by input name and return the outputs by name."""
        if self._session is None:
            raise RuntimeError('The backend was closed; load the model again.')
        outputs = self._session.run(self.output_names, dict(inputs))
        return dict(zip(self.output_names, outputs, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None
