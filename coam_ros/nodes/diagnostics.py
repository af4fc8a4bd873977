"""What /diagnostics says about the matcher."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import threading
import time

from builtin_interfaces.msg import Time
from coam_msgs.msg import RelocalizationStatus
from coam_ros.localization import LocalizationState
from coam_ros.nodes.attempt import Attempt
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np

_WINDOW = 50
# Without an image, or an attempt, for this long, an active node says so.
_INPUT_SILENCE_S = 2.0


@dataclass(frozen=True)
class NodeFacts:
    """What the node knows besides the attempts, at the time of a report.

    Attributes:
        lifecycle: label of the lifecycle state.
        error: why the last transition failed, or ''.
        image_topic: resolved name.
        num_received: images since activation.
        num_dropped: of them, replaced by newer ones.
        engine: backend, model and the like, for people; empty while none is loaded.
        building: how far the engine is that is being built or loaded, or ''.
    """

    lifecycle: str
    error: str
    image_topic: str
    num_received: int
    num_dropped: int
    engine: dict[str, str]
    building: str = ''


class DiagnosticsCollector:
    """Counts attempts and reports, in two threads.

    Attributes:
        silence: what the last report says of images that stay away; empty where they come.
    """

    def __init__(self, node_name: str) -> None:
        """Begin with nothing counted."""
        self._name = node_name
        self._lock = threading.Lock()
        self._durations_s: dict[str, deque[float]] = {}
        self._last: Attempt | None = None
        self._last_attempt_s = time.monotonic()
        self._last_pose_s: float | None = None
        self._counts = {'localized': 0, 'not localized': 0, 'refused': 0, 'errors': 0}
        self._previous = (time.monotonic(), 0)
        self._last_image_s = time.monotonic()
        self.silence = ''

    def record(self, attempt: Attempt, latency_s: float) -> None:
        """Count an attempt.

        Args:
            attempt: that was published.
            latency_s: from the stamp of its image to its publication [s].
        """
        with self._lock:
            self._last, self._last_attempt_s = attempt, time.monotonic()
            if attempt.T_map_frame is not None:
                self._last_pose_s = time.monotonic()
                self._counts['localized'] += 1
            elif attempt.reason == RelocalizationStatus.ENGINE_ERROR:
                self._counts['errors'] += 1
            else:
                self._counts['refused' if attempt.is_refused else 'not localized'] += 1
            durations = {**attempt.result.stage_durations_s, 'image to publication': latency_s}
            for stage, duration in durations.items():
                self._durations_s.setdefault(stage, deque(maxlen=_WINDOW)).append(duration)

    def report(self, facts: NodeFacts, stamp: Time) -> DiagnosticArray:
        """Make the message for now."""
        with self._lock:
            array = DiagnosticArray(
                status=[
                    self._localization(facts),
                    self._input(facts),
                    self._latency(),
                    self._engine(facts),
                ]
            )
        array.header.stamp = stamp
        return array

    def _localization(self, facts: NodeFacts) -> DiagnosticStatus:
        values = {'lifecycle state': facts.lifecycle, **self._counts}
        if self._last_pose_s is not None:
            values['seconds since last pose'] = f'{time.monotonic() - self._last_pose_s:.1f}'
        if facts.error:
            return self._status('localization', DiagnosticStatus.ERROR, facts.error, values)
        if facts.building:
            values['progress'] = facts.building
            return self._status('localization', DiagnosticStatus.WARN, 'building', values)
        if self._last is None or facts.lifecycle != 'active':
            return self._status('localization', DiagnosticStatus.WARN, facts.lifecycle, values)
        last, silence_s = self._last, time.monotonic() - self._last_attempt_s
        values |= {
            'inliers': last.result.num_inliers,
            'places with inliers': last.result.num_inlier_blocks,
            'matches': last.result.num_matches,
            'reason': last.message,
        }
        level = DiagnosticStatus.OK
        if last.reason == RelocalizationStatus.ENGINE_ERROR:
            level = DiagnosticStatus.ERROR
        elif last.is_refused or last.state != LocalizationState.LOCALIZED:
            level = DiagnosticStatus.WARN
        message = last.state.value
        if silence_s > _INPUT_SILENCE_S:
            # The last state says nothing of now.
            level = max(level, DiagnosticStatus.WARN)
            message = f'{message} {silence_s:.0f} s ago, nothing since'
        return self._status('localization', level, message, values)

    def _input(self, facts: NodeFacts) -> DiagnosticStatus:
        now_s = time.monotonic()
        then_s, received_then = self._previous
        num_new = max(facts.num_received - received_then, 0)
        self._previous = (now_s, facts.num_received)
        if num_new or facts.lifecycle != 'active':
            self._last_image_s = now_s
        silence_s = now_s - self._last_image_s
        values = {
            'topic': facts.image_topic,
            'rate [Hz]': f'{num_new / max(now_s - then_s, 1e-3):.1f}',
            'received': facts.num_received,
            'dropped for newer ones': facts.num_dropped,
        }
        is_silent = silence_s > _INPUT_SILENCE_S
        self.silence = (
            f'no image on {facts.image_topic} for {silence_s:.0f} s' if is_silent else ''
        )
        level = DiagnosticStatus.WARN if is_silent else DiagnosticStatus.OK
        return self._status('input', level, self.silence or 'ok', values)

    def _engine(self, facts: NodeFacts) -> DiagnosticStatus:
        level, message = DiagnosticStatus.OK, 'loaded'
        if facts.building:
            level, message = DiagnosticStatus.WARN, f'building: {facts.building}'
        elif not facts.engine:
            level, message = DiagnosticStatus.WARN, 'not loaded'
        return self._status('engine and map', level, message, facts.engine)

    def _latency(self) -> DiagnosticStatus:
        values = {}
        for stage, durations in self._durations_s.items():
            median, high = np.percentile(durations, (50, 95)) * 1e3
            values[f'{stage} [ms]'] = f'median {median:.0f}, p95 {high:.0f}'
        return self._status('latency', DiagnosticStatus.OK, f'last {_WINDOW} images', values)

    def _status(
        self, task: str, level: bytes, message: str, values: dict[str, object]
    ) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level,
            name=f'{self._name}: {task}',
            message=message,
            hardware_id=self._name,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
