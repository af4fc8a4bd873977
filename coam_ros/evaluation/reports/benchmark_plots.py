"""Plots of benchmark results, a line for each matcher, and pictures of its matches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import io
import math
from typing import TYPE_CHECKING

from coam_ros.evaluation.benchmarks.image_pairs import (
    as_errors,
    CORNER_AUC_PX,
    MATCHING_PX,
    POSE_AUC_DEG,
    RIGHT_PX,
)
from coam_ros.evaluation.benchmarks.matching import MatchedPair
from coam_ros.evaluation.data.sweep import SWEEPS
from coam_ros.evaluation.reports.benchmark_report import Result
from coam_ros.matching.drawing import draw_matches
import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_POSITION_ERROR_M = 0.5
_MAX_PER_ROW = 4
# Curves of fewer points show each of them.
_MAX_MARKED = 12


@dataclass(frozen=True, eq=False)
class Curve:
    """A line of a plot.

    Attributes:
        panel: title of the plot that it belongs to.
        label: beside the name of the matcher; may be empty.
        x_label: of the axis.
        y_label: of the axis.
        x: (N,).
        y: (N,), in [0, 1].
        band: low and high (N,); None = unknown.
        scale: of the x axis, linear or log.
    """

    panel: str
    label: str
    x_label: str
    y_label: str
    x: ArrayLike
    y: ArrayLike
    band: tuple[ArrayLike, ArrayLike] | None = None
    scale: str = 'linear'


def _pose_curves(result: Result) -> Iterator[Curve]:
    errors = as_errors([pair['errors_deg'] for pair in result['per_pair']]).ravel()
    yield _below(errors, 'pose', 'error [deg]', 'share of pairs', POSE_AUC_DEG[-1])


def _homography_curves(result: Result) -> Iterator[Curve]:
    names = [f'mma_{t}px' for t in MATCHING_PX]
    yield Curve(
        'matches',
        '',
        'threshold [px]',
        'mean matching accuracy',
        MATCHING_PX,
        [result['summary'][name] for name in names],
        _band(result, names),
    )
    errors = as_errors([pair['corner_errors_px'] for pair in result['per_pair']]).ravel()
    yield _below(
        errors, 'homography', 'mean corner error [px]', 'share of pairs', CORNER_AUC_PX[-1]
    )


def _ranking_curves(result: Result) -> Iterator[Curve]:
    summary = result['summary']
    for name, precision in summary['precision_by_ranking'].items():
        yield Curve('ranking', name, 'recall', 'precision', summary['recall'], precision)


def _sweep_curves(result: Result) -> Iterator[Curve]:
    for sweep, change in SWEEPS.items():
        names = [f'success at {sweep} {level:g}' for level in change.levels]
        yield Curve(
            sweep,
            '',
            f'{sweep} [{change.unit}]',
            'success',
            change.levels,
            [result['summary'][name] for name in names],
            _band(result, names),
            'log' if sweep == 'gamma' else 'linear',
        )


def _localization_curves(result: Result) -> Iterator[Curve]:
    errors = as_errors([query['translation_error_m'] for query in result['per_pair']])
    yield _below(
        errors, 'position', 'position error [m]', 'share of queries', _MAX_POSITION_ERROR_M
    )


# By benchmark; another one has no plot.
CURVES: dict[str, Callable[[Result], Iterator[Curve]]] = {
    'pose': _pose_curves,
    'homography': _homography_curves,
    'ranking': _ranking_curves,
    'sweep': _sweep_curves,
    'localize': _localization_curves,
}


def plot_results(kind: str, results: Sequence[Result]) -> bytes | None:
    """Draw all matchers, a row for each data set.

    Args:
        kind: of benchmark.
        results: of it.

    Returns:
        PNG; None for a benchmark that has no plot.
    """
    # matplotlib takes half a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if kind not in CURVES or not results:
        return None
    curves = [(r['data_set'], r['matcher'], c) for r in results for c in CURVES[kind](r)]
    panels = list(dict.fromkeys((data_set, curve.panel) for data_set, _, curve in curves))
    per_row = min(_MAX_PER_ROW, len({panel for _, panel in panels}))
    figure = Figure(layout='constrained')
    grid = figure.subplots(math.ceil(len(panels) / per_row), per_row, squeeze=False)
    figure.set_size_inches(4.5 * per_row, 3.8 * len(grid))
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    labels: list[str] = []
    for place, axes in zip(panels, grid.flat[: len(panels)], strict=True):
        own = [(matcher, c) for data_set, matcher, c in curves if (data_set, c.panel) == place]
        num_explained = len(labels)
        for matcher, curve in own:
            label = ', '.join(word for word in (matcher, curve.label) if word)
            if label not in labels:
                labels.append(label)
            _draw_curve(axes, curve, label, f'C{labels.index(label) % 10}')
        axes.set(title=': '.join(place), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if len(labels) > num_explained:
            axes.legend(fontsize='small')
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(stream, dpi=100)
    return stream.getvalue()


def _draw_curve(axes: Axes, curve: Curve, label: str, colour: str) -> None:
    axes.set(xlabel=curve.x_label, ylabel=curve.y_label, xscale=curve.scale)
    marks = '-'
    if len(curve.x) < _MAX_MARKED:
        marks = '.-'
        axes.set_xticks(curve.x, [f'{x:g}' for x in curve.x], minor=False)
        axes.minorticks_off()
    axes.plot(curve.x, curve.y, marks, color=colour, label=label)
    if curve.band is not None:
        axes.fill_between(curve.x, *curve.band, color=colour, alpha=0.12, lw=0)


def draw_pair(matched: MatchedPair) -> NDArray[np.uint8]:
    """Draw the matches of a pair: green those within RIGHT_PX of the truth, red the others.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    is_right = matched.pair.errors_px(matched.found) <= RIGHT_PX
    return draw_matches(*matched.images, matched.found.points0, matched.found.points1, is_right)


def _below(
    errors: NDArray[np.float64], panel: str, x_label: str, y_label: str, end: float
) -> Curve:
    x = np.linspace(0, end, 101)
    share = (errors[:, None] <= x).mean(axis=0)
    return Curve(panel, '', x_label, y_label, x, share)


def _band(result: Mapping[str, object], names: Sequence[str]) -> tuple | None:
    intervals = result['intervals']
    if not all(name in intervals for name in names):
        return None
    low, high = zip(*(intervals[name] for name in names), strict=True)
    return low, high
