"""What each benchmark of image pairs makes of the matches, with one estimator for all matchers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coam_ros.evaluation.benchmark_metrics import (
    corner_error_px,
    error_auc,
    precision_recall,
    relative_pose_error_deg,
    share_within,
)
from coam_ros.evaluation.benchmark_pairs import (
    ImagePair,
    MatchedPair,
    PlanarPair,
    PosedPair,
    read_planar_pairs,
    read_posed_pairs,
)
from coam_ros.geometry.transforms import make_transform
from coam_ros.matching import Correspondences
import numpy as np
from numpy.typing import NDArray
import poselib

Outcome = Mapping[str, object]

POSE_AUC_DEG = (5, 10, 20)
CORNER_AUC_PX = (1, 3, 5, 10)
MATCHING_PX = (1, 2, 3, 5, 10)
# Of the estimators, for all matchers alike; in pixels of the images as matched.
MAX_EPIPOLAR_ERROR_PX = 1.5
MAX_TRANSFER_ERROR_PX = 3.0
_RANSAC = {'min_iterations': 1000, 'max_iterations': 5000}
# The seed alone moves the AUC@10 of SIFT on 150 pairs by 3 points: all of these count.
_SEEDS = (0, 1, 2)
# A match is right within this, for precision and recall.
RIGHT_PX = 3.0
RECALLS = tuple(np.round(np.arange(0.05, 1.001, 0.05), 2).tolist())


@dataclass(frozen=True)
class PairBenchmark:
    """One kind of benchmark of image pairs.

    Attributes:
        read: pairs of a folder.
        judge: what is kept of a matched pair.
        summarise: figures of all pairs, by name.
        protocol: what is measured, and how, in words.
    """

    read: Callable[[Path], Sequence[ImagePair]]
    judge: Callable[[MatchedPair], dict[str, object]]
    summarise: Callable[[Sequence[Outcome]], dict[str, object]]
    protocol: str


def _judge_pose(matched: MatchedPair) -> dict[str, object]:
    pair, found = matched.pair, matched.found
    errors_deg = [
        float('inf') if estimated is None else relative_pose_error_deg(estimated, pair.T_1_0)
        for estimated in (estimate_relative_pose(found, pair, seed) for seed in _SEEDS)
    ]
    precision = share_within(pair.errors_px(found), [MAX_EPIPOLAR_ERROR_PX])[0]
    return {'errors_deg': errors_deg, 'epipolar_precision': precision}


def estimate_relative_pose(
    found: Correspondences, pair: PosedPair, seed: int
) -> NDArray[np.float64] | None:
    """Estimate T_1_0 (4, 4), of unit translation; None for fewer than 5 matches."""
    if len(found) < 5:
        return None
    cameras = [
        {'model': 'PINHOLE', 'width': -1, 'height': -1, 'params': [K[0, 0], K[1, 1], *K[:2, 2]]}
        for K in (pair.intrinsics0, pair.intrinsics1)
    ]
    pose, _ = poselib.estimate_relative_pose(
        found.points0.astype(np.float64),
        found.points1.astype(np.float64),
        *cameras,
        {**_RANSAC, 'max_epipolar_error': MAX_EPIPOLAR_ERROR_PX, 'seed': seed},
    )
    T_1_0 = make_transform(pose.R, pose.t)
    return T_1_0 if np.isfinite(T_1_0).all() else None


def _summarise_poses(outcomes: Sequence[Outcome]) -> dict[str, object]:
    errors_deg = np.concatenate([outcome['errors_deg'] for outcome in outcomes])
    areas = error_auc(errors_deg, POSE_AUC_DEG)
    return {
        **{f'auc_{t}deg': area for t, area in zip(POSE_AUC_DEG, areas, strict=True)},
        'epipolar_precision': float(np.mean([o['epipolar_precision'] for o in outcomes])),
    }


def _judge_homography(matched: MatchedPair) -> dict[str, object]:
    pair, found = matched.pair, matched.found
    errors_px = [
        float('inf')
        if estimated is None
        else corner_error_px(estimated, pair.homography, matched.size0)
        for estimated in (estimate_homography(found, seed) for seed in _SEEDS)
    ]
    return {
        'corner_errors_px': errors_px,
        'accuracy': share_within(pair.errors_px(found), MATCHING_PX),
    }


def estimate_homography(found: Correspondences, seed: int) -> NDArray[np.float64] | None:
    """Estimate (3, 3), pixels of image 0 to pixels of image 1; None for fewer than 4 matches."""
    if len(found) < 4:
        return None
    homography, _ = poselib.estimate_homography(
        found.points0.astype(np.float64),
        found.points1.astype(np.float64),
        {**_RANSAC, 'max_reproj_error': MAX_TRANSFER_ERROR_PX, 'seed': seed},
    )
    return homography if np.isfinite(homography).all() else None


def _summarise_homographies(outcomes: Sequence[Outcome]) -> dict[str, object]:
    accuracies = np.mean([outcome['accuracy'] for outcome in outcomes], axis=0).tolist()
    errors_px = np.concatenate([outcome['corner_errors_px'] for outcome in outcomes])
    areas = error_auc(errors_px, CORNER_AUC_PX)
    return {
        **{f'mma_{t}px': share for t, share in zip(MATCHING_PX, accuracies, strict=True)},
        **{f'auc_{t}px': area for t, area in zip(CORNER_AUC_PX, areas, strict=True)},
    }


def rankings(found: Correspondences) -> dict[str, NDArray[np.float32]]:
    """Give the numbers (N,) by which the matches of a pair can be ranked, each by its name."""
    named = {'score': found.scores}
    if found.similarities is not None and found.distinctiveness is not None:
        named['similarity'] = found.similarities
        named['similarity x distinctiveness'] = found.similarities * found.distinctiveness
    return named


def _judge_ranking(matched: MatchedPair) -> dict[str, object]:
    errors_px = matched.pair.errors_px(matched.found)
    scores = {name: values.tolist() for name, values in rankings(matched.found).items()}
    return {'is_right': (errors_px <= RIGHT_PX).tolist(), 'rankings': scores}


def _summarise_rankings(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Rank the matches of all pairs together."""
    is_right = np.concatenate([outcome['is_right'] for outcome in outcomes]).astype(bool)
    summary: dict[str, object] = {'precision': float(is_right.mean()) if len(is_right) else 0.0}
    curves = {}
    for name in outcomes[0]['rankings']:
        scores = np.concatenate([outcome['rankings'][name] for outcome in outcomes])
        precision, recall = precision_recall(is_right, scores)
        steps = np.diff(recall, prepend=0.0)
        summary[f'average_precision_by_{name}'] = float(precision @ steps)
        # The first place at which so many are found.
        places = np.searchsorted(recall, np.array(RECALLS) - 1e-9)
        curves[name] = precision[places].tolist() if len(precision) else [0.0] * len(RECALLS)
    return {**summary, 'recall': list(RECALLS), 'precision_by_ranking': curves}


def _read_any_pairs(directory: Path) -> Sequence[PosedPair] | Sequence[PlanarPair]:
    has_list = (directory / 'pairs.txt').is_file()
    return read_posed_pairs(directory) if has_list else read_planar_pairs(directory)


_RULES = (
    'Images at an area of 640 x 480 px for all matchers; thresholds in pixels of the images as '
    'matched. PoseLib, 1000 to 5000 iterations, three seeds of which all results count.'
)
PAIR_BENCHMARKS = {
    'pose': PairBenchmark(
        read_posed_pairs,
        _judge_pose,
        _summarise_poses,
        'Relative pose of known cameras: AUC of the larger of the errors of rotation and '
        f'translation direction; epipolar threshold {MAX_EPIPOLAR_ERROR_PX} px. '
        f'epipolar_precision: share of matches within it of the true lines, mean of '
        f'pairs. {_RULES}',
    ),
    'homography': PairBenchmark(
        read_planar_pairs,
        _judge_homography,
        _summarise_homographies,
        'MMA: share of all returned matches within a distance of the truth, mean of pairs. AUC '
        f'of the mean corner error; transfer threshold {MAX_TRANSFER_ERROR_PX} px. {_RULES}',
    ),
    'ranking': PairBenchmark(
        _read_any_pairs,
        _judge_ranking,
        _summarise_rankings,
        'Precision against recall of the matches of all pairs together, best first; right = '
        f'within {RIGHT_PX} px of the homography or of the epipolar lines, recall is of the right '
        'ones among all returned. Images at an area of 640 x 480 px for all matchers.',
    ),
}
