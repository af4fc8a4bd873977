"""What each benchmark of image pairs makes of the matches, with one estimator for all matchers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coam_ros.evaluation.benchmarks.estimators import (
    Estimator,
    MAX_EPIPOLAR_ERROR_PX,
    MAX_TRANSFER_ERROR_PX,
)
from coam_ros.evaluation.benchmarks.matching import MatchedPair
from coam_ros.evaluation.data.sweep import SWEEPS, SweptPair
from coam_ros.evaluation.metrics.image_pairs import (
    corner_error_px,
    error_auc,
    precision_recall,
    relative_pose_error_deg,
    share_within,
)
from coam_ros.evaluation.metrics.statistics import Outcome, Summarise
from coam_ros.matching import Correspondences
import numpy as np
from numpy.typing import ArrayLike, NDArray

POSE_AUC_DEG = (5, 10, 20)
CORNER_AUC_PX = (1, 3, 5, 10)
MATCHING_PX = tuple(range(1, 11))
# The seed alone moves the AUC@10 of SIFT on 150 pairs by 3 points: all of these count.
_SEEDS = (0, 1, 2)
# A match is right within this, for precision and recall and in pictures.
RIGHT_PX = 3.0
# A homography is a success within this mean corner error.
SUCCESS_PX = 5.0
RECALLS = tuple(np.round(np.arange(0.05, 1.001, 0.05), 2).tolist())
# Sequences of HPatches say in their name what changes.
_SPLITS = {'i_': 'illumination', 'v_': 'viewpoint'}


@dataclass(frozen=True)
class PairBenchmark:
    """One kind of benchmark of image pairs.

    Attributes:
        judge: what is kept of a matched pair; among it `error`, by which pairs are ranked.
        summarise: figures of all pairs, by name; takes outcomes as they are and as read from
            JSON, where null stands for a number that is not finite.
        error: what `error` is, with its unit.
        protocol: what is measured, and how, in words.
    """

    judge: Callable[[MatchedPair, Estimator], dict[str, object]]
    summarise: Summarise
    error: str
    protocol: str


def _judge_pose(matched: MatchedPair, estimator: Estimator) -> dict[str, object]:
    pair, found = matched.pair, matched.found
    errors_deg = [
        float('inf') if estimated is None else relative_pose_error_deg(estimated, pair.T_1_0)
        for estimated in (estimator.relative_pose(found, pair, seed) for seed in _SEEDS)
    ]
    precision = share_within(pair.errors_px(found), [MAX_EPIPOLAR_ERROR_PX])[0]
    return {
        'error': float(np.median(errors_deg)),
        'errors_deg': errors_deg,
        'epipolar_precision': precision,
    }


def _summarise_poses(outcomes: Sequence[Outcome]) -> dict[str, object]:
    areas = error_auc(_all_errors(outcomes, 'errors_deg'), POSE_AUC_DEG)
    return {
        **{f'auc_{t}deg': area for t, area in zip(POSE_AUC_DEG, areas, strict=True)},
        'epipolar_precision': float(np.mean([o['epipolar_precision'] for o in outcomes])),
    }


def _judge_homography(matched: MatchedPair, estimator: Estimator) -> dict[str, object]:
    pair, found = matched.pair, matched.found
    height, width = matched.images[0].shape[:2]
    errors_px = [
        float('inf')
        if estimated is None
        else corner_error_px(estimated, pair.homography, (width, height))
        for estimated in (estimator.homography(found, seed) for seed in _SEEDS)
    ]
    return {
        'error': float(np.median(errors_px)),
        'corner_errors_px': errors_px,
        'accuracy': share_within(pair.errors_px(found), MATCHING_PX),
    }


def _summarise_homographies(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Give the figures of all pairs, and of the parts that the names of HPatches tell."""
    summary = _homography_figures(outcomes)
    for prefix, change in _SPLITS.items():
        part = [outcome for outcome in outcomes if outcome['name'].startswith(prefix)]
        if part:
            figures = _homography_figures(part)
            summary |= {f'{name}_{change}': value for name, value in figures.items()}
    return summary


def _homography_figures(outcomes: Sequence[Outcome]) -> dict[str, object]:
    accuracies = np.mean([outcome['accuracy'] for outcome in outcomes], axis=0).tolist()
    areas = error_auc(_all_errors(outcomes, 'corner_errors_px'), CORNER_AUC_PX)
    return {
        **{f'mma_{t}px': share for t, share in zip(MATCHING_PX, accuracies, strict=True)},
        **{f'auc_{t}px': area for t, area in zip(CORNER_AUC_PX, areas, strict=True)},
    }


def _judge_swept(matched: MatchedPair, estimator: Estimator) -> dict[str, object]:
    pair = matched.pair
    assert isinstance(pair, SweptPair)
    outcome = _judge_homography(matched, estimator)
    return {'sweep': pair.sweep, 'level': pair.level, **outcome}


def _summarise_sweeps(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Give the mean of each sweep, its levels alike, and the share of successes at each level."""
    by_level: dict[tuple, list[Outcome]] = {}
    for outcome in outcomes:
        by_level.setdefault((outcome['sweep'], outcome['level']), []).append(outcome)
    successes = {
        place: float((_all_errors(part, 'corner_errors_px') <= SUCCESS_PX).mean())
        for place, part in by_level.items()
    }
    means = {
        f'success_{sweep}': float(np.mean([successes[sweep, level] for level in change.levels]))
        for sweep, change in SWEEPS.items()
        if all((sweep, level) in successes for level in change.levels)
    }
    return {
        **means,
        **{f'success at {sweep} {level:g}': x for (sweep, level), x in successes.items()},
    }


def _all_errors(outcomes: Sequence[Outcome], name: str) -> NDArray[np.float64]:
    return as_errors([outcome[name] for outcome in outcomes]).ravel()


def as_errors(values: ArrayLike) -> NDArray[np.float64]:
    """Take errors as they are or from JSON, where null stands for what failed: inf."""
    return np.nan_to_num(np.asarray(values, dtype=np.float64), nan=np.inf, posinf=np.inf)


def _rankings(found: Correspondences) -> dict[str, NDArray[np.float32]]:
    """Give the numbers (N,) by which the matches of a pair can be ranked, each by its name."""
    named = {'score': found.scores}
    if found.similarities is not None and found.distinctiveness is not None:
        named['similarity'] = found.similarities
        named['similarity x distinctiveness'] = found.similarities * found.distinctiveness
    return named


def _judge_ranking(matched: MatchedPair, estimator: Estimator) -> dict[str, object]:
    is_right = matched.pair.errors_px(matched.found) <= RIGHT_PX
    return {
        'error': 1 - float(is_right.mean()) if len(is_right) else 1.0,
        'is_right': is_right.tolist(),
        'rankings': {name: values.tolist() for name, values in _rankings(matched.found).items()},
    }


def _summarise_rankings(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Rank the matches of all pairs together."""
    is_right = np.concatenate([outcome['is_right'] for outcome in outcomes]).astype(bool)
    summary: dict[str, object] = {'precision': float(is_right.mean()) if len(is_right) else 0.0}
    curves = {}
    # A pair that failed has no numbers to rank by.
    names = dict.fromkeys(name for outcome in outcomes for name in outcome['rankings'])
    for name in names:
        scores = np.concatenate([outcome['rankings'].get(name, []) for outcome in outcomes])
        precision, recall = precision_recall(is_right, scores)
        steps = np.diff(recall, prepend=0.0)
        summary[f'average_precision_by_{name}'] = float(precision @ steps)
        # The first place at which so many are found.
        places = np.searchsorted(recall, np.array(RECALLS) - 1e-9)
        curves[name] = precision[places].tolist() if len(precision) else [0.0] * len(RECALLS)
    return {**summary, 'recall': list(RECALLS), 'precision_by_ranking': curves}


_RULES = (
    'Images at an area of 640 x 480 px for all matchers; thresholds in pixels of the images as '
    'matched. One estimator for all, its name in the settings; three seeds of which all results '
    'count.'
)
PAIR_BENCHMARKS = {
    'pose': PairBenchmark(
        _judge_pose,
        _summarise_poses,
        'pose error [deg]',
        'Relative pose of known cameras: AUC of the larger of the errors of rotation and '
        f'translation direction; epipolar threshold {MAX_EPIPOLAR_ERROR_PX} px. '
        f'epipolar_precision: share of matches within it of the true lines, mean of '
        f'pairs. {_RULES}',
    ),
    'homography': PairBenchmark(
        _judge_homography,
        _summarise_homographies,
        'mean corner error [px]',
        'MMA: share of all returned matches within a distance of the truth, mean of pairs. AUC '
        f'of the mean corner error; transfer threshold {MAX_TRANSFER_ERROR_PX} px. Sequences i_* '
        f'and v_*, where there are such, also apart. {_RULES}',
    ),
    'sweep': PairBenchmark(
        _judge_swept,
        _summarise_sweeps,
        'mean corner error [px]',
        'Photos and what is made of them by one change at a time: '
        + '; '.join(f'{name} [{change.unit}]' for name, change in SWEEPS.items())
        + f'. Success: mean corner error of the homography at most {SUCCESS_PX:g} px; transfer '
        f'threshold {MAX_TRANSFER_ERROR_PX} px. success_X: mean of the levels of X. {_RULES}',
    ),
    'ranking': PairBenchmark(
        _judge_ranking,
        _summarise_rankings,
        'share of wrong matches',
        'Precision against recall of the matches of all pairs together, best first; right = '
        f'within {RIGHT_PX} px of the homography or of the epipolar lines, recall is of the right '
        'ones among all returned. Images at an area of 640 x 480 px for all matchers.',
    ),
}
