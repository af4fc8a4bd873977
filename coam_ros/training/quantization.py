"""The pair matcher with its large convolutions in int8, for CPUs that multiply no bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import tempfile
from typing import Any

from coam_ros.inference.files import sha256_of
from coam_ros.inference.gate import compare_backends, NothingToCompareError
from coam_ros.inference.gate_pairs import draw_pairs, fixed_pairs
from coam_ros.inference.manifest import Manifest, NetworkFile
from coam_ros.inference.model import CoamModel, pair_matcher_inputs
from coam_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from coam_ros.matching.preprocessing import Resizing
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    quantize_static,
    QuantType,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

# Drawn as those of the gate are, and others: on photos of the training data the ranges of the
# activations come out the same (docs/engines.md).
_CALIBRATION_SEEDS = range(100, 116)
_IMAGE_SIZE = (640, 480)


def quantize_pair_matcher(directory: Path, manifest: Manifest) -> NetworkFile | None:
    """Write `pair_matcher_int8.onnx` beside the networks of a model.

    Weights and inputs of the 3 x 3 convolutions are rounded to 8 bits; attention, similarities
    and what makes coordinates stay in float32. In ONNX's QuantizeLinear and DequantizeLinear.

    Args:
        directory: of the model, with both networks in float32.
        manifest: of the model.

    Returns:
        The file, or None where the gate refuses it; then the reason is printed and nothing is
        left.
    """
    source = directory / manifest.pair_matcher.file
    path = directory / 'pair_matcher_int8.onnx'
    size = Resizing.fit(_IMAGE_SIZE, manifest.image_area_px, manifest.size_multiple).input_size
    encoder = OnnxRuntimeBackend(directory / manifest.encoder.file)
    reference = CoamModel(manifest, encoder, OnnxRuntimeBackend(source))
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / source.name
        # Marks the file as prepared, without which the quantizer warns; there is nothing to do.
        quant_pre_process(
            source,
            prepared,
            skip_optimization=True,
            skip_onnx_shape=True,
            skip_symbolic_shape=True,
        )
        quantize_static(
            prepared,
            path,
            _Calibration(reference, size),
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=_convolutions_to_quantize(source),
            extra_options={
                # The mean range of the pairs: the largest of all is that of an outlier.
                'CalibMovingAverage': True,
                # Rounded once, where it enters the next convolution.
                'OpTypesToExcludeOutputQuantization': ['Conv'],
            },
        )
    candidate = CoamModel(manifest, encoder, OnnxRuntimeBackend(path))
    try:
        failures = compare_backends(reference, candidate, fixed_pairs(size)).failures
    except NothingToCompareError as error:
        failures = [str(error)]
    if failures:
        path.unlink()
        print(f'{path.name} is left out, CPUs without bfloat16 take float32: {failures[0]}')
        return None
    return NetworkFile(
        path.name, sha256_of(path), manifest.pair_matcher.inputs, manifest.pair_matcher.outputs
    )


class _Calibration(CalibrationDataReader):
    """Inputs of the pair matcher, as onnxruntime.quantization asks for them."""

    def __init__(self, model: CoamModel, size: tuple[int, int]) -> None:
        self._inputs = self._read(model, size)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)

    @staticmethod
    def _read(model: CoamModel, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
        pairs = draw_pairs(size, _CALIBRATION_SEEDS)
        for pair in tqdm(pairs, 'int8', len(_CALIBRATION_SEEDS), unit='pair'):
            query, keyframe = (model.encode(image)[0] for image in (pair.query, pair.keyframe))
            yield pair_matcher_inputs(query, size, [keyframe], [size])


def _convolutions_to_quantize(path: Path) -> list[str]:
    """Name the 3 x 3 convolutions but the first: those of 1 x 1 make queries, keys and heads.

    The first of each image, at stride 32, costs next to nothing, and all others build on it: in
    int8 it loses 0.5 % of the matches of wide pairs.
    """
    graph = onnx.load(path).graph
    shapes = {weights.name: weights.dims for weights in graph.initializer}
    convolutions = [
        node
        for node in graph.node
        if node.op_type == 'Conv' and list(shapes[node.input[1]][2:]) == [3, 3]
    ]
    # Both images are convolved with the same weights.
    first_weights = convolutions[0].input[1]
    return [node.name for node in convolutions if node.input[1] != first_weights]
