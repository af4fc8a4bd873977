"""What plots show, read back from the figures that were drawn."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
import pytest


def keep_figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Give the list that gets every figure drawn from now on; they are drawn as ever."""
    figures: list[Figure] = []
    begin = FigureCanvasAgg.__init__

    def begin_and_keep(canvas, figure):
        begin(canvas, figure)
        figures.append(figure)

    monkeypatch.setattr(FigureCanvasAgg, '__init__', begin_and_keep)
    return figures


def lines_of(axes: Axes) -> dict[str, np.ndarray]:
    """Points (N, 2) of the lines, by what the legend calls them."""
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def labels_of(axes: Axes) -> tuple[str, str, str]:
    """Title, and what stands along x and y."""
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel()
