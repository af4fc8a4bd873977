"""Localize a posed recording in a map, without ROS, and judge the poses against the recorded ones.

Examples:
  coam localize recording --frames query.txt --map kitchen_map --out report
  coam localize recording --frames query.txt --map kitchen_map --num-keyframes 5

The report is a folder with report.json, a top view, the errors over time, and pictures of the
matches of the best and the worst queries.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from shlex import quote

from coam_ros.evaluation.files import output_folder, write_json
from coam_ros.evaluation.metrics.localization import (
    evaluate_query,
    make_report,
    order_by_error,
    QueryOutcome,
    recall_key,
    summarise,
    THRESHOLDS,
)
from coam_ros.localization import LocalizationConfig, Relocalizer
from coam_ros.localization.drawing import draw_best_keyframe
from coam_ros.mapping.command import describe_with_progress
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import load_map
from coam_ros.matching.command import add_model_arguments, load_matcher
from coam_ros.matching.image_files import write_image
from rich.console import Console
from rich.progress import track
from rich.table import Table

_NUM_PICTURES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument('directory', type=Path, metavar='DIR', help='recording, 7-Scenes layout')
    parser.add_argument(
        '--map', type=Path, required=True, metavar='MAP', help='map to localize in'
    )
    parser.add_argument(
        '--frames',
        type=Path,
        metavar='LIST',
        help='text file in DIR, a frame name a line (default: all frames of DIR)',
    )
    parser.add_argument(
        '--out', type=output_folder, metavar='FOLDER', help='where to write the report'
    )
    parser.add_argument(
        '--cache-mib',
        type=int,
        default=512,
        metavar='MIB',
        help='memory for the features of keyframes (%(default)s)',
    )
    add_model_arguments(parser)
    group = parser.add_argument_group('localization')
    for setting in fields(LocalizationConfig):
        low, high = setting.metadata['range']
        description = f'{setting.metadata["description"]} {low:g} to {high:g}'
        group.add_argument(
            f'--{setting.name.replace("_", "-")}',
            type=type(setting.default),
            default=setting.default,
            metavar='N',
            # argparse formats the text with %.
            help=description.replace('%', '%%') + ' (%(default)s)',
        )


def run(args: argparse.Namespace) -> int:
    """Localize every frame, print the figures and write the report."""
    console = Console(markup=False, soft_wrap=True)
    settings = {s.name: getattr(args, s.name) for s in fields(LocalizationConfig)}
    config = LocalizationConfig(**settings)
    frames = SevenScenesSequence(args.directory, args.frames)
    keyframe_map = load_map(args.map)
    matcher = load_matcher(args)
    num_described = describe_with_progress(keyframe_map, matcher)
    if num_described:
        console.print(
            f'Computed {num_described} descriptors that {args.map} lacks for this model; '
            f'`coam map describe {quote(str(args.map))}` keeps them.'
        )
    relocalizer = Relocalizer(
        matcher, keyframe_map, config, feature_cache_bytes=args.cache_mib * 2**20
    )
    outcomes = []
    for name, frame in track(
        zip(frames.names, frames, strict=True), 'Localizing', total=len(frames), console=console
    ):
        result = relocalizer.relocalize(frame.decode_image(), frame.camera)
        outcomes.append(evaluate_query(name, result, frame.T_map_camera))

    cache = relocalizer.feature_cache
    summary = {
        **summarise(outcomes),
        'model': matcher.model_id,
        'backend': matcher.backend_name,
        'num_keyframes': config.num_keyframes,
        'map_keyframes': len(keyframe_map),
        'feature_cache': {
            'hits': cache.hits,
            'misses': cache.misses,
            'evictions': cache.evictions,
            'mib': cache.num_bytes / 2**20,
        },
    }
    for table in _make_tables(summary):
        console.print(table)
    for failure in summary['failures']:
        first = next(outcome for outcome in outcomes if outcome.failure == failure)
        console.print(f'{failure}, for example {first.name}: {first.message}')
    if args.out is not None:
        _write_report(args.out, summary, outcomes, frames, keyframe_map, relocalizer)
        console.print(f'Report: {args.out}')
    return 0


def _make_tables(summary: dict[str, object]) -> list[Table]:
    poses = Table('poses', 'value', title='Localization')
    poses.add_row('queries', str(summary['queries']))
    poses.add_row('localized', str(summary['localized']))
    for translation_m, rotation_deg in THRESHOLDS:
        share = summary[recall_key(translation_m, rotation_deg)]
        poses.add_row(f'within {translation_m * 100:g} cm, {rotation_deg:g} deg', f'{share:.1%}')
    for label, key, unit in [
        ('median error of localized', 'median_error_of_localized_cm', 'cm'),
        ('median error of localized', 'median_error_of_localized_deg', 'deg'),
        ('largest error', 'max_error_cm', 'cm'),
        ('largest error', 'max_error_deg', 'deg'),
        ('squared error / covariance, 6 dof', 'nees_per_dof', 'per dof'),
        ('squared error / covariance, position', 'nees_position_per_dof', 'per dof'),
    ]:
        value = summary[key]
        poses.add_row(label, '-' if value is None else f'{value:.2f} {unit}')
    for reason, count in summary['failures'].items():
        poses.add_row(f'not localized: {reason}', str(count))

    times = Table('stage', 'median [ms]', 'p95 [ms]', title='Time a query')
    for stage, values in summary['latency_ms'].items():
        times.add_row(stage, f'{values["median"]:.0f}', f'{values["p95"]:.0f}')
    return [poses, times]


def _write_report(
    folder: Path,
    summary: dict[str, object],
    outcomes: Sequence[QueryOutcome],
    frames: SevenScenesSequence,
    keyframe_map: KeyframeMap,
    relocalizer: Relocalizer,
) -> None:
    # matplotlib takes half a second to import.
    from coam_ros.evaluation.reports.localization_plots import plot_errors, plot_top_view

    write_json(folder / 'report.json', make_report(summary, outcomes))
    positions_map = [keyframe.T_map_camera[:3, 3] for keyframe in keyframe_map]
    plot_top_view(folder / 'top_view.png', positions_map, outcomes)
    plot_errors(folder / 'errors.png', outcomes)
    order = order_by_error(outcomes)
    best, worst = order[:_NUM_PICTURES], order[_NUM_PICTURES:][-_NUM_PICTURES:]
    for kind, chosen in (('best', best), ('worst', worst[::-1])):
        for rank, index in enumerate(chosen, start=1):
            # Localizing again is cheaper than keeping the matches of every query.
            image = frames[index].decode_image()
            result = relocalizer.relocalize(image, frames[index].camera)
            picture = draw_best_keyframe(image, result, keyframe_map)
            if picture is not None:
                write_image(folder / f'{kind}_{rank}_{frames.names[index]}.jpg', picture)
