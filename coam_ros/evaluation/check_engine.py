"""Compare a backend with the fp32 reference, match by match: the gate, as a table.

The status is 1 when the gate refuses it.

Examples:
  coam check-engine                              # the backend that this machine would choose
  coam check-engine --backend tensorrt --engines engines
  coam check-engine --backend openvino --pairs DEV/fox --pairs DEV/homography --max-pairs 20
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from coam_ros.evaluation.data.image_pairs import ImagePair
from coam_ros.evaluation.data.pair_lists import read_any_pairs
from coam_ros.geometry.image_views import resize_view
from coam_ros.inference.build_engine import add_option_arguments, read_options
from coam_ros.inference.engine_manifest import EngineOptions
from coam_ros.inference.engines import (
    check_image_size,
    EnginePlan,
    open_engines,
)
from coam_ros.inference.errors import EngineIncompatibleError
from coam_ros.inference.gate import (
    compare_backends,
    GatePair,
    GateReport,
    PRECISION_THRESHOLDS_PX,
)
from coam_ros.inference.gate_pairs import fixed_pairs
from coam_ros.inference.manifest import Manifest
from coam_ros.inference.model import BACKENDS, CoamModel, default_model_directory
from coam_ros.matching import Correspondences
from coam_ros.matching.image_files import read_image
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        'model', type=Path, nargs='?', help='model folder (default: the included one)'
    )
    parser.add_argument(
        '--backend', choices=BACKENDS, default='auto', help='what is compared (%(default)s)'
    )
    parser.add_argument(
        '--engines',
        type=Path,
        help='folder of TensorRT engines (default: where `coam build-engine` puts them)',
    )
    parser.add_argument(
        '--pairs',
        type=Path,
        action='append',
        help='folder as of coam bench pose or homography; may be given several times (default: '
        'the fixed pairs that decide whether an engine is accepted)',
    )
    parser.add_argument(
        '--max-pairs',
        type=int,
        default=50,
        metavar='N',
        help='pairs to take of each folder (%(default)s)',
    )
    parser.add_argument(
        '--threads', type=int, metavar='N', help='CPU threads (default: one a physical core)'
    )
    add_option_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    if args.max_pairs < 1:
        raise ValueError(f'--max-pairs is {args.max_pairs}, wanted 1 or more.')
    model = args.model or default_model_directory()
    options = read_options(args)
    check_image_size(Manifest.load(model), options.image_size)
    reference = CoamModel.load(model, 'onnxruntime', args.threads)
    candidate = _load_candidate(args, model, options)
    try:
        report = compare_backends(reference, candidate, _pairs(args, options.image_size))
    finally:
        candidate.close()
        reference.close()
    console = Console(markup=False, soft_wrap=True)
    console.print(_table(report))
    for failure in report.failures:
        console.print(f'refused: {failure}')
    if report.is_accepted:
        console.print(f'accepted: {report.candidate} finds what {report.reference} finds')
    return 0 if report.is_accepted else 1


def _load_candidate(args: argparse.Namespace, model: Path, options: EngineOptions) -> CoamModel:
    backend = args.backend
    if backend in ('auto', 'tensorrt'):
        try:
            return open_engines(EnginePlan.make(model, options, engines=args.engines))
        except (EngineIncompatibleError, FileNotFoundError):
            if args.engines or backend == 'tensorrt':
                raise
        backend = 'cpu'
    return CoamModel.load(model, backend, args.threads)


def _pairs(args: argparse.Namespace, size: tuple[int, int]) -> Iterator[GatePair]:
    if not args.pairs:
        yield from fixed_pairs(size)
    for folder in args.pairs or ():
        pairs = read_any_pairs(folder)
        for pair in pairs[:: -(-len(pairs) // args.max_pairs)]:
            yield _gate_pair(pair, size)


def _gate_pair(pair: ImagePair, size: tuple[int, int]) -> GatePair:
    query, to_query = _cover(read_image(pair.path0), size)
    keyframe, to_keyframe = _cover(read_image(pair.path1), size)
    resized = pair.resized(to_query, to_keyframe)

    def errors_px(points0: NDArray[np.float32], points1: NDArray[np.float32]) -> NDArray:
        scores = np.ones(len(points0), np.float32)
        return resized.errors_px(Correspondences(points0, points1, scores))

    return GatePair(pair.name, query, keyframe, errors_px)


def _cover(
    image: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Resize an image until it covers a size, cut right and bottom off, and say where it went."""
    sides = image.shape[1::-1]
    factor = max(wanted / side for wanted, side in zip(size, sides, strict=True))
    resized = [max(round(side * factor), w) for side, w in zip(sides, size, strict=True)]
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    covering = cv2.resize(image, resized, interpolation=interpolation)
    view = resize_view(*np.divide(resized, sides))
    return np.ascontiguousarray(covering[: size[1], : size[0]]), view


def _table(report: GateReport) -> Table:
    table = Table('', report.reference, report.candidate)
    table.add_row('matches', str(report.num_reference_matches), str(report.num_candidate_matches))
    table.add_row('matches retained', '', f'{report.retention:.2%}')
    precisions = zip(
        PRECISION_THRESHOLDS_PX,
        report.reference_precision,
        report.candidate_precision,
        strict=True,
    )
    for threshold, reference, candidate in precisions:
        table.add_row(f'right to {threshold:g} px', f'{reference:.2%}', f'{candidate:.2%}')
    table.add_row('pairs emptied', '', f'{len(report.emptied_pairs)} of {report.num_pairs}')
    table.add_row('matches outside the images', '', str(report.num_outside))
    table.add_row('cosine of descriptors', '', f'{report.descriptor_cosine:.4f}')
    return table
