"""Check the covariance of poses against the truth, and what each gate costs and is worth.

Examples:
  coam check-covariance redkitchen --elsewhere livingroom --out report
  coam check-covariance redkitchen --map-position-std-m 0.03 --map-rotation-std-deg 1
  coam check-covariance redkitchen cambridge/ShopFacade --right 0.25,2 --out report

Every query of the data sets is localized with all gates open. The report holds
  report.json   figures, and every query
  nees.png      squared errors over the covariance of the poses that the gates accept, against the
                chi-square distribution that honest covariances would give
  gates.png     precision against recall of each gate alone, and the gates in force
Images of --elsewhere show nothing of the maps: whatever pose they get is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
import math
from pathlib import Path

from coam_ros.evaluation.benchmarks.localization import (
    build_localization_map,
    NO_GATES,
    parse_threshold,
)
from coam_ros.evaluation.data.localization_sets import (
    each,
    every_nth,
    LocalizationSet,
    open_localization_set,
    PosedFrames,
)
from coam_ros.evaluation.files import output_folder, write_json
from coam_ros.evaluation.metrics.covariance import (
    gate_pose,
    GatedPose,
    is_published,
    measure_consistency,
    measure_gates,
    WANTED_PRECISION,
)
from coam_ros.evaluation.provenance import describe_run, require_distinct_names
from coam_ros.localization import LocalizationConfig, Relocalizer
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.matching.command import add_model_arguments, load_matcher
from rich.console import Console
from rich.progress import track
from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        'directories', type=Path, nargs='+', metavar='DIR', help='as of coam bench localize'
    )
    parser.add_argument(
        '--elsewhere',
        type=Path,
        nargs='+',
        default=[],
        metavar='DIR',
        help='images of other places, layout of 7-Scenes',
    )
    parser.add_argument(
        '--right',
        type=parse_threshold,
        default=(0.25, 10.0),
        metavar='M,DEG',
        help='a pose this near the truth is right (0.25,10)',
    )
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help='take every N-th image (%(default)s)'
    )
    parser.add_argument(
        '--num-keyframes',
        type=int,
        default=LocalizationConfig().num_keyframes,
        metavar='N',
        help='keyframes to match with each image (%(default)s)',
    )
    for whose in ('keyframe', 'map'):
        for name, unit in (('position', 'm'), ('rotation', 'deg')):
            setting = f'{whose}_{name}_std_{unit}'
            parser.add_argument(
                f'--{setting.replace("_", "-")}',
                type=float,
                default=getattr(LocalizationConfig(), setting),
                metavar=unit.upper(),
                help='as the parameter of the node (%(default)s)',
            )
    parser.add_argument(
        '--out', type=output_folder, metavar='FOLDER', help='where to write the report'
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Localize everything, print the figures and write the report."""
    if args.every < 1:
        raise ValueError(f'--every {args.every}, wanted at least 1; correct it.')
    for directories in (args.directories, args.elsewhere):
        require_distinct_names(directories)
    console = Console(markup=False)
    matcher = load_matcher(args)
    elsewhere = {folder.resolve().name: SevenScenesSequence(folder) for folder in args.elsewhere}
    in_force = LocalizationConfig(
        num_keyframes=args.num_keyframes,
        keyframe_position_std_m=args.keyframe_position_std_m,
        keyframe_rotation_std_deg=args.keyframe_rotation_std_deg,
        map_position_std_m=args.map_position_std_m,
        map_rotation_std_deg=args.map_rotation_std_deg,
    )
    open_gates = replace(in_force, **NO_GATES)
    by_set: dict[str, list[GatedPose]] = {}
    num_images: dict[str, int] = {}
    for directory in args.directories:
        data = open_localization_set(directory)
        relocalizer = Relocalizer(matcher, build_localization_map(data, matcher), open_gates)
        by_set[data.name], num_images[data.name] = _localize_set(
            data, elsewhere, relocalizer, args, console
        )
    poses = [pose for found in by_set.values() for pose in found]
    report = {
        **describe_run(),
        'model': matcher.model_id,
        'right': list(args.right),
        'settings': asdict(in_force),
        'images': num_images,
        'consistency': {
            name: measure_consistency([p for p in found if is_published(p, in_force)])
            for name, found in by_set.items()
        },
        'gates': measure_gates(poses, in_force),
        'poses': {name: [asdict(pose) for pose in found] for name, found in by_set.items()},
    }
    for table in _make_tables(report):
        console.print(table)
    if args.out is not None:
        _write_report(args.out, report, by_set, in_force)
        console.print(f'Report: {args.out}')
    return 0


def _localize_set(
    data: LocalizationSet,
    elsewhere: Mapping[str, PosedFrames],
    relocalizer: Relocalizer,
    args: argparse.Namespace,
    console: Console,
) -> tuple[list[GatedPose], int]:
    """Localize the queries and the images of elsewhere in the map of a data set.

    Returns:
        The poses found, and the number of images.
    """
    found = []
    num_images = 0
    parts = [('', data.queries), *((f'{name}/', frames) for name, frames in elsewhere.items())]
    for prefix, all_frames in parts:
        frames = every_nth(all_frames, args.every)
        num_images += len(frames)
        for name, frame in track(
            zip(frames.names, each(frames), strict=True),
            f'{data.name}, {prefix or "queries"}',
            total=len(frames),
            console=console,
        ):
            result = relocalizer.relocalize(frame.decode_image(), frame.camera)
            if result.is_localized:
                truth = None if prefix else frame.T_map_camera
                found.append(gate_pose(prefix + name, result, truth, args.right))
    return found, num_images


def _make_tables(report: Mapping[str, object]) -> list[Table]:
    consistency = Table(
        'data set',
        'poses',
        'position / dof',
        'pose / dof',
        'within 95 %',
        title='Squared error over covariance of published poses',
        caption='1 is honest; in brackets the 95 % interval of as many honest poses',
    )
    for name, found in report['consistency'].items():
        consistency.add_row(
            name,
            str(found['poses']),
            _with_interval(found['position']),
            _with_interval(found['pose']),
            _percent(found['pose']['within_95_percent']),
        )
    gates = Table(
        'gate',
        'in force',
        'precision',
        'recall',
        f'for {WANTED_PRECISION:.0%}',
        'recall',
        title='Gates, each alone',
        caption=f'for {WANTED_PRECISION:.0%}: the loosest threshold with that precision',
    )
    for name, found in report['gates'].items():
        proposed = found.get('proposed') or {}
        gates.add_row(
            name,
            _number(found.get('in_force')),
            _percent(found['precision']),
            _percent(found['recall']),
            _number(proposed.get('threshold')),
            _percent(proposed.get('recall')),
        )
    return [consistency, gates]


def _with_interval(part: Mapping[str, object]) -> str:
    low, high = part['honest_interval']
    return f'{_number(part["mean_per_dof"])} ({low:.2f} to {high:.2f})'


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3g}'


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{value:.1%}'


def _write_report(
    folder: Path,
    report: Mapping[str, object],
    by_set: Mapping[str, Sequence[GatedPose]],
    config: LocalizationConfig,
) -> None:
    # matplotlib takes half a second to import.
    from coam_ros.evaluation.reports.covariance_plots import plot_gates, plot_nees

    write_json(folder / 'report.json', report)
    published = {
        name: [p for p in found if is_published(p, config) and not math.isnan(p.nees_pose)]
        for name, found in by_set.items()
    }
    plot_nees(folder / 'nees.png', published)
    plot_gates(folder / 'gates.png', [p for found in by_set.values() for p in found], config)
