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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import json
import math
from pathlib import Path

from coam_ros.evaluation.benchmarks.localization import (
    build_localization_map,
    is_within,
    NO_GATES,
    parse_threshold,
)
from coam_ros.evaluation.data.localization_sets import open_localization_set, PosedFrames
from coam_ros.evaluation.provenance import describe_run, require_distinct_names
from coam_ros.evaluation.reports.benchmark_report import write_file
from coam_ros.evaluation.reports.localization_report import evaluate_query, to_json_values
from coam_ros.localization import LocalizationConfig, RelocalizationResult, Relocalizer
from coam_ros.localization.gates import largest_stds
from coam_ros.mapping.importers.seven_scenes import read_frames
from coam_ros.matching.command import add_model_arguments, load_matcher
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

DOF_POSITION, DOF_POSE = 3, 6
# A gate is proposed where so many of the poses that it accepts are right.
_WANTED_PRECISION = 0.99
_LEVEL_Z = 1.96  # of 95 %


@dataclass(frozen=True)
class Gate:
    """A threshold of `LocalizationConfig` on one number of a pose.

    Attributes:
        setting: name of the threshold.
        value: name of the number in `GatedPose`.
        is_lower_bound: whether larger numbers are better.
    """

    setting: str
    value: str
    is_lower_bound: bool

    def accepts(self, pose: GatedPose, threshold: float) -> bool:
        """Tell whether a pose passes."""
        number = getattr(pose, self.value)
        return number >= threshold if self.is_lower_bound else number <= threshold


GATES = (
    Gate('min_inliers', 'num_inliers', True),
    Gate('min_inlier_ratio', 'inlier_ratio', True),
    Gate('min_coverage', 'coverage', True),
    Gate('max_position_std_m', 'position_std_m', False),
    Gate('max_rotation_std_deg', 'rotation_std_deg', False),
)


@dataclass(frozen=True)
class GatedPose:
    """A pose found with all gates open.

    Attributes:
        name: of the query.
        is_right: whether it is near the truth; false for an image of elsewhere.
        translation_error_m: NaN for an image of elsewhere.
        rotation_error_deg: the same.
        nees_position: squared error of the position over its covariance, per degree of freedom;
            NaN likewise.
        nees_pose: the same of the whole pose.
        num_inliers: as in the result of localization.
        inlier_ratio: the same.
        coverage: the same.
        position_std_m: along the worst direction.
        rotation_std_deg: about the worst axis.
    """

    name: str
    is_right: bool
    translation_error_m: float
    rotation_error_deg: float
    nees_position: float
    nees_pose: float
    num_inliers: int
    inlier_ratio: float
    coverage: float
    position_std_m: float
    rotation_std_deg: float


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
    for name, unit in (('position', 'm'), ('rotation', 'deg')):
        parser.add_argument(
            f'--map-{name}-std-{unit}',
            type=float,
            default=0.0,
            metavar=unit.upper(),
            help=f'of the {name} of the map, added to every pose, as the parameter of the node '
            '(%(default)s)',
        )
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='where to write the report')
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Localize everything, print the figures and write the report."""
    if args.every < 1:
        raise ValueError(f'--every {args.every}, wanted at least 1.')
    for directories in (args.directories, args.elsewhere):
        require_distinct_names(directories)
    console = Console(markup=False)
    matcher = load_matcher(args)
    elsewhere = [(directory.name, read_frames(directory)) for directory in args.elsewhere]
    in_force = LocalizationConfig(
        num_keyframes=args.num_keyframes,
        map_position_std_m=args.map_position_std_m,
        map_rotation_std_deg=args.map_rotation_std_deg,
    )
    open_gates = replace(in_force, **NO_GATES)
    by_set: dict[str, list[GatedPose]] = {}
    num_images: dict[str, int] = {}
    for directory in args.directories:
        data = open_localization_set(directory)
        relocalizer = Relocalizer(matcher, build_localization_map(data, matcher), open_gates)
        parts: list[tuple[str, PosedFrames, bool]] = [('', data.queries, True)]
        parts += [(f'{name}/', frames, False) for name, frames in elsewhere]
        found = by_set.setdefault(data.name, [])
        for prefix, frames, is_mapped in parts:
            places = range(0, len(frames), args.every)
            num_images[data.name] = num_images.get(data.name, 0) + len(places)
            for place in track(places, f'{data.name}, {prefix or "queries"}', console=console):
                frame = frames[place]
                result = relocalizer.relocalize(frame.decode_image(), frame.camera)
                if result.is_localized:
                    truth = frame.T_map_camera if is_mapped else None
                    found.append(
                        gate_pose(prefix + frames.names[place], result, truth, args.right)
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


def gate_pose(
    name: str,
    result: RelocalizationResult,
    T_map_camera_true: NDArray[np.float64] | None,
    right: tuple[float, float],
) -> GatedPose:
    """Join what the gates look at with the truth; None for an image of elsewhere."""
    nan = float('nan')
    errors = squared_errors = (nan, nan)
    if T_map_camera_true is not None:
        outcome = evaluate_query(name, result, T_map_camera_true)
        errors = (outcome.translation_error_m, outcome.rotation_error_deg)
        squared_errors = outcome.squared_errors
    return GatedPose(
        name,
        is_within(errors, right),
        *errors,
        *squared_errors,
        result.num_inliers,
        result.inlier_ratio,
        result.coverage,
        *largest_stds(result.covariance),
    )


def is_published(pose: GatedPose, config: LocalizationConfig) -> bool:
    """Tell whether a pose passes all gates of a configuration."""
    return all(gate.accepts(pose, getattr(config, gate.setting)) for gate in GATES)


def measure_consistency(poses: Sequence[GatedPose]) -> dict[str, object]:
    """Compare squared errors over covariances with what honest covariances give.

    Args:
        poses: published ones; those of elsewhere have no truth and are left out.

    Returns:
        For position and pose: mean per degree of freedom (1 for an honest covariance), the 95 %
        interval of that mean for so many honest poses, and the share within the 95 % ellipsoid.
    """
    known = [pose for pose in poses if not math.isnan(pose.nees_pose)]
    figures: dict[str, object] = {'poses': len(known)}
    for name, dof, values in (
        ('position', DOF_POSITION, [pose.nees_position for pose in known]),
        ('pose', DOF_POSE, [pose.nees_pose for pose in known]),
    ):
        total = dof * max(len(known), 1)
        figures[name] = {
            'mean_per_dof': float(np.mean(values)) if values else None,
            'honest_interval': [chi2_quantile(total, z) / total for z in (-_LEVEL_Z, _LEVEL_Z)],
            'within_95_percent': float(np.mean([chi2_share(dof, dof * v) <= 0.95 for v in values]))
            if values
            else None,
        }
    return figures


def chi2_share(dof: int, value: float) -> float:
    """Give the share of the chi-square distribution below a value, for 3 or 6 degrees."""
    half = value / 2
    if dof == DOF_POSITION:
        return math.erf(math.sqrt(half)) - 2 * math.sqrt(half / math.pi) * math.exp(-half)
    return 1 - math.exp(-half) * (1 + half + half**2 / 2)


def chi2_quantile(dof: int, z: float) -> float:
    """Give the quantile of the chi-square distribution at a normal deviate.

    Wilson and Hilferty, The Distribution of Chi-Square, PNAS 17, 1931; to 1 % from 3 degrees on.
    """
    spread = 2 / (9 * dof)
    return dof * (1 - spread + z * math.sqrt(spread)) ** 3


def measure_gates(poses: Sequence[GatedPose], config: LocalizationConfig) -> dict[str, object]:
    """Say what each gate alone does, what all in force do together, and propose thresholds.

    Returns:
        For each setting: `in_force` with its `precision` and `recall`, and `proposed`, the
        threshold of most recall whose precision is 99 %, with its own two, half way to the next
        worse pose; None where no threshold reaches that. Under 'all': of all gates in force.
        Recall is of the right poses with open gates.
    """
    figures: dict[str, object] = {}
    for gate in GATES:
        threshold = getattr(config, gate.setting)
        figures[gate.setting] = {
            'in_force': threshold,
            **_precision_recall(poses, lambda pose, g=gate, t=threshold: g.accepts(pose, t)),
            'proposed': _propose(poses, gate),
        }
    figures['all'] = _precision_recall(poses, lambda pose: is_published(pose, config))
    return figures


def _precision_recall(
    poses: Sequence[GatedPose], accepts: Callable[[GatedPose], bool]
) -> dict[str, float | None]:
    accepted = [pose.is_right for pose in poses if accepts(pose)]
    num_right = sum(pose.is_right for pose in poses)
    return {
        'accepted': len(accepted),
        'precision': sum(accepted) / len(accepted) if accepted else None,
        'recall': sum(accepted) / num_right if num_right else None,
    }


def _propose(poses: Sequence[GatedPose], gate: Gate) -> dict[str, float | None] | None:
    # Loosest first: the first one that is precise has most recall.
    numbers = {float(getattr(pose, gate.value)) for pose in poses}
    loosest = sorted(numbers, reverse=not gate.is_lower_bound)
    for place, threshold in enumerate(loosest):
        found = _precision_recall(poses, lambda pose, t=threshold: gate.accepts(pose, t))
        if found['precision'] >= _WANTED_PRECISION:
            # Half way to the next worse pose: as far from one as from the other.
            next_worse = loosest[max(place - 1, 0)]
            return {'threshold': (threshold + next_worse) / 2, **found}
    return None


def _make_tables(report: Mapping[str, object]) -> list[Table]:
    consistency = Table(
        'data set',
        'poses',
        'position / dof',
        'pose / dof',
        'honest',
        'within 95 %',
        title='Squared error over covariance of published poses',
    )
    for name, found in report['consistency'].items():
        low, high = found['pose']['honest_interval']
        consistency.add_row(
            name,
            str(found['poses']),
            _number(found['position']['mean_per_dof']),
            _number(found['pose']['mean_per_dof']),
            f'{low:.2f} to {high:.2f}',
            _percent(found['pose']['within_95_percent']),
        )
    gates = Table(
        'gate',
        'in force',
        'precision',
        'recall',
        f'for {_WANTED_PRECISION:.0%}',
        'recall',
        title='Gates, each alone',
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

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json_values(report), indent=1, allow_nan=False)
    write_file(folder / 'report.json', text.encode() + b'\n')
    published = {
        name: [p for p in found if is_published(p, config) and not math.isnan(p.nees_pose)]
        for name, found in by_set.items()
    }
    plot_nees(folder / 'nees.png', published)
    plot_gates(folder / 'gates.png', [p for found in by_set.values() for p in found], config)
