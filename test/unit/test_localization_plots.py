from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='plots need matplotlib')

from coam_ros.evaluation.metrics.localization import evaluate_query
from coam_ros.evaluation.reports.localization_plots import plot_errors, plot_top_view
from coam_ros.geometry.transforms import make_transform
from coam_ros.localization import FailureReason, RelocalizationResult
from plot_samples import keep_figures, labels_of, lines_of
from test_localization_metrics import failed, localized


@pytest.mark.parametrize('outcomes', [[localized(0.1), failed(), localized(0.2)], [failed()], []])
def test_plots_are_written_for_any_outcome(tmp_path: Path, outcomes):
    plot_top_view(tmp_path / 'top.png', np.eye(3), outcomes)
    plot_errors(tmp_path / 'errors.png', outcomes)
    assert cv2.imread(str(tmp_path / 'top.png')).std() > 1
    assert cv2.imread(str(tmp_path / 'errors.png')).std() > 1


def test_top_view_shows_who_was_where(tmp_path, monkeypatch):
    figures = keep_figures(monkeypatch)
    # Up is y here; the path goes along z and then a little along x.
    keyframes = np.array([(0, 0, 0), (0, 0, 4), (0, 0, 8), (1, 0, 8.0)])
    true = keyframes + np.array([0.2, 0, 0])
    found = true[:3] + np.array([0, 0, 0.5])
    results = [
        RelocalizationResult(make_transform(np.eye(3), position), np.eye(6)) for position in found
    ]
    results.append(RelocalizationResult(failure=FailureReason.TOO_FEW_INLIERS))
    outcomes = [
        evaluate_query('q', one, make_transform(np.eye(3), position))
        for one, position in zip(results, true, strict=True)
    ]
    plot_top_view(tmp_path / 'top.png', keyframes, outcomes)
    (axes,) = figures[-1].axes
    lines = lines_of(axes)
    # Seen from above every distance is the true one, and the longest way lies along the page.
    everything = np.vstack([keyframes, true, found, true[3:]])
    drawn = np.vstack(
        [lines[name] for name in ('keyframes', 'true path', 'localized', 'not localized')]
    )
    np.testing.assert_allclose(
        np.linalg.norm(drawn[:, None] - drawn, axis=2),
        np.linalg.norm(everything[:, None] - everything, axis=2),
        atol=1e-9,
    )
    assert np.ptp(drawn[:, 0]) > 5 * np.ptp(drawn[:, 1])
    marks = {line.get_label(): (line.get_marker(), line.get_color()) for line in axes.get_lines()}
    assert marks['not localized'] == ('x', '#c8321e')


def test_errors_stand_in_the_order_of_the_queries_and_failures_are_red(tmp_path, monkeypatch):
    figures = keep_figures(monkeypatch)
    # The second is beyond what is drawn, the third failed.
    plot_errors(
        tmp_path / 'errors.png',
        [localized(0.1, 3.0), localized(2.0, 9.0), failed(), localized(0.05)],
    )
    in_order, _, in_order_deg, _ = figures[-1].axes
    for axes, errors, limit, y_label in (
        (in_order, (10, 30, 5), 30, 'error [cm]'),
        (in_order_deg, (3, 6, 0), 6, 'error [deg]'),
    ):
        assert labels_of(axes)[1:] == ('query', y_label)
        known, lost = axes.get_lines()
        np.testing.assert_allclose(
            known.get_xydata(), np.column_stack([(0, 1, 3), errors]), atol=1e-5
        )
        np.testing.assert_allclose(lost.get_xydata(), [(2, limit)])
        assert lost.get_color() == '#c8321e' != known.get_color()


def test_share_of_queries_counts_those_that_failed(tmp_path, monkeypatch):
    figures = keep_figures(monkeypatch)
    outcomes = [localized(0.1, 3.0), localized(0.02, 1.0), failed(), failed()]
    plot_errors(tmp_path / 'errors.png', outcomes)
    _, share, _, share_deg = figures[-1].axes
    for axes, errors, x_label in (
        (share, (2, 10), 'error [cm]'),
        (share_deg, (1, 3), 'error [deg]'),
    ):
        assert labels_of(axes)[1:] == (x_label, 'share of queries')
        (line,) = axes.get_lines()
        wanted = [(0, 0), (errors[0], 0.25), (errors[1], 0.5)]
        np.testing.assert_allclose(line.get_xydata(), wanted, atol=1e-5)
