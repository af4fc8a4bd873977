"""Counts what the nodes answered, against the truth and against the bars of the demo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
import itertools
import math

from coam_ros.demo.recording import Answer, Recording
from coam_ros.demo.scenario import Scenario
from coam_ros.evaluation.metrics.localization import (
    evaluate_query,
    is_within,
    QueryOutcome,
    summarise,
    summarise_latency,
)
import numpy as np

RIGHT_M, RIGHT_DEG = 0.05, 2.0
FALSE_M, FALSE_DEG = 0.25, 5.0
_MIN_RECALL = 0.95
_MAX_RECOVERY_S = 3.0
# As a recovery. Measured on two busy cores: 0.8 s at 2 answers a second, 1.8 s at 0.9.
_MAX_SILENCE_S = 3.0
_NEES_RANGE = (0.3, 3.0)


@dataclass(frozen=True)
class Bar:
    """Something that a run shall reach.

    Attributes:
        name: what is measured, with its unit.
        value: what came out, for people.
        wanted: for people.
        is_met: whether it did.
    """

    name: str
    value: str
    wanted: str
    is_met: bool


@dataclass(frozen=True, eq=False)
class Score:
    """A run against the truth.

    Attributes:
        summary: content of report.json, ready for JSON.
        bars: that the run reached or not; none where the truth itself is off by centimetres.
        outcomes: for each live frame; None for a dropped one and for one that sees nothing mapped.
    """

    summary: dict[str, object]
    bars: tuple[Bar, ...]
    outcomes: tuple[QueryOutcome | None, ...]


def score(scenario: Scenario, recording: Recording) -> Score:
    """Compare every answer with the exact pose of the image with its stamp.

    A query is an image of a mapped place that the matcher answered. Images that were sent and
    never answered are dropped, whatever they show. Images of places that are not mapped are
    counted by themselves; any pose for one of them is false.

    Args:
        scenario: that was played.
        recording: of it.
    """
    outcomes = tuple(
        _outcome(index, frame.T_map_camera, answer)
        for index, (frame, answer) in enumerate(
            zip(scenario.live_frames, recording.answers, strict=True)
        )
    )
    queries = [outcome for outcome in outcomes if outcome is not None]
    answered = [answer for answer in recording.answers if answer is not None]
    unmapped = [
        answer
        for frame, answer in zip(scenario.live_frames, recording.answers, strict=True)
        if answer is not None and not frame.is_mapped
    ]
    num_false_unmapped = sum(answer.result.is_localized for answer in unmapped)
    num_false_mapped = sum(map(is_false, queries))
    end_to_end = summarise_latency({'end_to_end': a.latency_s} for a in answered)
    summary = {
        **summarise(queries),
        'false_poses': num_false_mapped + num_false_unmapped,
        'false_poses_mapped': num_false_mapped,
        'false_poses_unmapped': num_false_unmapped,
        'unmapped_frames': len(unmapped),
        'unmapped_reasons': dict(Counter(answer.reason for answer in unmapped)),
        'sent_frames': len(recording.answers),
        'dropped_frames': len(recording.answers) - len(answered),
        'dropped_by_matcher': recording.num_dropped_by_matcher,
        'recovery_s': [_recovery_s(recording, outcomes, i) for i in scenario.kidnappings],
        'longest_without_right_pose_s': _longest_silence_s(
            scenario, recording, [is_right(outcome) for outcome in outcomes], is_mapped=True
        ),
        'longest_without_answer_unmapped_s': _longest_silence_s(
            scenario,
            recording,
            [answer is not None for answer in recording.answers],
            is_mapped=False,
        ),
        'startup_s': recording.startup_s,
        'answers_hz': _answers_hz(recording),
        'camera_hz': scenario.rate_hz,
        'keyframes': recording.num_keyframes,
        'engine': recording.engine_id,
        'matcher_memory_mb': _mebibytes(recording.matcher_memory_bytes),
        'scenario': scenario.title,
        'poses_are_exact': scenario.is_exact,
    }
    summary['latency_ms'] = {
        **summarise_latency(a.result.stage_durations_s for a in answered),
        'end_to_end': end_to_end.get('end_to_end'),
    }
    bars = _bars(summary) if scenario.is_exact else ()
    summary['bars_met'] = {bar.name: bar.is_met for bar in bars}
    return Score(summary, bars, outcomes)


def is_right(outcome: QueryOutcome | None) -> bool:
    """Whether there is a pose, within 5 cm and 2 deg."""
    return outcome is not None and is_within(outcome.errors, (RIGHT_M, RIGHT_DEG))


def is_false(outcome: QueryOutcome) -> bool:
    """Whether there is a pose, and off by more than 25 cm or 5 deg."""
    return outcome.translation_error_m > FALSE_M or outcome.rotation_error_deg > FALSE_DEG


def _outcome(
    index: int, T_map_camera: np.ndarray | None, answer: Answer | None
) -> QueryOutcome | None:
    if answer is None or T_map_camera is None:
        return None
    outcome = evaluate_query(f'frame-{index:06d}', answer.result, T_map_camera)
    # The node knows more reasons than the core.
    return replace(outcome, failure=None if outcome.is_localized else answer.reason)


def _recovery_s(
    recording: Recording, outcomes: Sequence[QueryOutcome | None], kidnapping: int
) -> float | None:
    """Time from the first image at a new place to the publication of the first right pose."""
    for sent_s, answer, outcome in list(
        zip(recording.sent_s, recording.answers, outcomes, strict=True)
    )[kidnapping:]:
        if is_right(outcome):
            return sent_s + answer.latency_s - recording.sent_s[kidnapping]
    return None


def _longest_silence_s(
    scenario: Scenario, recording: Recording, is_good: Sequence[bool], is_mapped: bool
) -> float | None:
    """Longest time of the camera in mapped, or in unmapped, places without a good image.

    Args:
        scenario: that was played.
        recording: of it.
        is_good: for each live frame.
        is_mapped: which places.

    Returns:
        Infinity where a visit to such places has no good image at all, None without a visit.
    """
    longest_s = None
    for start, end in _visits(scenario):
        if scenario.live_frames[start].is_mapped != is_mapped:
            continue
        good = [i for i in range(start, end) if is_good[i]]
        times_s = np.array([recording.sent_s[i] for i in (start, *good, end - 1)])
        silence_s = float(np.diff(times_s).max()) if good else float('inf')
        longest_s = silence_s if longest_s is None else max(longest_s, silence_s)
    return longest_s


def _visits(scenario: Scenario) -> Iterator[tuple[int, int]]:
    """Cut the drive where the camera is carried, and where mapped places begin and end."""
    frames = scenario.live_frames
    cuts = [
        i
        for i in range(1, len(frames))
        if i in scenario.kidnappings or frames[i].is_mapped != frames[i - 1].is_mapped
    ]
    return itertools.pairwise([0, *cuts, len(frames)])


def _answers_hz(recording: Recording) -> float:
    duration_s = recording.sent_s[-1] - recording.sent_s[0]
    num_answers = sum(answer is not None for answer in recording.answers)
    return num_answers / duration_s if duration_s > 0 else float('nan')


def _mebibytes(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / 2**20


def _bars(summary: dict[str, object]) -> tuple[Bar, ...]:
    recall, nees = summary['recall_5cm_2deg'], summary['nees_per_dof']
    recoveries = summary['recovery_s']
    bars = [
        Bar(
            'within 5 cm and 2 deg',
            f'{recall:.1%} of {summary["queries"]}' if summary['queries'] else 'no queries',
            f'at least {_MIN_RECALL:.0%}',
            recall >= _MIN_RECALL,
        ),
        _silence_bar(
            'longest time without such a pose while the place is mapped',
            summary['longest_without_right_pose_s'],
        ),
        Bar(
            'false poses (beyond 25 cm or 5 deg, or of an unmapped place)',
            f'{summary["false_poses"]}',
            'none',
            summary['false_poses'] == 0,
        ),
        Bar(
            'error squared over covariance, per degree of freedom',
            '-' if nees is None else f'{nees:.2f}',
            f'{_NEES_RANGE[0]} to {_NEES_RANGE[1]:g}',
            nees is not None and _NEES_RANGE[0] <= nees <= _NEES_RANGE[1],
        ),
    ]
    unmapped_s = summary['longest_without_answer_unmapped_s']
    if unmapped_s is not None:
        # Who answers nothing there has recognised nothing.
        name = 'longest time without an answer while the place is not mapped'
        bars.append(_silence_bar(name, unmapped_s))
    if recoveries:
        bars.append(
            Bar(
                'recovery from a kidnapping',
                ', '.join('never' if r is None else f'{r:.1f} s' for r in recoveries),
                f'below {_MAX_RECOVERY_S:g} s',
                all(r is not None and r < _MAX_RECOVERY_S for r in recoveries),
            )
        )
    return tuple(bars)


def _silence_bar(name: str, longest_s: float | None) -> Bar:
    is_answered = longest_s is not None and math.isfinite(longest_s)
    return Bar(
        name,
        f'{longest_s:.1f} s' if is_answered else 'never',
        f'below {_MAX_SILENCE_S:g} s',
        is_answered and longest_s < _MAX_SILENCE_S,
    )
