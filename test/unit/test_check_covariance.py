"""The check of covariances and gates, on poses with known answers and from end to end."""

from __future__ import annotations

import json
import re

from coam_ros.cli import main
from coam_ros.evaluation.metrics.covariance import (
    gate_pose,
    GatedPose,
    is_published,
    measure_consistency,
    measure_gates,
)
from coam_ros.localization import LocalizationConfig, RelocalizationResult
import cv2
from map_samples import encode
import numpy as np
import pytest
from recording_samples import HEIGHT, WIDTH, write_recording

NAN = float('nan')


def pose(**fields: object) -> GatedPose:
    values = {
        'name': 'query',
        'is_right': True,
        'translation_error_m': 0.01,
        'rotation_error_deg': 0.1,
        'nees_position': 1.0,
        'nees_pose': 1.0,
        'num_inlier_blocks': 500,
        'inlier_ratio': 0.5,
        'coverage': 0.5,
        'position_std_m': 0.01,
        'rotation_std_deg': 0.1,
    }
    return GatedPose(**{**values, **fields})


def test_honest_covariances_are_called_so_and_proud_ones_are_not():
    errors = np.random.default_rng(0).normal(size=(400, 6)) ** 2
    honest = [pose(nees_position=e[:3].mean(), nees_pose=e.mean()) for e in errors]
    found = measure_consistency(honest)
    assert found['poses'] == 400
    for part in ('position', 'pose'):
        low, high = found[part]['honest_interval']
        assert low < found[part]['mean_per_dof'] < high
        assert found[part]['within_95_percent'] == pytest.approx(0.95, abs=0.03)
    proud = [pose(nees_position=4 * e[:3].mean(), nees_pose=4 * e.mean()) for e in errors]
    found = measure_consistency(proud)['pose']
    assert found['mean_per_dof'] > 3 > found['honest_interval'][1]
    assert found['within_95_percent'] < 0.5


def test_poses_of_elsewhere_have_no_consistency():
    found = measure_consistency([pose(nees_position=NAN, nees_pose=NAN, is_right=False)])
    assert found['poses'] == 0
    assert found['pose']['mean_per_dof'] is None


def test_gate_is_proposed_between_wrong_and_right_poses():
    poses = [pose(num_inlier_blocks=n) for n in (80, 200, 300)]
    poses += [pose(num_inlier_blocks=n, is_right=False) for n in (10, 40, 60)]
    found = measure_gates(poses, LocalizationConfig(min_inliers=50))
    inliers = found['min_inliers']
    assert (inliers['in_force'], inliers['precision'], inliers['recall']) == (50, 3 / 4, 1)
    assert inliers['proposed']['threshold'] == 70
    assert inliers['proposed']['precision'] == inliers['proposed']['recall'] == 1
    # This number does not tell them apart.
    assert found['max_position_std_m']['precision'] == 1 / 2
    assert found['max_position_std_m']['proposed'] is None


def test_gate_with_an_upper_bound_is_proposed_likewise():
    poses = [pose(position_std_m=std) for std in (0.01, 0.04)]
    poses += [pose(position_std_m=std, is_right=False) for std in (0.06, 0.5)]
    found = measure_gates(poses, LocalizationConfig())['max_position_std_m']
    assert found['precision'] == 2 / 3
    assert found['proposed']['threshold'] == pytest.approx(0.05)


def test_pose_passes_all_gates_or_is_not_published():
    just_good = {
        'num_inlier_blocks': 50,
        'inlier_ratio': 0.05,
        'coverage': 0.15,
        'position_std_m': 0.1,
        'rotation_std_deg': 2.0,
    }
    assert is_published(pose(**just_good), LocalizationConfig())
    for name, beyond in (
        ('num_inlier_blocks', 49),
        ('inlier_ratio', 0.049),
        ('coverage', 0.149),
        ('position_std_m', 0.101),
        ('rotation_std_deg', 2.01),
    ):
        assert not is_published(pose(**{name: beyond}), LocalizationConfig())


def test_numbers_of_a_pose_are_its_own():
    covariance = np.diag([1e-4, 4e-4, 1e-4, *[np.radians(0.5) ** 2] * 3])
    result = RelocalizationResult(
        T_map_camera=np.eye(4),
        covariance=covariance,
        num_matches=100,
        num_inliers=80,
        num_inlier_blocks=70,
        inlier_ratio=0.8,
        coverage=0.3,
    )
    T_true = np.eye(4)
    T_true[1, 3] = 0.04
    found = gate_pose('query', result, T_true, (0.05, 1.0))
    assert found.is_right
    assert found.position_std_m == pytest.approx(0.02)
    assert found.rotation_std_deg == pytest.approx(0.5)
    assert found.nees_position == pytest.approx(2**2 / 3)
    assert found.nees_pose == pytest.approx(2**2 / 6)
    assert (found.num_inlier_blocks, found.inlier_ratio, found.coverage) == (70, 0.8, 0.3)
    assert not gate_pose('query', result, None, (0.05, 1.0)).is_right


def test_plot_shows_squared_errors_beside_those_of_honest_covariances(tmp_path, monkeypatch):
    pytest.importorskip('matplotlib', reason='plots need matplotlib')
    from coam_ros.evaluation.reports.covariance_plots import plot_nees
    from plot_samples import keep_figures, lines_of

    figures = keep_figures(monkeypatch)
    poses = [pose(nees_position=3.0, nees_pose=5.0), pose(nees_position=1.0, nees_pose=2.0)]
    plot_nees(tmp_path / 'nees.png', {'room': poses})
    # Chi-square tables: 3 for 3 degrees of freedom, 6 for 6.
    for axes, title, errors, honest in zip(
        figures[-1].axes,
        ('position, 3', 'pose, 6'),
        ((1, 3), (2, 5)),
        (0.6084, 0.5768),
        strict=True,
    ):
        assert axes.get_title().startswith(title)
        lines = lines_of(axes)
        np.testing.assert_allclose(lines['room'], [(0, 0), (errors[0], 0.5), (errors[1], 1)])
        assert np.interp(1.0, *lines['honest'].T) == pytest.approx(honest, abs=1e-3)


def test_plot_marks_what_the_threshold_in_force_lets_pass(tmp_path, monkeypatch):
    pytest.importorskip('matplotlib', reason='plots need matplotlib')
    from coam_ros.evaluation.reports.covariance_plots import plot_gates
    from plot_samples import keep_figures, labels_of

    figures = keep_figures(monkeypatch)
    # The larger the number of inliers the smaller the deviation: both gates are worth the same.
    poses = [
        pose(num_inlier_blocks=n, position_std_m=1 / n, is_right=n != 80)
        for n in (30, 40, 60, 80, 200)
    ]
    config = LocalizationConfig(min_inliers=55, max_position_std_m=1 / 55)
    plot_gates(tmp_path / 'gates.png', poses, config)
    (axes,) = figures[-1].axes
    assert labels_of(axes)[1:] == ('recall of right poses', 'precision')
    lines = axes.get_lines()
    for gate in ('min_inliers', 'max_position_std_m'):
        (number,) = [i for i, line in enumerate(lines) if line.get_label() == gate]
        curve, point = lines[number : number + 2]
        # From the surest pose down; the second one is wrong.
        wanted = [(1 / 4, 1), (1 / 4, 1 / 2), (2 / 4, 2 / 3), (3 / 4, 3 / 4), (1, 4 / 5)]
        np.testing.assert_allclose(curve.get_xydata(), wanted)
        np.testing.assert_allclose(point.get_xydata(), [(2 / 4, 2 / 3)])
        assert point.get_color() == curve.get_color()


def test_report_of_a_recording_and_another_place(tmp_path, capsys, monkeypatch):
    pytest.importorskip('matplotlib', reason='plots need matplotlib')
    from plot_samples import keep_figures, lines_of

    figures = keep_figures(monkeypatch)
    elsewhere = tmp_path / 'elsewhere'
    for folder in (elsewhere, tmp_path / 'wall'):
        folder.mkdir()
    write_recording(tmp_path / 'wall')
    for name in ('intrinsics.txt', 'frame-000003.pose.txt'):
        (elsewhere / name).write_bytes((tmp_path / 'wall' / name).read_bytes())
    noise = np.random.default_rng(9).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    image = cv2.resize(noise, (WIDTH, HEIGHT))
    (elsewhere / 'frame-000003.color.jpg').write_bytes(encode(image, '.jpg'))
    # What looks like the map gets a pose, which is wrong all the same.
    for name in ('color.jpg', 'pose.txt'):
        source = (tmp_path / f'wall/frame-000003.{name}').read_bytes()
        (elsewhere / f'frame-000005.{name}').write_bytes(source)
    out = tmp_path / 'report'
    words = [tmp_path / 'wall', '--elsewhere', elsewhere, '--num-keyframes', 2, '--out', out]
    assert main(['check-covariance', *map(str, words)]) == 0
    report = json.loads((out / 'report.json').read_text())
    assert report['images'] == {'wall': 3}
    assert report['consistency']['wall']['poses'] == 1
    assert report['gates']['all'] == {'accepted': 2, 'precision': 0.5, 'recall': 1}
    by_name = {found['name']: found for found in report['poses']['wall']}
    assert by_name['frame-000003']['is_right']
    assert by_name['frame-000003']['nees_pose'] < 20
    assert not by_name['elsewhere/frame-000005']['is_right']
    for name in ('nees.png', 'gates.png'):
        assert cv2.imread(str(out / name)) is not None
    assert re.search(r'all\W+50\.0%\W+100\.0%', capsys.readouterr().out)
    # With a map as bad as that no gate lets a pose pass, and yet it is in the report.
    words += ['--every', 2, '--right', '1e-6,1e-6', '--map-position-std-m', 10]
    assert main(['check-covariance', *map(str, words)]) == 0
    report = json.loads((out / 'report.json').read_text())
    assert report['images'] == {'wall': 2}
    assert report['consistency']['wall']['poses'] == 0
    # The plot is of the poses that are published.
    shown = [len(lines_of(figure.axes[0])['wall']) - 1 for figure in figures[::2]]
    assert shown == [1, 0]
    is_right = {found['name']: found['is_right'] for found in report['poses']['wall']}
    assert is_right['frame-000003'] is False


@pytest.mark.parametrize(
    ('words', 'message'),
    [(['{none}'], 'No folder'), (['{none}', '--every', '0'], '--every 0')],
)
def test_error_of_the_user_is_one_line_and_status_2(tmp_path, capsys, words, message):
    words = [word.format(none=tmp_path / 'none') for word in words]
    assert main(['check-covariance', *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
