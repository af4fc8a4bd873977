"""What a network costs on paper, and the time below which no machine can run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import json
import math
from pathlib import Path
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
import onnxruntime

_FP32_BYTES, _FP16_BYTES = 4, 2


@dataclass(frozen=True)
class Machine:
    """What a machine can do at best.

    Attributes:
        name: of it, with the arithmetic.
        macs_per_s: multiply-adds a second.
        bytes_per_s: of its main memory.
        bytes_per_value: of weights and maps.
    """

    name: str
    macs_per_s: float
    bytes_per_s: float
    bytes_per_value: int


# Dense float16 tensor arithmetic as the makers state it, half of their operations a second:
# Jetson AGX Orin 64 GB (its GPU alone: a quarter of 170 sparse INT8 TOPS), and the white papers
# of Ada (accumulation in float32) and Hopper.
GPUS = (
    Machine('AGX Orin, fp16', 21.25e12, 204.8e9, _FP16_BYTES),
    Machine('RTX 4090, fp16', 82.6e12, 1008e9, _FP16_BYTES),
    Machine('H100 SXM, fp16', 494.7e12, 3350e9, _FP16_BYTES),
)


@dataclass(frozen=True)
class Cost:
    """What one run of a network costs.

    Attributes:
        macs: multiply-adds of its convolutions and matrix products.
        num_weights: values of its weights.
        num_map_values: values that its layers read and write, as the runtime fused them.
        io_bytes: of its inputs and outputs.
        kernel_ms: time of its kernels on this CPU, by their kind, longest first.
    """

    macs: int
    num_weights: int
    num_map_values: int
    io_bytes: int
    kernel_ms: dict[str, float]

    def floor_ms(self, machine: Machine) -> float:
        """Time that no implementation beats.

        It is that of the arithmetic, or of moving every weight, input and output once, whichever
        is longer.
        """
        return self._time_ms(machine, self.num_weights)

    def layerwise_ms(self, machine: Machine) -> float:
        """The same when every layer gets its maps from main memory and puts them back."""
        return self._time_ms(machine, self.num_weights + self.num_map_values)

    def _time_ms(self, machine: Machine, num_values: int) -> float:
        num_bytes = num_values * machine.bytes_per_value + self.io_bytes
        return 1000 * max(self.macs / machine.macs_per_s, num_bytes / machine.bytes_per_s)


def count_network(
    path: Path, inputs: Mapping[str, NDArray[Any]], repeats: int, num_threads: int
) -> Cost:
    """Count what an ONNX network does with these inputs, its kernels timed so many times.

    The shapes are those of a real run: of the graph as it was exported for the arithmetic, of
    the graph as ONNX Runtime fuses it for the maps and the time.
    """
    plain, outputs = _profile(path, inputs, 1, num_threads, is_optimized=False)
    fused, _ = _profile(path, inputs, repeats, num_threads, is_optimized=True)
    kernel_ms: dict[str, float] = {}
    for kernel in fused:
        kind = kernel['op_name']
        kernel_ms[kind] = kernel_ms.get(kind, 0.0) + kernel['ms']
    moved = sum(int(k['activation_size']) + int(k['output_size']) for k in fused)
    arrays = [*inputs.values(), *outputs]
    return Cost(
        macs=sum(_count_macs(kernel) for kernel in plain),
        num_weights=sum(math.prod(i.dims) for i in onnx.load(path).graph.initializer),
        num_map_values=moved // _FP32_BYTES,
        io_bytes=sum(array.nbytes for array in arrays),
        kernel_ms=dict(sorted(kernel_ms.items(), key=lambda item: -item[1])),
    )


def _profile(
    path: Path,
    inputs: Mapping[str, NDArray[Any]],
    repeats: int,
    num_threads: int,
    *,
    is_optimized: bool,
) -> tuple[list[dict[str, Any]], list[NDArray[Any]]]:
    """Run a network; give its kernels with shapes, sizes and median time, and its outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    if not is_optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / 'profile')
        session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )
        for _ in range(repeats):
            outputs = session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    return list(_kernels(events)), outputs


def _kernels(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event.get('cat') == 'Node' and event['name'].endswith('_kernel_time'):
            runs.setdefault(event['args']['node_index'], []).append(event)
    for run in runs.values():
        yield {**run[-1]['args'], 'ms': float(np.median([event['dur'] for event in run])) / 1000}


def _count_macs(kernel: Mapping[str, Any]) -> int:
    """Count the multiply-adds of a kernel of a graph that was not optimized."""
    if kernel['op_name'] not in ('Conv', 'MatMul', 'Gemm'):
        return 0
    output = next(iter(kernel['output_type_shape'][0].values()))
    # Of one output value: a filter of a convolution, or a row of the first factor.
    factor = kernel['input_type_shape'][1 if kernel['op_name'] == 'Conv' else 0]
    shape = next(iter(factor.values()))
    each = math.prod(shape[1:]) if kernel['op_name'] == 'Conv' else shape[-1]
    return math.prod(output) * each
