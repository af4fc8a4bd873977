"""How far the keyframes of a map are off, each by itself, judged by one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import chi2

# An honest disagreement goes beyond this once in a thousand.
_OUTLIER_LEVEL = 0.999
# Where the search for (m, deg) starts, which is what LocalizationConfig takes a map for, and what
# it calls nothing.
_FIRST_GUESS = (0.01, 0.2)
_NEGLIGIBLE = (1e-5, 1e-4)


@dataclass(frozen=True, eq=False)
class Disagreement:
    """The pose of a keyframe as others give it, against the one that it has in the map.

    Covariances are those of `geometry.AbsolutePose`; the sum of all three, each times its
    variance, is that of the error.

    Attributes:
        name: of the keyframe.
        error: (6,) position [m], rotation vector [rad], in the map frame.
        by_matching: (6, 6) covariance as if all keyframes were exact.
        by_position: (6, 6), what keyframes add, the one and the others, whose positions are off
            with a standard deviation of 1 m along each axis, each by itself.
        by_rotation: (6, 6), the same of 1 deg about each axis.
    """

    name: str
    error: NDArray[np.float64]
    by_matching: NDArray[np.float64]
    by_position: NDArray[np.float64]
    by_rotation: NDArray[np.float64]

    def covariance(self, position_std_m: float, rotation_std_deg: float) -> NDArray[np.float64]:
        """Give the (6, 6) covariance of the error for keyframes that are off by so much."""
        return (
            self.by_matching
            + position_std_m**2 * self.by_position
            + rotation_std_deg**2 * self.by_rotation
        )

    def squared(self, position_std_m: float, rotation_std_deg: float) -> float:
        """Give the squared error over the covariance, 6 on average where the two are right."""
        covariance = self.covariance(position_std_m, rotation_std_deg)
        return float(self.error @ np.linalg.solve(covariance, self.error))


@dataclass(frozen=True)
class KeyframeError:
    """What the disagreements of a map say about its keyframes.

    Attributes:
        position_std_m: of a keyframe's own error along each axis.
        rotation_std_deg: about each axis.
        outliers: names of the keyframes that are farther off than these two explain (once in a
            thousand by chance), the worst first; they do not count for them.
    """

    position_std_m: float
    rotation_std_deg: float
    outliers: tuple[str, ...]


def fit_keyframe_error(disagreements: Sequence[Disagreement]) -> KeyframeError:
    """Find how far keyframes are off by what makes their disagreements likeliest.

    Maximum likelihood of Gaussian errors over the two standard deviations, again without those
    that it calls outliers until there are no new ones.

    Raises:
        ValueError: no disagreements.
    """
    if not disagreements:
        raise ValueError('No keyframe was localized in the others: nothing to judge by.')
    limit = chi2.ppf(_OUTLIER_LEVEL, 6)
    kept = list(disagreements)
    while True:
        stds = _likeliest_stds(kept)
        within = [d for d in kept if d.squared(*stds) <= limit]
        if not within or len(within) == len(kept):
            break
        kept = within
    by_distance = sorted(disagreements, key=lambda d: -d.squared(*stds))
    outliers = tuple(d.name for d in by_distance if d.squared(*stds) > limit)
    return KeyframeError(*stds, outliers)


def _likeliest_stds(disagreements: Sequence[Disagreement]) -> tuple[float, float]:
    def cost(log_stds: NDArray[np.float64]) -> float:
        position_std_m, rotation_std_deg = np.exp(log_stds)
        total = 0.0
        for each in disagreements:
            _, log_volume = np.linalg.slogdet(each.covariance(position_std_m, rotation_std_deg))
            total += log_volume + each.squared(position_std_m, rotation_std_deg)
        return total

    bounds = [(math.log(low), None) for low in _NEGLIGIBLE]
    found = minimize(cost, np.log(_FIRST_GUESS), method='Nelder-Mead', bounds=bounds)
    position_std_m, rotation_std_deg = np.exp(found.x).tolist()
    return position_std_m, rotation_std_deg
