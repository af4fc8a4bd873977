"""Plots of localization: where the poses are, and how large the errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coam_ros.evaluation.metrics.localization import QueryOutcome
from coam_ros.geometry.transforms import main_axes
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import ArrayLike, NDArray

# Errors beyond this are drawn on the border of the plots.
_MAX_ERROR_CM, _MAX_ERROR_DEG = 30.0, 6.0
_BLUE, _ORANGE, _GREY, _RED = '#1f6fb4', '#e07b1a', '#9a9a9a', '#c8321e'


def plot_top_view(
    path: Path, keyframe_positions_map: ArrayLike, outcomes: Sequence[QueryOutcome]
) -> None:
    """Draw the keyframes, the true and the estimated positions from above.

    That is on the plane in which they spread most: which way is up is not known of every map.

    Args:
        path: of the picture.
        keyframe_positions_map: (N, 3) [m].
        outcomes: of the queries.
    """
    keyframes = np.asarray(keyframe_positions_map, dtype=np.float64).reshape(-1, 3)
    true = _positions(outcomes, 'T_map_camera_true')
    estimated = _positions(outcomes, 'T_map_camera')
    plane = main_axes(np.vstack([keyframes, true]))[:2]

    figure = Figure(figsize=(7, 6), layout='constrained')
    axes = figure.add_subplot()
    axes.plot(*(keyframes @ plane.T).T, '.', color=_GREY, label='keyframes')
    axes.plot(*(true @ plane.T).T, '-', color=_ORANGE, lw=1, label='true path')
    axes.plot(*(estimated @ plane.T).T, '+', color=_BLUE, label='localized')
    failed = np.array([not outcome.is_localized for outcome in outcomes], dtype=bool)
    if failed.any():
        axes.plot(*(true[failed] @ plane.T).T, 'x', color=_RED, label='not localized')
    axes.set_aspect('equal', adjustable='datalim')
    axes.set(xlabel='m', ylabel='m', title='Keyframes and poses from above')
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_errors(path: Path, outcomes: Sequence[QueryOutcome]) -> None:
    """Draw the errors of all queries in order, and the share of queries below each error."""
    figure = Figure(figsize=(10, 6), layout='constrained')
    grid = figure.subplots(2, 2)
    for row, (unit, limit, errors) in enumerate(
        [
            ('cm', _MAX_ERROR_CM, [100 * outcome.translation_error_m for outcome in outcomes]),
            ('deg', _MAX_ERROR_DEG, [outcome.rotation_error_deg for outcome in outcomes]),
        ]
    ):
        _plot_in_order(grid[row, 0], np.array(errors, dtype=np.float64), limit, unit)
        _plot_share(grid[row, 1], np.array(errors, dtype=np.float64), limit, unit)
    _save(figure, path)


def _positions(outcomes: Sequence[QueryOutcome], name: str) -> NDArray[np.float64]:
    transforms = [getattr(outcome, name) for outcome in outcomes]
    return np.array([T[:3, 3] for T in transforms if T is not None]).reshape(-1, 3)


def _plot_in_order(axes: Axes, errors: NDArray[np.float64], limit: float, unit: str) -> None:
    number = np.arange(len(errors))
    is_known = np.isfinite(errors)
    axes.plot(number[is_known], np.minimum(errors[is_known], limit), '.', color=_BLUE)
    axes.plot(number[~is_known], np.full((~is_known).sum(), limit), 'x', color=_RED)
    axes.set(xlabel='query', ylabel=f'error [{unit}]', ylim=(0, limit * 1.05))
    axes.grid(alpha=0.3)


def _plot_share(axes: Axes, errors: NDArray[np.float64], limit: float, unit: str) -> None:
    known = np.sort(errors[np.isfinite(errors)])
    share = np.arange(1, len(known) + 1) / max(len(errors), 1)
    axes.step(np.append(0, known), np.append(0, share), where='post', color=_BLUE)
    axes.set(xlabel=f'error [{unit}]', ylabel='share of queries', xlim=(0, limit), ylim=(0, 1.02))
    axes.grid(alpha=0.3)


def _save(figure: Figure, path: Path) -> None:
    # Its own canvas: no pyplot, hence no global state and no display.
    FigureCanvasAgg(figure).print_figure(str(path), dpi=110)
