"""Build the TensorRT engines of a model, for the GPU that is here or for one that is not.

Here, the gate compares them with ONNX Runtime before they are accepted. Built ahead of time, they
are compared where they are first used.

Examples:
  coam build-engine                                # the included model, for this GPU
  coam build-engine models/kitchen --precision fp32
  coam build-engine --compute-capability 8.9 --out engines    # TensorRT RTX, needs no GPU
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from coam_ros.inference.engine_manifest import EngineManifest, EngineOptions, Target
from coam_ros.inference.engines import (
    build_engines,
    EnginePlan,
    load_engines,
)
from coam_ros.inference.model import default_model_directory
from coam_ros.inference.tensorrt_package import import_tensorrt
from rich.console import Console
from rich.table import Table

_DEFAULTS = EngineOptions()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        'model', type=Path, nargs='?', help='model folder (default: the included one)'
    )
    parser.add_argument(
        '--out', type=Path, help='folder of the engines (default: in ~/.cache/coam_ros/engines)'
    )
    parser.add_argument(
        '--compute-capability',
        metavar='X.Y',
        help='build ahead of time for such a GPU with tensorrt_rtx (default: for this GPU)',
    )
    add_option_arguments(parser)


def add_option_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which engines are meant; `read_options` takes them."""
    group = parser.add_argument_group('engines')
    group.add_argument(
        '--precision',
        choices=('fp16', 'fp32'),
        default=_DEFAULTS.precision,
        help='fp16 with fp32 islands, or fp32 throughout (%(default)s)',
    )
    group.add_argument(
        '--image-size',
        type=_image_size,
        default=_DEFAULTS.image_size,
        metavar='WxH',
        help="size of the encoder's input, the shape of the camera's images at best (640x480)",
    )
    group.add_argument(
        '--max-keyframes',
        type=int,
        default=_DEFAULTS.max_keyframes,
        metavar='K',
        help='keyframes that are matched at once (%(default)s)',
    )


def read_options(args: argparse.Namespace) -> EngineOptions:
    """Return the engines that the arguments ask for.

    Raises:
        ValueError: fewer than one keyframe at once.
    """
    if args.max_keyframes < 1:
        raise ValueError(f'--max-keyframes is {args.max_keyframes}, wanted 1 or more.')
    return EngineOptions(args.precision, args.image_size, args.max_keyframes)


def run(args: argparse.Namespace) -> int:
    """Build, say what TensorRT made of each network, and ask the gate where there is a GPU."""
    options = read_options(args)
    ahead = args.compute_capability
    if ahead and not args.out:
        raise ValueError(
            f'--compute-capability {ahead} builds for another machine, wanted --out for a folder '
            'other than that of the engines of this one.'
        )
    target = None
    if ahead:
        tensorrt = import_tensorrt('tensorrt_rtx')
        target = Target(tensorrt.__name__, tensorrt.__version__, ahead, gpu='')
    plan = EnginePlan.make(args.model or default_model_directory(), options, target, args.out)
    engines, target = plan.engines, plan.target
    console = Console(markup=False, soft_wrap=True)
    with console.status('building') as status:

        def report(text: str) -> bool:
            status.update(text)
            return True

        layers = build_engines(plan, report)
        if not ahead:
            load_engines(plan, report).close()
    table = Table('network', 'layers', 'convolutions', 'matrix products', 'engine [MB]')
    manifest = EngineManifest.load(engines)
    for name, of_network in layers.items():
        kinds = (('CONVOLUTION',), ('MATRIX_MULTIPLY',))
        size_mb = (engines / getattr(manifest, name).file).stat().st_size / 1e6
        types = (Counter(x.element_type for x in of_network if x.kind in kind) for kind in kinds)
        words = (', '.join(f'{count} {kind}' for kind, count in found.items()) for found in types)
        table.add_row(name, str(len(of_network)), *words, f'{size_mb:.1f}')
    console.print(table)
    gpu = target.gpu or f'any GPU of compute capability {target.compute_capability}'
    console.print(f'{engines}: {target.package} {target.package_version} for {gpu}')
    console.print(
        'The gate will be asked where they are first used.'
        if manifest.gate is None
        else f'The gate accepts them: {manifest.gate["retention"]:.2%} of the matches retained.'
    )
    return 0


def _image_size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no size such as 640x480') from None
    return width, height
