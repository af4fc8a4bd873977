"""What the nodes answered to every image of the live camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coam_ros.localization import RelocalizationResult


@dataclass(frozen=True, eq=False)
class Answer:
    """The status of one image, with the pose and the matches of the same stamp, or a pose alone.

    Attributes:
        state: of the node after it, in lower case.
        reason: why there is no pose, in lower case; 'none' exactly when the status says localized,
            or is missing.
        message: the reason in words.
        latency_s: from the stamp of the image to the publication of its status; to the arrival of
            the pose where a status is missing.
        result: evidence of the status; T_map_camera and covariance of the pose message, None when
            no pose was published.
    """

    state: str
    reason: str
    message: str
    latency_s: float
    result: RelocalizationResult


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a scenario through the nodes.

    Attributes:
        sent_s: when each live frame was sent, after the first [s].
        answers: for each live frame; None when the node never answered.
        startup_s: from the start of the nodes to the first pose; None when none came before the
            play began.
        engine_id: model in use.
        num_keyframes: of the map in the matcher.
        num_dropped_by_matcher: images that it received and dropped because a newer one came; all
            others without an answer were lost on the way.
        matcher_memory_bytes: largest resident memory of the matcher's process, or None.
    """

    sent_s: Sequence[float]
    answers: Sequence[Answer | None]
    startup_s: float | None
    engine_id: str
    num_keyframes: int
    num_dropped_by_matcher: int
    matcher_memory_bytes: int | None
