"""Whether covariances are honest, and what each gate costs and is worth.

With an honest covariance C of the error e, e^T C^-1 e follows the chi-square distribution
(Bar-Shalom et al., Estimation with Applications to Tracking and Navigation, sec. 5.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math

from coam_ros.evaluation.metrics.localization import evaluate_query, is_within
from coam_ros.localization import LocalizationConfig, RelocalizationResult
from coam_ros.localization.gates import largest_stds
import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

DOF_POSITION, DOF_POSE = 3, 6
# A gate is proposed where so many of the poses that it accepts are right.
WANTED_PRECISION = 0.99
_LEVEL = 0.95


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
    Gate('min_inliers', 'num_inlier_blocks', True),
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
        num_inlier_blocks: as in the result of localization.
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
    num_inlier_blocks: int
    inlier_ratio: float
    coverage: float
    position_std_m: float
    rotation_std_deg: float


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
        errors, squared_errors = outcome.errors, outcome.squared_errors
    return GatedPose(
        name,
        is_within(errors, right),
        *errors,
        *squared_errors,
        result.num_inlier_blocks,
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
            'honest_interval': [float(bound) / total for bound in chi2.interval(_LEVEL, total)],
            'within_95_percent': float(np.mean(np.multiply(dof, values) <= chi2.ppf(_LEVEL, dof)))
            if values
            else None,
        }
    return figures


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
    is_right = np.array([pose.is_right for pose in poses], dtype=bool)
    numbers = np.array([getattr(pose, gate.value) for pose in poses], dtype=np.float64)
    sign = 1.0 if gate.is_lower_bound else -1.0
    # Worst first: each accepts what stands at its first place and behind.
    order = np.argsort(sign * numbers)
    thresholds, places = np.unique(sign * numbers[order], return_index=True)
    num_right = is_right[order][::-1].cumsum()[::-1][places]
    is_precise = num_right / (len(poses) - places) >= WANTED_PRECISION
    if not is_precise.any():
        return None
    # The loosest one that is precise has most recall.
    best = int(is_precise.argmax())
    threshold = sign * float(thresholds[best])
    # Half way to the next worse pose: as far from one as from the other.
    next_worse = sign * float(thresholds[max(best - 1, 0)])
    found = _precision_recall(poses, lambda pose: gate.accepts(pose, threshold))
    return {'threshold': (threshold + next_worse) / 2, **found}
