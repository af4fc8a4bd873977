"""Plots of the demo show every answer where and when it was, coloured by what it was worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='plots need matplotlib')

from coam_ros.demo.plots import plot_errors, plot_latency, plot_recall, plot_top_view
from coam_ros.demo.scoring import score
from coam_ros.geometry.transforms import make_transform
from coam_ros.rendering import camera_pose
from demo_samples import failed_answer, make_recording, make_scenario, pose_answer
from map_samples import make_keyframe
from matplotlib.colors import to_hex
from matplotlib.patches import Ellipse, Polygon
from plot_samples import keep_figures, labels_of, lines_of
from rotations import rotation_from_vector

GREEN, RED, BLUE, GREY = '#2f9e44', '#c8321e', '#1f6fb4', '#9a9a9a'
# Of 1.5 and 0.5 cm, the larger one 30 degrees from x to y; up and in rotation much more.
TURN = rotation_from_vector([0, 0, np.radians(30)])
POSITION_COVARIANCE = TURN @ np.diag([0.015**2, 0.005**2, 0.1**2]) @ TURN.T


def answer_of(index, offset_m, turn_deg=0.0):
    answer = pose_answer(index, offset_m)
    covariance = np.eye(6)
    covariance[:3, :3] = POSITION_COVARIANCE
    turn = make_transform(rotation_from_vector([0, 0, np.radians(turn_deg)]), np.zeros(3))
    T_map_camera = answer.result.T_map_camera @ turn
    result = replace(answer.result, covariance=covariance, T_map_camera=T_map_camera)
    return replace(answer, result=result)


@pytest.fixture
def played():
    """Two images a second: three right, two wrong, one failed, one dropped, one unmapped."""
    scenario = make_scenario(8, unmapped={4}, kidnappings=(6,))
    map_frames = [make_keyframe(id=i, T_map_camera=camera_pose((i, 0.5, 1), 0.3)) for i in (0, 1)]
    answers = [answer_of(i, 0.01 * (i + 1)) for i in range(8)]
    answers[1] = None
    answers[2] = answer_of(2, 0.30)
    answers[3] = answer_of(3, 0.01, turn_deg=3.0)
    answers[4] = failed_answer()
    answers[5] = answer_of(5, 0.02)
    answers[6] = failed_answer()
    answers[7] = answer_of(7, 0.03)
    scenario = replace(scenario, map_frames=map_frames)
    recording = make_recording(answers)
    return scenario, recording, score(scenario, recording)


@pytest.fixture
def figures(monkeypatch):
    return keep_figures(monkeypatch)


def test_top_view_shows_poses_where_they_are_and_right_ones_green(played, figures):
    plot_top_view(*played)
    (axes,) = figures[-1].axes
    assert labels_of(axes)[1:] == ('x [m]', 'y [m]')
    lines = lines_of(axes)
    for label, places, colour in (
        ('poses within 5 cm, 2 deg', [(0.0, 0.01), (0.5, 0.02), (0.7, 0.03)], GREEN),
        ('poses beyond', [(0.2, 0.3), (0.3, 0.01)], RED),
        ('answered without a pose', [(0.6, 0.0)], BLUE),
    ):
        np.testing.assert_allclose(lines[label], places, atol=1e-9)
        (line,) = [line for line in axes.get_lines() if line.get_label() == label]
        assert to_hex(line.get_color()) == colour
    (arrows,) = axes.collections
    np.testing.assert_allclose(arrows.get_offsets(), [(0, 0.5), (1, 0.5)])
    np.testing.assert_allclose(arrows.V / arrows.U, np.tan(0.3))
    assert (arrows.U > 0).all()
    (outline,) = [patch for patch in axes.patches if isinstance(patch, Polygon)]
    np.testing.assert_allclose(outline.get_xy()[:4], played[0].outlines_map[0])


def test_true_path_has_gaps_where_nothing_is_mapped_and_where_the_camera_was_carried(
    played, figures
):
    plot_top_view(*played)
    (axes,) = figures[-1].axes
    paths = [
        line.get_xydata() for line in axes.get_lines() if to_hex(line.get_color()) == '#e07b1a'
    ]
    known = [np.isfinite(path[:, 0]) for path in paths]
    assert [mask.tolist() for mask in known] == [[True] * 4 + [False, True], [True, True]]
    xs = [path[mask, 0].round(6).tolist() for path, mask in zip(paths, known, strict=True)]
    assert xs == [[0, 0.1, 0.2, 0.3, 0.5], [0.6, 0.7]]
    (jump,) = [line for line in axes.get_lines() if line.get_linestyle() == '--']
    np.testing.assert_allclose(jump.get_xydata(), [(0.5, 0), (0.6, 0)])
    (text,) = axes.texts
    assert (text.get_text(), text.xy[0]) == ('kidnapping 1', pytest.approx(0.6))


def test_ellipses_are_two_deviations_enlarged_as_the_title_says(played, figures):
    plot_top_view(*played)
    (axes,) = figures[-1].axes
    # The room is 4 m long: 2 x 1.5 cm stay below 2 percent of that when doubled, not five times.
    assert axes.get_title() == 'Ellipses: two standard deviations, 2 times enlarged'
    ellipses = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
    assert len(ellipses) == 5
    for ellipse in ellipses:
        assert ellipse.width == pytest.approx(2 * 2 * (2 * 0.015))
        assert ellipse.height == pytest.approx(2 * 2 * (2 * 0.005))
        assert ellipse.angle % 180 == pytest.approx(30)
    np.testing.assert_allclose(ellipses[1].center, (0.2, 0.3))


def test_errors_stand_at_the_time_of_their_image_beside_their_bar(played, figures):
    plot_errors(*played)
    position, rotation, _ = figures[-1].axes
    times_s = [0, 1, 1.5, 2.5, 3.5]
    for axes, errors, bar, y_label in (
        (position, [1, 30, 1, 2, 3], 5, 'position error [cm]'),
        # Below 0.01 degrees nothing is told apart.
        (rotation, [0.01, 0.01, 3, 0.01, 0.01], 2, 'rotation error [deg]'),
    ):
        assert axes.get_ylabel() == y_label
        dots, limit, kidnapping = axes.get_lines()
        np.testing.assert_allclose(
            dots.get_xydata(), np.column_stack([times_s, errors]), atol=1e-6
        )
        assert set(limit.get_ydata()) == {bar}
        assert set(kidnapping.get_xdata()) == {3.0}
        (shaded,) = axes.patches
        outline = shaded.get_patch_transform().transform(shaded.get_path().vertices)
        assert (outline[:, 0].min(), outline[:, 0].max()) == pytest.approx((2.0, 2.5))


def test_a_tick_an_image_says_what_was_answered(played, figures):
    scenario, recording, _ = played
    answers = list(recording.answers)
    # A pose in a place that is not mapped is false.
    answers[4] = pose_answer(4)
    recording = make_recording(answers)
    plot_errors(scenario, recording, score(scenario, recording))
    axes = figures[-1].axes[2]
    names = {
        y: text.get_text()
        for y, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    ticks = [
        (line.get_xdata()[0], names[max(line.get_ydata())], to_hex(line.get_color()))
        for line in axes.get_lines()[:8]
    ]
    wanted = [('pose', GREEN)] * 8
    wanted[1], wanted[4], wanted[6] = ('no answer', GREY), ('pose', RED), ('no pose', BLUE)
    assert ticks == [(i / 2, *one) for i, one in enumerate(wanted)]
    assert axes.get_xlabel() == 'time [s]'


def test_recall_is_by_the_worse_of_both_errors_and_of_all_queries(played, figures):
    plot_recall(played[2])
    (axes,) = figures[-1].axes
    share, bar = axes.get_lines()
    # 1, 2 and 3 cm of 5, 3 deg of 2, 30 cm of 5; and one query without a pose.
    ratios = [0, 0.2, 0.4, 0.6, 1.5, 6]
    np.testing.assert_allclose(
        share.get_xydata(), np.column_stack([ratios, np.arange(6) / 6]), atol=1e-6
    )
    assert set(bar.get_xdata()) == {1}
    assert axes.get_xlim() == (0, 3)


def test_boxes_of_latency_are_milliseconds_of_the_stage_below_them(figures):
    # From the stamp to the publication: 0 to 200 ms.
    answers = [replace(pose_answer(i), latency_s=i / 100) for i in range(21)]
    plot_latency(make_recording(answers))
    (axes,) = figures[-1].axes
    assert axes.get_ylabel() == 'time [ms]'
    drawn = {}
    for place, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        own = [line for line in axes.get_lines() if abs(line.get_xdata().mean() - place) < 0.3]
        heights = np.concatenate([line.get_ydata() for line in own])
        drawn[text.get_text()] = heights.min(), heights.max()
    assert drawn == {
        'encode': pytest.approx((100, 100)),
        'match': pytest.approx((300, 300)),
        'end to end': pytest.approx((10, 190)),
    }
