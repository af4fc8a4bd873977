"""Check how far the keyframes of a map agree: each is localized in the others.

Examples:
  coam check-map kitchen_map
  coam check-map kitchen_map --apart 20 --out report

No ground truth is needed: the pose that the others give a keyframe is compared with the one that
it has. The command says how far keyframes are off by themselves, as keyframe_position_std_m and
keyframe_rotation_std_deg of the matcher take it, and names those that stand out (a pose gone
wrong, a thing that moved) or that no other keyframe sees.

Keyframes recorded one after the other share the drift of whatever gave their poses. With --apart N
each is compared only with those that are more than N places away in the order of the map, so
that other passes count alone: a larger disagreement then is drift between passes, for
map_position_std_m and map_rotation_std_deg.

The report holds report.json, a top view and the disagreement of each keyframe in order.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
import math
from pathlib import Path

from coam_ros.evaluation.files import output_folder, write_json
from coam_ros.evaluation.metrics.keyframe_error import (
    Disagreement,
    fit_keyframe_error,
    KeyframeError,
)
from coam_ros.evaluation.metrics.localization import (
    error_vector,
    evaluate_query,
    make_report,
    QueryOutcome,
    summarise,
)
from coam_ros.evaluation.provenance import describe_run
from coam_ros.localization import LocalizationConfig, RelocalizationResult, Relocalizer
from coam_ros.localization.relocalizer import estimate_pose
from coam_ros.mapping.command import describe_with_progress
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import load_map
from coam_ros.matching.command import add_model_arguments, load_matcher
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

_NUM_NAMED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument('map', type=Path, metavar='MAP', help='folder of the map')
    parser.add_argument(
        '--apart',
        type=int,
        default=0,
        metavar='N',
        help='leave out the N keyframes before and after each one (%(default)s)',
    )
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help='check every N-th keyframe (%(default)s)'
    )
    parser.add_argument(
        '--num-keyframes',
        type=int,
        default=LocalizationConfig().num_keyframes,
        metavar='N',
        help='keyframes to match with each one (%(default)s)',
    )
    parser.add_argument(
        '--out', type=output_folder, metavar='FOLDER', help='where to write the report'
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Localize every keyframe in the others, print the figures and write the report."""
    if args.apart < 0 or args.every < 1:
        raise ValueError(
            f'--apart {args.apart} --every {args.every}, wanted at least 0 and at least 1.'
        )
    console = Console(markup=False, soft_wrap=True)
    # The keyframes' own errors are what is asked for.
    config = LocalizationConfig(
        num_keyframes=args.num_keyframes,
        keyframe_position_std_m=0.0,
        keyframe_rotation_std_deg=0.0,
    )
    keyframe_map = load_map(args.map)
    keyframes = list(keyframe_map)
    # Without those that have all others beside them: nothing is left to localize them in.
    places = [
        place
        for place in range(0, len(keyframes), args.every)
        if max(place, len(keyframes) - 1 - place) > args.apart
    ]
    if not places:
        raise ValueError(
            f'--apart {args.apart} leaves nothing to localize any of {len(keyframes)} keyframes '
            'in; wanted less, or a map of more keyframes.'
        )
    matcher = load_matcher(args)
    describe_with_progress(keyframe_map, matcher)
    relocalizer = Relocalizer(matcher, keyframe_map, config)
    outcomes, disagreements = [], []
    for place in track(places, 'Localizing keyframes in the others', console=console):
        keyframe = keyframes[place]
        near = keyframes[max(place - args.apart, 0) : place + args.apart + 1]
        result = _localize_without(relocalizer, keyframe_map, keyframe, near)
        outcomes.append(evaluate_query(str(keyframe.id), result, keyframe.T_map_camera))
        if result.is_localized:
            disagreements.append(_disagreement(result, keyframe, keyframe_map, config))
    found = fit_keyframe_error(disagreements) if disagreements else None
    console.print(_make_table(outcomes, found))
    _print_advice(console, outcomes, found, is_apart=args.apart > 0)
    if args.out is not None:
        summary = {
            **describe_run(),
            'model': matcher.model_id,
            'map': keyframe_map.map_id,
            'apart': args.apart,
            'keyframe_error': None if found is None else asdict(found),
            **summarise(outcomes),
        }
        _write_report(args.out, summary, outcomes, keyframes)
        console.print(f'Report: {args.out}')
    return 0


def _localize_without(
    relocalizer: Relocalizer,
    keyframe_map: KeyframeMap,
    keyframe: Keyframe,
    left_out: Sequence[Keyframe],
) -> RelocalizationResult:
    for each in left_out:
        keyframe_map.remove(each.id)
    result = relocalizer.relocalize(keyframe.decode_image(), keyframe.camera)
    for each in left_out:
        keyframe_map.add(each)
    return result


def _disagreement(
    result: RelocalizationResult,
    keyframe: Keyframe,
    keyframe_map: KeyframeMap,
    config: LocalizationConfig,
) -> Disagreement:
    positions_map = np.array(
        [keyframe_map.get(number).T_map_camera[:3, 3] for number in result.keyframe_ids]
    )

    def covariance(position_std_m: float, rotation_std_deg: float) -> np.ndarray:
        off = replace(
            config,
            keyframe_position_std_m=position_std_m,
            keyframe_rotation_std_deg=rotation_std_deg,
        )
        pose = estimate_pose(result.keyframe_matches, positions_map, keyframe.camera, off)
        return pose.covariance

    by_matching = result.covariance  # for keyframes that are exact, as `config` has them
    # The keyframe itself is off too, as a whole.
    own_position = np.diag([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    own_rotation = np.diag([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]) * math.radians(1.0) ** 2
    return Disagreement(
        str(keyframe.id),
        error_vector(result.T_map_camera, keyframe.T_map_camera),
        by_matching,
        covariance(1.0, 0.0) - by_matching + own_position,
        covariance(0.0, 1.0) - by_matching + own_rotation,
    )


def _make_table(outcomes: Sequence[QueryOutcome], found: KeyframeError | None) -> Table:
    localized = [outcome for outcome in outcomes if outcome.is_localized]
    table = Table('keyframes', 'value', title='Each keyframe in the others')
    table.add_row('checked', str(len(outcomes)))
    table.add_row('localized', str(len(localized)))
    if found is None:
        return table
    distances_cm = [100 * outcome.translation_error_m for outcome in localized]
    angles_deg = [outcome.rotation_error_deg for outcome in localized]
    for name, percentile in (('median', 50), ('95 %', 95), ('largest', 100)):
        distance_cm = np.percentile(distances_cm, percentile)
        angle_deg = np.percentile(angles_deg, percentile)
        table.add_row(f'disagreement, {name}', f'{distance_cm:.1f} cm, {angle_deg:.2f} deg')
    table.add_row(
        "of that a keyframe's own",
        f'{100 * found.position_std_m:.2f} cm, {found.rotation_std_deg:.3f} deg',
    )
    table.add_row('stand out', str(len(found.outliers)))
    return table


def _print_advice(
    console: Console,
    outcomes: Sequence[QueryOutcome],
    found: KeyframeError | None,
    is_apart: bool,
) -> None:
    """Say what the figures are good for."""
    if found is not None:
        console.print(
            f'As if every keyframe were off by itself by {found.position_std_m:.4f} m along and '
            f'{found.rotation_std_deg:.3f} deg about each axis.'
        )
        console.print(
            'What is more than without --apart is drift between passes: set map_position_std_m '
            'and map_rotation_std_deg of the matcher to it.'
            if is_apart
            else 'Set keyframe_position_std_m and keyframe_rotation_std_deg of the matcher to '
            'this.'
        )
        if found.outliers:
            console.print(
                f'Keyframes that are farther off: {_listed(found.outliers)}. Look at their '
                'images and poses; those gone wrong are better left out.'
            )
    failed = [outcome for outcome in outcomes if not outcome.is_localized]
    if failed:
        console.print(
            f'Keyframes that the others do not localize: {_listed([o.name for o in failed])}. '
            + (
                'Nothing but their neighbours localizes them. '
                if is_apart
                else 'A robot at one of them has that keyframe alone: map the place more densely. '
            )
            + f'Keyframe {failed[0].name}: {failed[0].message}'
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NUM_NAMED
    return ', '.join(names[:_NUM_NAMED]) + (f' and {more} more' if more > 0 else '')


def _write_report(
    folder: Path,
    summary: dict[str, object],
    outcomes: Sequence[QueryOutcome],
    keyframes: Sequence[Keyframe],
) -> None:
    # matplotlib takes half a second to import.
    from coam_ros.evaluation.reports.localization_plots import plot_errors, plot_top_view

    write_json(folder / 'report.json', make_report(summary, outcomes))
    positions_map = [keyframe.T_map_camera[:3, 3] for keyframe in keyframes]
    plot_top_view(folder / 'top_view.png', positions_map, outcomes)
    plot_errors(folder / 'disagreement.png', outcomes)
