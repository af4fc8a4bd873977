"""How long everything takes and how it grows, beside the network of the paper.

Examples:
  python benchmarks/latency.py --out latency                      all of it, one thread a core
  python benchmarks/latency.py --out latency --threads 2
  python benchmarks/latency.py --out soak --soak 10000            does memory grow?

The folder gets latency.json with all figures, latency.md with tables and latency.png. The scene is
rendered, nothing is downloaded. Needs what training needs (PyTorch) for the paper's network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
import os
from pathlib import Path
import platform
import sys

from coam_ros.evaluation.files import output_folder, write_json
from coam_ros.inference import CoamModel, default_model_directory, EngineIncompatibleError
from coam_ros.inference.model import BACKENDS, pair_matcher_inputs
from coam_ros.localization import LocalizationConfig
from coam_ros.mapping.builder import build_map
from coam_ros.matching import CoamMatcher
import cv2
from latency_cost import Cost, count_network, GPUS
from latency_paper import measure_this_cpu, PaperNetwork
from latency_report import plot_latency, render_tables
import latency_stages as stages
import onnxruntime
from rich.console import Console
from rich.progress import track
import torch

_MIN_SOAK = 10
_PAPER = "the paper's ResNet-50 form, PyTorch"


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=output_folder, required=True, help='folder for the figures')
    parser.add_argument('--model', type=Path, help='model folder (the default model)')
    parser.add_argument('--threads', type=int, default=os.cpu_count(), help='(%(default)s)')
    parser.add_argument('--repeats', type=int, default=15, help='calls timed (%(default)s)')
    parser.add_argument(
        '--keyframes',
        type=int,
        nargs='+',
        default=[1, 3, 5, 10],
        metavar='K',
        help='(%(default)s)',
    )
    parser.add_argument(
        '--widths',
        type=int,
        nargs='+',
        default=[448, 640, 896, 1280],
        metavar='PX',
        help='images are matched at these widths and 3/4 of them as height (%(default)s)',
    )
    parser.add_argument(
        '--map-sizes',
        type=int,
        nargs='+',
        default=[100, 1000, 10000],
        metavar='N',
        help='keyframes in a map (%(default)s)',
    )
    parser.add_argument(
        '--paper-size',
        type=int,
        default=512,
        metavar='PX',
        help="side of the images of the paper's network (%(default)s)",
    )
    parser.add_argument(
        '--soak',
        type=int,
        metavar='FRAMES',
        help='instead of all that: localize so many images of the first width and watch memory',
    )
    args = parser.parse_args(words)
    if args.repeats < 1:
        parser.error(f'--repeats {args.repeats}, wanted at least 1; correct it')
    if args.soak is not None and args.soak < _MIN_SOAK:
        parser.error(f'--soak {args.soak}, wanted at least {_MIN_SOAK}; correct it')
    return args


def measure_backends(
    directory: Path, scene: stages.Scene, args: argparse.Namespace, console: Console
) -> dict[str, stages.Row]:
    """Load a model on one backend after the other and measure it; say which are not here."""
    measured, missing = {}, {}
    for name in BACKENDS:
        # Names for the fastest of the others.
        if name in ('auto', 'cpu'):
            continue
        resident_mib = stages.resident_mib()
        try:
            model = CoamModel.load(directory, name, args.threads)
        except (EngineIncompatibleError, FileNotFoundError) as error:
            missing[name] = str(error)
            continue
        console.print(f'Measuring {model.backend_name}')
        rows = measure_backend(model, scene, args)
        measured[model.backend_name] = {'resident_before_mib': resident_mib, **rows}
        model.close()
    return {'backends': measured, 'missing_backends': missing}


def measure_backend(
    model: CoamModel, scene: stages.Scene, args: argparse.Namespace
) -> dict[str, list[stages.Row]]:
    """Time the networks and the whole way, for numbers of keyframes and for image sizes."""
    matcher = CoamMatcher(model)
    networks = stages.measure_networks(model, scene, args.keyframes, args.repeats)
    by_keyframes = [stages.measure_frames(matcher, scene, k, args.repeats) for k in args.keyframes]
    by_width = []
    for width in args.widths if model.input_size is None else model.input_size[:1]:
        matcher = CoamMatcher(model, _area_px(width))
        num_keyframes = LocalizationConfig().num_keyframes
        row = stages.measure_frames(matcher, scene, num_keyframes, args.repeats)
        by_width.append({'width': width, **row})
    return {'networks': networks, 'keyframes': by_keyframes, 'widths': by_width}


def _area_px(width: int) -> int:
    return width * width * 3 // 4


def compare_with_paper(
    directory: Path, paper: PaperNetwork, scene: stages.Scene, args: argparse.Namespace
) -> list[stages.Row]:
    """Time pairs of which nothing is known beforehand, in turns with the paper's network."""
    functions: dict[str, Callable[[], object]] = {}
    for backend in ('auto', 'onnxruntime'):
        matcher = CoamMatcher.load(directory, backend=backend, num_threads=args.threads)
        functions[matcher.backend_name] = partial(matcher.match, *scene.frames[:2])
    timings = stages.measure_in_turns({**functions, _PAPER: paper.run}, max(1, args.repeats // 3))
    paper_ms = timings[_PAPER].median_ms
    return [
        {'what': name, **asdict(timing), 'times_the_paper': paper_ms / timing.median_ms}
        for name, timing in timings.items()
    ]


def count_costs(
    directory: Path,
    model: CoamModel,
    paper: PaperNetwork,
    scene: stages.Scene,
    args: argparse.Namespace,
) -> dict[str, Cost]:
    """Count what each network costs, ours with the keyframes of one image."""
    num_keyframes = LocalizationConfig().num_keyframes
    query = model.encode(scene.frames[0])[0]
    size = scene.frames[0].shape[1::-1]
    inputs = pair_matcher_inputs(query, size, [query] * num_keyframes, [size] * num_keyframes)
    runs = (args.repeats, args.threads)
    manifest = model.manifest
    encoder, pair_matcher = (directory / n.file for n in (manifest.encoder, manifest.pair_matcher))
    return {
        'encoder': count_network(encoder, {'image': scene.frames[0][None]}, *runs),
        f'pair matcher, {num_keyframes} keyframes': count_network(pair_matcher, inputs, *runs),
        f"paper's network, one pair at {paper.size_px} px": paper.count(),
    }


def describe_machine(args: argparse.Namespace) -> dict[str, object]:
    """Say on what it was measured, and how busy that was."""
    names = [
        line.partition(':')[2].strip()
        for line in Path('/proc/cpuinfo').read_text().splitlines()
        if line.startswith('model name')
    ]
    return {
        'cpu': names[0] if names else platform.machine(),
        'num_cpus': os.cpu_count(),
        'num_threads': args.threads,
        'load_before': os.getloadavg()[0],
        'onnxruntime': onnxruntime.__version__,
        'torch': torch.__version__,
    }


def run(args: argparse.Namespace, console: Console) -> dict[str, object]:
    """Measure everything; see the module."""
    figures: dict[str, object] = {'machine': describe_machine(args)}
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    directory = args.model or default_model_directory()
    scene = stages.make_scene(max(3, *args.keyframes) + 2)
    if args.soak:
        matcher = CoamMatcher.load(
            directory, num_threads=args.threads, image_area_px=_area_px(args.widths[0])
        )
        figures['soak'] = stages.soak(
            matcher, scene, args.soak, lambda frames: track(frames, 'Localizing', console=console)
        )
        return figures
    figures |= measure_backends(directory, scene, args, console)
    dtypes = [torch.float32]
    if any(name.endswith('bf16') for name in figures['backends']):
        dtypes.append(torch.bfloat16)
    machines = (*(measure_this_cpu(args.threads, dtype) for dtype in dtypes), *GPUS)
    reference = CoamModel.load(directory, 'onnxruntime', args.threads)
    matcher = CoamMatcher(reference)
    figures['model_id'] = matcher.model_id
    figures['map_sizes'] = stages.measure_map_sizes(
        build_map(scene.keyframes, matcher), args.map_sizes, args.repeats
    )
    console.print("Measuring the paper's network in turns with ours")
    paper = PaperNetwork(args.paper_size)
    figures['paper_size_px'] = paper.size_px
    figures['pairs'] = compare_with_paper(directory, paper, scene, args)
    costs = count_costs(directory, reference, paper, scene, args)
    figures['costs'] = {
        name: {
            **asdict(cost),
            'floor_ms': {m.name: cost.floor_ms(m) for m in machines},
            'layerwise_ms': {m.name: cost.layerwise_ms(m) for m in machines},
        }
        for name, cost in costs.items()
    }
    figures['machines'] = [asdict(machine) for machine in machines]
    reference.close()
    return figures


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write the folder."""
    args = parse_arguments(words)
    console = Console()
    figures = run(args, console)
    args.out.mkdir(parents=True, exist_ok=True)
    tables = render_tables(figures)
    write_json(args.out / 'latency.json', figures)
    (args.out / 'latency.md').write_text(tables, encoding='utf-8')
    plot_latency(figures, args.out / 'latency.png')
    console.print(tables, markup=False, highlight=False, soft_wrap=True)
    console.print(f'Written to {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
