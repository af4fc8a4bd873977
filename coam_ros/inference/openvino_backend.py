"""OpenVINO on the CPU: faster than ONNX Runtime by products in bfloat16 or int8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from coam_ros.inference.backend import Arrays
from coam_ros.inference.errors import EngineIncompatibleError
import numpy as np
from numpy.typing import NDArray
import openvino

_CPU_INFO = Path('/proc/cpuinfo')
Precision = Literal['f32', 'bf16', 'int8']


class OpenVinoBackend:
    """An ONNX file in an OpenVINO request on the CPU.

    Attributes:
        name: library, device and arithmetic.
        input_names: of the network.
        output_names: of the network.
    """

    def __init__(
        self, path: Path, num_threads: int | None = None, precision: Precision = 'f32'
    ) -> None:
        """Load an ONNX file.

        Args:
            path: ONNX file.
            num_threads: threads of one run; None = one for each physical core.
            precision: of products: 'bf16', which the CPU must have; 'int8' for a file that says so
                itself, and float32 for what it leaves.

        Raises:
            EngineIncompatibleError: OpenVINO cannot load the file.
        """
        release = openvino.__version__.partition('-')[0]
        self.name = f'openvino-{release}-cpu-{precision}'
        options = {
            'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32',
            'INFERENCE_NUM_THREADS': num_threads or 0,
            'PERFORMANCE_HINT': 'LATENCY',
            # A robot's other nodes need the cores too.
            'ENABLE_CPU_PINNING': False,
        }
        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(path), 'CPU', options)
        except RuntimeError as error:
            reason = ' '.join(str(error).split())
            raise EngineIncompatibleError(
                f'OpenVINO {release} cannot load {path}: {reason} Wanted a CoAM network as '
                '`coam export` writes it; export it again, or choose the backend onnxruntime.'
            ) from error
        self.input_names = [value.any_name for value in compiled.inputs]
        self.output_names = [value.any_name for value in compiled.outputs]
        self._request: openvino.InferRequest | None = compiled.create_infer_request()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the network on arrays by input name and return the outputs by name."""
        if self._request is None:
            raise RuntimeError('The backend was closed; load the model again.')
        outputs = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        # Copies: the request writes its next answer into the same memory.
        return {name: np.array(outputs[i]) for i, name in enumerate(self.output_names)}

    def close(self) -> None:
        """Free the network."""
        self._request = None


def has_avx2() -> bool:
    """Tell whether this CPU is an x86 with AVX2, without which OpenVINO has no int8."""
    try:
        return ' avx2 ' in _CPU_INFO.read_text()
    except OSError:  # not Linux
        return False


def has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16."""
    return 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
