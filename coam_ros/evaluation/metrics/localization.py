"""How good poses are against ground truth: errors, recall, consistency, time.

Plain functions on records, for `coam localize` and for the demo alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from coam_ros.geometry.transforms import pose_error, rotation_vector
from coam_ros.localization import RelocalizationResult
import numpy as np
from numpy.typing import ArrayLike, NDArray

# (m, deg): of the demo, of the 7-Scenes literature, and two coarser ones.
THRESHOLDS = ((0.05, 2.0), (0.10, 5.0), (0.25, 5.0), (0.25, 10.0))


@dataclass(frozen=True, eq=False)
class QueryOutcome:
    """One query against its true pose.

    Attributes:
        name: of the query.
        T_map_camera_true: (4, 4) float64.
        T_map_camera: (4, 4) float64, None when not localized.
        failure: value of the `FailureReason`, None when localized.
        translation_error_m: NaN when not localized.
        rotation_error_deg: NaN when not localized.
        squared_errors: (2,) normalised squared errors per degree of freedom of the position and of
            the whole pose, 1 on average for an honest covariance; NaN when not localized.
        num_matches: as in the result.
        num_inliers: as in the result.
        inlier_ratio: as in the result.
        coverage: as in the result.
        reprojection_error_px: as in the result.
        keyframe_ids: as in the result.
        stage_durations_s: as in the result.
        message: the failure in words, '' when localized.
    """

    name: str
    T_map_camera_true: NDArray[np.float64]
    T_map_camera: NDArray[np.float64] | None = None
    failure: str | None = None
    translation_error_m: float = float('nan')
    rotation_error_deg: float = float('nan')
    squared_errors: tuple[float, float] = (float('nan'), float('nan'))
    num_matches: int = 0
    num_inliers: int = 0
    inlier_ratio: float = 0.0
    coverage: float = 0.0
    reprojection_error_px: float = float('nan')
    keyframe_ids: tuple[int, ...] = ()
    stage_durations_s: dict[str, float] = field(default_factory=dict)
    message: str = ''

    @property
    def is_localized(self) -> bool:
        """Whether there is a pose."""
        return self.T_map_camera is not None

    @property
    def errors(self) -> tuple[float, float]:
        """Errors (m, deg), as `is_within` takes them."""
        return self.translation_error_m, self.rotation_error_deg


def evaluate_query(
    name: str, result: RelocalizationResult, T_map_camera_true: ArrayLike
) -> QueryOutcome:
    """Compare a result with the true pose."""
    T_map_camera_true = np.asarray(T_map_camera_true, dtype=np.float64)
    errors: dict[str, object] = {}
    if result.is_localized:
        translation_m, rotation_deg = pose_error(result.T_map_camera, T_map_camera_true)
        errors = {
            'translation_error_m': translation_m,
            'rotation_error_deg': rotation_deg,
            'squared_errors': normalised_squared_errors(
                result.T_map_camera, T_map_camera_true, result.covariance
            ),
        }
    return QueryOutcome(
        name,
        T_map_camera_true,
        result.T_map_camera,
        None if result.failure is None else result.failure.value,
        num_matches=result.num_matches,
        num_inliers=result.num_inliers,
        inlier_ratio=result.inlier_ratio,
        coverage=result.coverage,
        reprojection_error_px=result.reprojection_error_px,
        keyframe_ids=result.keyframe_ids,
        stage_durations_s=result.stage_durations_s,
        message=result.message,
        **errors,
    )


def normalised_squared_errors(
    T_map_camera: ArrayLike, T_map_camera_true: ArrayLike, covariance: ArrayLike
) -> tuple[float, float]:
    """Compare the error of a pose with its covariance.

    Args:
        T_map_camera: (4, 4), estimated.
        T_map_camera_true: (4, 4).
        covariance: (6, 6), as in `geometry.AbsolutePose`.

    Returns:
        e^T C^-1 e per degree of freedom (NEES; Bar-Shalom et al., Estimation with Applications to
        Tracking and Navigation, sec. 5.4) of the position (3) and of the whole pose (6).
    """
    error = error_vector(T_map_camera, T_map_camera_true)
    covariance = np.asarray(covariance)
    position = error[:3] @ np.linalg.solve(covariance[:3, :3], error[:3])
    return float(position) / 3, float(error @ np.linalg.solve(covariance, error)) / 6


def error_vector(T_map_camera: ArrayLike, T_map_camera_true: ArrayLike) -> NDArray[np.float64]:
    """Give the (6,) error that a covariance of `geometry.AbsolutePose` is of [m, rad]."""
    T_estimated, T_true = np.asarray(T_map_camera), np.asarray(T_map_camera_true)
    return np.append(
        T_estimated[:3, 3] - T_true[:3, 3],
        rotation_vector(T_estimated[:3, :3] @ T_true[:3, :3].T),
    )


def is_within(errors: tuple[float, float], limit: tuple[float, float]) -> bool:
    """Tell whether both errors, (m, deg), are at most the limit; NaN is not."""
    return bool(np.less_equal(errors, limit).all())


def recall(is_right: Sequence[bool]) -> float:
    """Return the share of all queries that are right, as `is_within` tells; NaN for no queries."""
    return float(np.mean(is_right)) if is_right else float('nan')


def recall_key(max_translation_m: float, max_rotation_deg: float) -> str:
    """Name a recall in a report, for example 'recall_5cm_2deg'."""
    return f'recall_{max_translation_m * 100:g}cm_{max_rotation_deg:g}deg'


def summarise_latency(
    stage_durations_s: Iterable[Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """Summarise the time of each stage.

    Args:
        stage_durations_s: for each query, the time of the stages that it reached.

    Returns:
        For each stage, in order, and for their 'total': 'median' and 'p95' [ms].
    """
    times_ms: dict[str, list[float]] = {}
    totals_ms = []
    for durations in stage_durations_s:
        for stage, duration_s in durations.items():
            times_ms.setdefault(stage, []).append(1000 * duration_s)
        totals_ms.append(1000 * sum(durations.values()))
    if totals_ms:
        times_ms['total'] = totals_ms
    return {
        stage: {'median': float(np.median(times)), 'p95': float(np.percentile(times, 95))}
        for stage, times in times_ms.items()
    }


def summarise(outcomes: Sequence[QueryOutcome]) -> dict[str, object]:
    """Summarise the outcomes of all queries.

    Args:
        outcomes: in any order.

    Returns:
        JSON-ready: queries, localized, a recall for each of THRESHOLDS (of all queries), median
        and largest errors and squared errors (of the localized ones; None without any), failures
        by reason, latency_ms.
    """
    localized = [outcome for outcome in outcomes if outcome.is_localized]
    errors_cm = [100 * outcome.translation_error_m for outcome in localized]
    errors_deg = [outcome.rotation_error_deg for outcome in localized]
    recalls = {
        recall_key(*limit): recall([is_within(outcome.errors, limit) for outcome in outcomes])
        for limit in THRESHOLDS
    }
    return {
        'queries': len(outcomes),
        'localized': len(localized),
        **recalls,
        'median_error_of_localized_cm': _of(np.median, errors_cm),
        'median_error_of_localized_deg': _of(np.median, errors_deg),
        'max_error_cm': _of(np.max, errors_cm),
        'max_error_deg': _of(np.max, errors_deg),
        'nees_per_dof': _of(np.mean, [o.squared_errors[1] for o in localized]),
        'nees_position_per_dof': _of(np.mean, [o.squared_errors[0] for o in localized]),
        'failures': dict(Counter(o.failure for o in outcomes if not o.is_localized)),
        'latency_ms': summarise_latency(o.stage_durations_s for o in outcomes),
    }


def _of(statistic: object, values: list[float]) -> float | None:
    return float(statistic(values)) if values else None


def make_report(
    summary: Mapping[str, object], outcomes: Sequence[QueryOutcome]
) -> dict[str, object]:
    """Join a summary with every outcome, under 'per_query'."""
    return {**summary, 'per_query': [asdict(outcome) for outcome in outcomes]}


def order_by_error(outcomes: Sequence[QueryOutcome]) -> list[int]:
    """Order queries from best to worst: by position error, those without a pose last.

    Returns:
        Their places in `outcomes`.
    """
    errors = [
        outcome.translation_error_m if outcome.is_localized else np.inf for outcome in outcomes
    ]
    return [int(i) for i in np.argsort(errors, kind='stable')]
