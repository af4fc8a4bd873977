"""From the results of single images to the state of the robot and to what is published."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from coam_ros.geometry.transforms import pose_error
from coam_ros.localization.config import TrackerConfig
from coam_ros.localization.result import RelocalizationResult
import numpy as np
from numpy.typing import NDArray

# Two poses of a camera at rest may differ by this much.
_REST_DISTANCE_M = 0.25
_REST_ANGLE_DEG = 5.0
# An image older than the one before it by less than this came late (another way through the
# network, a clock that is set right); by more, time has begun anew.
_LATE_S = 1.0


class LocalizationState(Enum):
    """What is known about where the camera is."""

    SEARCHING = 'searching'
    LOCALIZED = 'localized'
    LOST = 'lost'


@dataclass(frozen=True)
class TrackerUpdate:
    """What an image's result means.

    Attributes:
        state: after it.
        is_published: whether its pose is to be published.
    """

    state: LocalizationState
    is_published: bool


@dataclass(frozen=True, eq=False)
class _Fix:
    T_map_camera: NDArray[np.float64]
    stamp_s: float


class LocalizationTracker:
    """Decides which poses are published, and names the state.

    The rule. Only a localized result can be published. It is published at once when the camera
    can have moved there from the last published pose (at no more than `max_speed_m_s` and
    `max_turn_rate_deg_s`, plus 0.25 m and 5 deg), or when inliers lie in at least
    `confirmation_inliers` blocks of the image. Any other result, a jump on weak evidence, waits:
    the next localized result confirms it, and is published, when the camera can have moved there
    from the waiting pose. The waiting pose itself is never published, its image has become old.
    Poses older than `lost_after_s` count for neither, but for that of the very image before
    (images may come at any rate), unless `lose` was called after it.

    States. SEARCHING until the first publication; LOCALIZED from each publication on until
    `lost_after_s` pass without another, by the stamps of the images or, where none come any
    more, by a call of `lose`; then LOST. Time that jumps backwards by more than a
    second (a bag played again, a simulator reset) forgets everything: SEARCHING.

    Attributes:
        config: may be exchanged for another between two updates.
        state: after the last update.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        """Start with nothing known; None takes the default config."""
        self.config = config or TrackerConfig()
        self.reset()

    def reset(self) -> None:
        """Forget everything, as at the start."""
        self.state = LocalizationState.SEARCHING
        self._last_stamp_s = -np.inf
        self._published: _Fix | None = None
        self._waiting: _Fix | None = None

    def lose(self) -> None:
        """Be LOST instead of LOCALIZED: for who sees that no images come whose stamps say so.

        The last published pose is forgotten: a camera may have been carried anywhere meanwhile.
        """
        if self.state is LocalizationState.LOCALIZED:
            self.state, self._published = LocalizationState.LOST, None

    def update(self, result: RelocalizationResult, stamp_s: float) -> TrackerUpdate:
        """Take in the result of the next image.

        Args:
            result: of the image.
            stamp_s: when the image was taken [s].

        Returns:
            The state, and whether the result's pose is to be published.
        """
        if stamp_s < self._last_stamp_s - _LATE_S:
            self.reset()
        oldest_s = stamp_s - self.config.lost_after_s
        # The image before this one counts in any case.
        oldest_counting_s = min(oldest_s, self._last_stamp_s)
        self._published = _unless_before(oldest_counting_s, self._published)
        self._waiting = _unless_before(oldest_counting_s, self._waiting)
        self._last_stamp_s = max(stamp_s, self._last_stamp_s)
        is_published = False
        if result.T_map_camera is not None:
            fix = _Fix(result.T_map_camera, stamp_s)
            is_published = self._accept(fix, result.num_inlier_blocks)
        if is_published:
            self.state = LocalizationState.LOCALIZED
        elif _unless_before(oldest_s, self._published) is None:
            self.lose()
        return TrackerUpdate(self.state, is_published)

    def _accept(self, fix: _Fix, num_inlier_blocks: int) -> bool:
        if (
            num_inlier_blocks >= self.config.confirmation_inliers
            or self._is_reachable(self._published, fix)
            or self._is_reachable(self._waiting, fix)
        ):
            # A late image says less about now than the one before it.
            if self._published is None or fix.stamp_s >= self._published.stamp_s:
                self._published = fix
            self._waiting = None
            return True
        self._waiting = fix
        return False

    def _is_reachable(self, start: _Fix | None, end: _Fix) -> bool:
        if start is None:
            return False
        elapsed_s = abs(end.stamp_s - start.stamp_s)
        distance_m, angle_deg = pose_error(end.T_map_camera, start.T_map_camera)
        return (
            distance_m <= _REST_DISTANCE_M + self.config.max_speed_m_s * elapsed_s
            and angle_deg <= _REST_ANGLE_DEG + self.config.max_turn_rate_deg_s * elapsed_s
        )


def _unless_before(stamp_s: float, fix: _Fix | None) -> _Fix | None:
    return None if fix is None or fix.stamp_s < stamp_s else fix
