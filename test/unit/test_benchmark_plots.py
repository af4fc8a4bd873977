"""Plots and pictures of benchmarks show the figures of the reports, under their names."""

from __future__ import annotations

from pathlib import Path

from bench_samples import correspondences
import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='plots need matplotlib')

from coam_ros.evaluation.benchmarks.matching import MatchedPair
from coam_ros.evaluation.data.image_pairs import PlanarPair
from coam_ros.evaluation.data.sweep import SWEEPS
from coam_ros.evaluation.reports.benchmark_plots import draw_pair, plot_results
from matplotlib.colors import to_hex
from plot_samples import keep_figures, labels_of, lines_of


def result(data_set='room', matcher='ours', **fields) -> dict:
    return {'data_set': data_set, 'matcher': matcher, 'intervals': {}, **fields}


MATCHING = {f'mma_{px}px': px / 20 for px in range(1, 11)}


@pytest.mark.parametrize(
    ('kind', 'end', 'pairs', 'panel', 'x_label', 'y_label'),
    [
        # Each pair of these two counts three times.
        (
            'pose',
            20,
            lambda errors: [{'errors_deg': errors}],
            'pose',
            'error [deg]',
            'share of pairs',
        ),
        (
            'homography',
            10,
            lambda errors: [{'corner_errors_px': errors}],
            'homography',
            'mean corner error [px]',
            'share of pairs',
        ),
        (
            'localize',
            0.5,
            lambda errors: [{'translation_error_m': error} for error in errors],
            'position',
            'position error [m]',
            'share of queries',
        ),
    ],
)
def test_curve_is_the_share_below_each_error_and_what_is_lost_is_below_none(
    monkeypatch, kind, end, pairs, panel, x_label, y_label
):
    figures = keep_figures(monkeypatch)
    found = result(per_pair=pairs([0.205 * end, 0.605 * end, None]), summary=MATCHING)
    assert plot_results(kind, [found]).startswith(b'\x89PNG')
    axes = figures[-1].axes[-1]
    assert labels_of(axes) == (f'room: {panel}', x_label, y_label)
    x, y = lines_of(axes)['ours'].T
    assert (x[0], x[-1]) == (0, end)
    shares = y[np.searchsorted(x, np.array([0.2, 0.21, 0.6, 0.61, 1.0]) * end - 1e-9)]
    np.testing.assert_allclose(shares, np.array([0, 1, 1, 2, 2]) / 3)


def test_matching_accuracy_stands_at_its_threshold_within_its_interval(monkeypatch):
    figures = keep_figures(monkeypatch)
    intervals = {name: (share - 0.01, share + 0.02) for name, share in MATCHING.items()}
    found = result(per_pair=[{'corner_errors_px': [1.0]}], summary=MATCHING, intervals=intervals)
    plot_results('homography', [found])
    axes = figures[-1].axes[0]
    assert labels_of(axes) == ('room: matches', 'threshold [px]', 'mean matching accuracy')
    px = np.arange(1, 11)
    np.testing.assert_allclose(lines_of(axes)['ours'], np.column_stack([px, px / 20]))
    border = axes.collections[0].get_paths()[0].vertices
    for level in (px / 20 - 0.01, px / 20 + 0.02):
        for point in zip(px, level, strict=True):
            assert np.abs(border - point).max(axis=1).min() < 1e-9


def test_sweeps_stand_in_panels_of_their_own_and_each_success_at_its_level(monkeypatch):
    figures = keep_figures(monkeypatch)
    summary = {
        f'success at {sweep} {level:g}': 1 / (1 + level)
        for sweep, change in SWEEPS.items()
        for level in change.levels
    }
    plot_results('sweep', [result(summary=summary)])
    panels = {axes.get_title(): axes for axes in figures[-1].axes}
    assert list(panels) == [f'room: {sweep}' for sweep in SWEEPS]
    for axes, change in zip(panels.values(), SWEEPS.values(), strict=True):
        x, y = lines_of(axes)['ours'].T
        assert tuple(x) == change.levels
        np.testing.assert_allclose(y, 1 / (1 + x))
    assert labels_of(panels['room: tilt'])[1:] == ('tilt [deg]', 'success')
    assert labels_of(panels['room: overlap'])[1] == 'overlap [share of the width]'
    # A gamma of 1/2 is as far from 1 as one of 2.
    scales = [axes.get_xscale() for axes in panels.values()]
    assert [scale == 'log' for scale in scales] == [sweep == 'gamma' for sweep in SWEEPS]


def test_rankings_are_precision_over_recall_under_their_names(monkeypatch):
    figures = keep_figures(monkeypatch)
    by_ranking = {'score': [1.0, 0.9], 'similarity': [0.8, 0.7]}
    summary = {'recall': [0.2, 0.4], 'precision_by_ranking': by_ranking}
    plot_results('ranking', [result(summary=summary)])
    (axes,) = figures[-1].axes
    assert labels_of(axes) == ('room: ranking', 'recall', 'precision')
    lines = lines_of(axes)
    np.testing.assert_allclose(lines['ours, score'], [(0.2, 1.0), (0.4, 0.9)])
    np.testing.assert_allclose(lines['ours, similarity'], [(0.2, 0.8), (0.4, 0.7)])


@pytest.mark.parametrize(
    ('matchers', 'num_legends'), [(('sift', 'sift'), 1), (('sift', 'orb'), 2)]
)
def test_a_legend_stands_where_a_matcher_first_appears(monkeypatch, matchers, num_legends):
    figures = keep_figures(monkeypatch)
    results = [
        result(data_set, matcher, per_pair=[{'errors_deg': [1.0]}])
        for data_set, matcher in zip(('room', 'garden'), matchers, strict=True)
    ]
    assert plot_results('pose', results) is not None
    assert sum(axes.get_legend() is not None for axes in figures[-1].axes) == num_legends


def test_a_matcher_has_one_colour_on_all_data_sets_and_another_one_than_others(monkeypatch):
    figures = keep_figures(monkeypatch)
    names = [('room', 'sift'), ('room', 'orb'), ('garden', 'sift')]
    results = [result(*name, per_pair=[{'errors_deg': [1.0]}]) for name in names]
    plot_results('pose', results)
    room, garden = figures[-1].axes
    sift, orb = room.get_lines()
    (again,) = garden.get_lines()
    assert [line.get_label() for line in (sift, orb, again)] == ['sift', 'orb', 'sift']
    assert to_hex(sift.get_color()) == to_hex(again.get_color()) != to_hex(orb.get_color())


def test_picture_of_a_pair_is_green_where_the_match_is_right():
    shift = np.array([[1.0, 0, 20], [0, 1, 0], [0, 0, 1]])
    pair = PlanarPair('pair', Path(), Path(), shift)
    # The second match is beyond the 3 px within which one is right.
    found = correspondences([[10, 10], [10, 30]], [[30, 10], [33.1, 30]])
    images = tuple(np.full((40, 60, 3), grey, np.uint8) for grey in (0, 30))
    picture = draw_pair(MatchedPair(pair, images, found, None, None)).astype(int)
    assert (picture[0, 0, 0], picture[0, -1, 0]) == (0, 30)
    # In the left image, and behind a gap of 4 px in the right one.
    for row, columns, is_green in ((10, (10, 64 + 30), True), (30, (10, 64 + 33), False)):
        red, green, _ = picture[row, list(columns)].T
        assert (green > red).tolist() == 2 * [is_green]
