"""Plots of a run, as PNG files in memory."""

from __future__ import annotations

import io
import itertools

from coam_ros.demo.recording import Recording
from coam_ros.demo.scenario import Scenario
from coam_ros.demo.scoring import is_right, RIGHT_DEG, RIGHT_M, Score
from coam_ros.geometry.transforms import main_axes
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Polygon
import numpy as np
from numpy.typing import NDArray

_BLUE, _ORANGE, _GREEN, _GREY, _RED = '#1f6fb4', '#e07b1a', '#2f9e44', '#9a9a9a', '#c8321e'
# Ellipses of a centimetre cannot be seen in a room of metres: they are enlarged, by the largest
# of these numbers that leaves the typical one below this share of the picture.
_ELLIPSE_SCALES = (1, 2, 5, 10, 20, 50)
_MAX_ELLIPSE = 0.02
_ARROW_M = 0.18
# Errors are drawn from here on.
_SMALLEST_CM, _SMALLEST_DEG = 0.05, 0.01


def plot_top_view(scenario: Scenario, recording: Recording, score: Score) -> bytes:
    """Draw both paths, the poses and their covariance ellipses from above."""
    keyframes = np.array([frame.T_map_camera for frame in scenario.map_frames])
    up_is_z = bool(scenario.outlines_map)
    plane = np.eye(3)[:2] if up_is_z else main_axes(keyframes[:, :3, 3])[:2]
    at, towards = keyframes[:, :3, 3] @ plane.T, keyframes[:, :3, 2] @ plane.T
    extent_m = np.ptp(np.concatenate([*scenario.outlines_map, at]), axis=0).max()

    figure = Figure(figsize=(9, 5.8), layout='constrained')
    axes = figure.add_subplot()
    for outline in scenario.outlines_map:
        axes.add_patch(Polygon(outline, fill=False, ec='#444444', lw=1.2))
    axes.quiver(
        *at.T,
        *(_ARROW_M * towards).T,
        color=_GREY,
        angles='xy',
        scale_units='xy',
        scale=1,
        width=0.003,
        label='keyframes of the map',
    )
    _draw_live_path(axes, scenario, plane)
    scale = _draw_poses(axes, recording, score, plane, extent_m)
    axes.set_aspect('equal', adjustable='box')
    axes.autoscale_view()
    axes.set(
        xlabel='x [m]' if up_is_z else '[m]',
        ylabel='y [m]' if up_is_z else '[m]',
        title='Ellipses: two standard deviations'
        + (f', {scale} times enlarged' if scale > 1 else ''),
    )
    axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), fontsize=8)
    axes.grid(alpha=0.2)
    return _png(figure)


def _draw_live_path(axes: Axes, scenario: Scenario, plane: NDArray[np.float64]) -> None:
    """Draw where the camera truly was; unmapped places, which have no pose, leave a gap."""
    nowhere = np.full((4, 4), np.nan)
    true = (
        np.array([f.T_map_camera if f.is_mapped else nowhere for f in scenario.live_frames])[
            :, :3, 3
        ]
        @ plane.T
    )
    # A new line after every jump, not one through the room.
    breaks = [0, *scenario.kidnappings, len(true)]
    for number, (start, end) in enumerate(itertools.pairwise(breaks)):
        label = None if number else 'true live path'
        axes.plot(*true[start:end].T, '-', color=_ORANGE, lw=1, label=label)
    for number, index in enumerate(scenario.kidnappings, start=1):
        axes.plot(*true[index - 1 : index + 1].T, '--', color=_RED, lw=0.8)
        axes.plot(*true[index], '*', color=_RED, ms=9)
        axes.annotate(
            f'kidnapping {number}',
            true[index],
            fontsize=8,
            color=_RED,
            xytext=(6, 6),
            textcoords='offset points',
        )


def _draw_poses(
    axes: Axes, recording: Recording, score: Score, plane: NDArray[np.float64], extent_m: float
) -> int:
    """Draw the poses that were published; return how much their ellipses are enlarged."""
    pairs = zip(score.outcomes, recording.answers, strict=True)
    known = [(o, a.result) for o, a in pairs if o is not None and o.is_localized]
    positions = np.array([o.T_map_camera[:3, 3] for o, _ in known]).reshape(-1, 3) @ plane.T
    covariances = [plane @ result.covariance[:3, :3] @ plane.T for _, result in known]
    scale = _ellipse_scale(covariances, extent_m)
    _add_ellipses(axes, positions, covariances, scale)
    right = np.array([is_right(o) for o, _ in known], bool)
    axes.plot(*positions[right].T, '.', color=_GREEN, ms=5, label='poses within 5 cm, 2 deg')
    axes.plot(*positions[~right].T, 'x', color=_RED, ms=6, label='poses beyond')
    missed = [o for o in score.outcomes if o is not None and not o.is_localized]
    if missed:
        at = np.array([o.T_map_camera_true[:3, 3] for o in missed]) @ plane.T
        axes.plot(*at.T, 'o', mfc='none', color=_BLUE, ms=5, label='answered without a pose')
    return scale


def _ellipse_scale(covariances: list[NDArray[np.float64]], extent_m: float) -> int:
    if not covariances:
        return 1
    typical_m = np.median([2 * np.linalg.eigvalsh(c)[-1] ** 0.5 for c in covariances])
    fitting = [s for s in _ELLIPSE_SCALES if s * typical_m <= _MAX_ELLIPSE * extent_m]
    return max(fitting, default=1)


def _add_ellipses(
    axes: Axes,
    positions: NDArray[np.float64],
    covariances: list[NDArray[np.float64]],
    scale: float,
) -> None:
    """Draw the two-sigma ellipses of positions, enlarged."""
    for position, covariance in zip(positions, covariances, strict=True):
        values, vectors = np.linalg.eigh(covariance)
        width, height = 2 * 2 * scale * np.sqrt(np.maximum(values[::-1], 0))
        angle_deg = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        axes.add_patch(
            Ellipse(position, width, height, angle=angle_deg, fill=False, ec=_BLUE, lw=0.4)
        )


def plot_errors(scenario: Scenario, recording: Recording, score: Score) -> bytes:
    """Draw the errors over time, with kidnappings and the unmapped stretch."""
    figure = Figure(figsize=(11, 6), layout='constrained')
    rows = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 1.2))
    sent_s = np.asarray(recording.sent_s)
    known = [(sent_s[i], o) for i, o in enumerate(score.outcomes) if o and o.is_localized]
    times_s = np.array([time_s for time_s, _ in known])
    errors_cm = np.array([100 * o.translation_error_m for _, o in known])
    errors_deg = np.array([o.rotation_error_deg for _, o in known])
    for axes, name, errors, limit, smallest in (
        (rows[0], 'position error [cm]', errors_cm, 100 * RIGHT_M, _SMALLEST_CM),
        (rows[1], 'rotation error [deg]', errors_deg, RIGHT_DEG, _SMALLEST_DEG),
    ):
        axes.semilogy(times_s, np.maximum(errors, smallest), '.', color=_GREEN)
        axes.axhline(limit, color=_ORANGE, lw=1, ls='--')
        axes.set(ylabel=name, ylim=(smallest, max(4 * limit, 1.5 * errors.max(initial=0))))
        axes.grid(alpha=0.3)
    _plot_answers(rows[2], sent_s, recording, scenario)
    for axes in rows:
        _mark_events(axes, sent_s, scenario)
    for index in scenario.kidnappings:
        rows[0].annotate(
            'kidnapped',
            (sent_s[index], 1),
            xycoords=('data', 'axes fraction'),
            fontsize=8,
            color=_RED,
            xytext=(3, -10),
            textcoords='offset points',
        )
    rows[2].set_xlabel('time [s]')
    return _png(figure)


def _plot_answers(
    axes: Axes, sent_s: NDArray[np.float64], recording: Recording, scenario: Scenario
) -> None:
    """One tick an image: not answered, answered without a pose, answered with one."""
    for index, answer in enumerate(recording.answers):
        if answer is None:
            colour, height = _GREY, 0.3
        elif answer.result.is_localized:
            colour, height = (_GREEN if scenario.live_frames[index].is_mapped else _RED), 1.0
        else:
            colour, height = _BLUE, 0.6
        axes.plot([sent_s[index]] * 2, [0, height], color=colour, lw=1)
    axes.set(yticks=(0.3, 0.6, 1.0), yticklabels=('no answer', 'no pose', 'pose'), ylim=(0, 1.1))


def _mark_events(axes: Axes, sent_s: NDArray[np.float64], scenario: Scenario) -> None:
    for index in scenario.kidnappings:
        axes.axvline(sent_s[index], color=_RED, lw=1)
    unmapped = np.array([not frame.is_mapped for frame in scenario.live_frames])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], unmapped, [False]]).astype(int)))
    for start, end in edges.reshape(-1, 2):
        axes.axvspan(sent_s[start], sent_s[min(end, len(sent_s) - 1)], color=_BLUE, alpha=0.12)


def plot_recall(score: Score) -> bytes:
    """Draw the share of queries below each error."""
    figure = Figure(figsize=(5.5, 3.6), layout='constrained')
    axes = figure.add_subplot()
    queries = [o for o in score.outcomes if o is not None]
    # One axis for both: an error of 5 cm counts as much as one of 2 deg.
    ratios = np.array(
        [max(o.translation_error_m / RIGHT_M, o.rotation_error_deg / RIGHT_DEG) for o in queries]
    )
    known = np.sort(ratios[np.isfinite(ratios)])
    share = np.arange(1, len(known) + 1) / max(len(queries), 1)
    axes.step(np.append(0, known), np.append(0, share), where='post', color=_GREEN)
    axes.axvline(1.0, color=_ORANGE, ls='--', lw=1)
    axes.set(
        xlim=(0, 3),
        ylim=(0, 1.02),
        ylabel='share of queries',
        xlabel='error in units of 5 cm or 2 deg, whichever is worse',
    )
    axes.grid(alpha=0.3)
    return _png(figure)


def plot_latency(recording: Recording) -> bytes:
    """Draw the time of each stage as boxes from the 5th to the 95th percentile."""
    times_ms: dict[str, list[float]] = {}
    for answer in recording.answers:
        if answer is not None:
            for stage, duration_s in answer.result.stage_durations_s.items():
                times_ms.setdefault(stage, []).append(1000 * duration_s)
            times_ms.setdefault('end to end', []).append(1000 * answer.latency_s)
    figure = Figure(figsize=(5.5, 3.6), layout='constrained')
    axes = figure.add_subplot()
    if times_ms:
        places = np.arange(len(times_ms))
        # Upright: what lays boxes down has one name in matplotlib 3.6, another from 3.11 on.
        axes.boxplot(list(times_ms.values()), positions=places, whis=(5, 95), showfliers=False)
        axes.set_xticks(places, list(times_ms))
    axes.set_ylabel('time [ms]')
    axes.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    # Its own canvas: no pyplot, hence no global state and no display.
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, dpi=110)
    return buffer.getvalue()
