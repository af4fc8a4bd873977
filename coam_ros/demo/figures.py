"""The figures of a run in words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any


def describe_figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give name and value of each figure.

    Args:
        summary: of a `Score`.
    """
    latency_ms = summary['latency_ms']
    stages = [
        f'{stage} {times["median"]:.0f} ({times["p95"]:.0f})'
        for stage, times in latency_ms.items()
        if times
    ]
    rows = [
        (
            'images sent, answered, dropped (for a newer one)',
            f'{summary["sent_frames"]}, {summary["sent_frames"] - summary["dropped_frames"]}, '
            f'{summary["dropped_frames"]} ({summary["dropped_by_matcher"]})',
        ),
        (
            'camera, answers',
            f'{summary["camera_hz"]:g} Hz, {_number_or_dash(summary["answers_hz"], "{:.1f} Hz")}',
        ),
        (
            'queries (answered, mapped place), localized',
            f'{summary["queries"]}, {summary["localized"]}',
        ),
        *(
            (
                f'within {distance} and {angle}',
                _number_or_dash(summary[f'recall_{distance}_{angle}'], '{:.1%}'),
            )
            for distance, angle in (('5cm', '2deg'), ('10cm', '5deg'), ('25cm', '5deg'))
        ),
        (
            'error of localized, median (largest)',
            f'{_number_or_dash(summary["median_error_of_localized_cm"], "{:.2f} cm")} '
            f'({_number_or_dash(summary["max_error_cm"], "{:.1f} cm")}), '
            f'{_number_or_dash(summary["median_error_of_localized_deg"], "{:.3f} deg")} '
            f'({_number_or_dash(summary["max_error_deg"], "{:.2f} deg")})',
        ),
        ('false poses', f'{summary["false_poses"]}'),
        (
            'images of unmapped places, with a pose',
            f'{summary["unmapped_frames"]}, {summary["false_poses_unmapped"]}',
        ),
        (
            'recovery after each kidnapping',
            ', '.join(_number_or_dash(r, '{:.1f} s') for r in summary['recovery_s']) or '-',
        ),
        (
            'error squared over covariance (NEES per degree of freedom)'
            + ('' if summary['poses_are_exact'] else ', with the errors of the recorded poses'),
            _number_or_dash(summary['nees_per_dof'], '{:.2f}'),
        ),
        ('reasons for no pose', _counts(summary['failures'])),
        ('reasons in unmapped places', _counts(summary['unmapped_reasons'])),
        (
            'start of the nodes to the first pose',
            _number_or_dash(summary['startup_s'], '{:.1f} s'),
        ),
        ('latency, median (95 %) [ms]', ', '.join(stages)),
        (
            'peak memory of the matcher',
            _number_or_dash(summary['matcher_memory_mb'], '{:.0f} MiB'),
        ),
        ('keyframes, engine', f'{summary["keyframes"]}, {summary["engine"]}'),
    ]
    return [(name, value) for name, value in rows if value != '-']


def _counts(counts: dict[str, int]) -> str:
    return ', '.join(f'{reason} {count}' for reason, count in counts.items()) or '-'


def _number_or_dash(value: float | None, form: str) -> str:
    return '-' if value is None or math.isnan(value) else form.format(value)
