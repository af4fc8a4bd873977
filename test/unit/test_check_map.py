"""The check of a map by itself: keyframes with known errors, and from end to end."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import re

from coam_ros.cli import main
from coam_ros.evaluation.metrics.keyframe_error import Disagreement, fit_keyframe_error
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import load_map, save_map
import cv2
from map_samples import encode
import numpy as np
import pytest
from recording_samples import wall_image, write_recording, write_view

NUM_VIEWS = 9
MOVED_ID = 4


def disagreements(position_std_m: float, rotation_std_deg: float, number: int = 300):
    """Draw errors of keyframes that are off by so much, judged by matching of a few mm."""
    rng = np.random.default_rng(0)
    found = []
    for name in range(number):
        spread = rng.uniform(0.5, 2.0, 6) * [*[0.003] * 3, *[0.002] * 3]
        # Its own error, and that of three others which share the weight.
        by_position = np.diag([4 / 3] * 3 + [0] * 3)
        by_rotation = np.diag([0] * 3 + [4 / 3] * 3) * np.radians(1) ** 2
        each = Disagreement(str(name), np.zeros(6), np.diag(spread**2), by_position, by_rotation)
        covariance = np.diag(spread**2) + position_std_m**2 * by_position
        covariance += rotation_std_deg**2 * by_rotation
        found.append(replace(each, error=rng.multivariate_normal(np.zeros(6), covariance)))
    return found


@pytest.mark.parametrize('stds', [(0.02, 0.5), (0.004, 0.1)])
def test_errors_of_keyframes_are_found_again(stds):
    found = fit_keyframe_error(disagreements(*stds))
    assert found.position_std_m == pytest.approx(stds[0], rel=0.1)
    assert found.rotation_std_deg == pytest.approx(stds[1], rel=0.1)
    assert len(found.outliers) <= 2


def test_exact_keyframes_are_called_so():
    found = fit_keyframe_error(disagreements(0.0, 0.0))
    assert found.position_std_m < 0.001
    assert found.rotation_std_deg < 0.03


def test_one_that_went_wrong_is_named_and_spoils_nothing():
    drawn = disagreements(0.01, 0.2, number=60)
    drawn[7] = replace(drawn[7], error=np.add(drawn[7].error, [1.0, 0, 0, 0, 0, 0]))
    drawn[31] = replace(drawn[31], error=np.add(drawn[31].error, [0, 0.2, 0, 0, 0, 0]))
    found = fit_keyframe_error(drawn)
    assert found.outliers == ('7', '31')
    assert found.position_std_m == pytest.approx(0.01, rel=0.25)


def test_nothing_to_judge_by_is_an_error():
    with pytest.raises(ValueError, match='nothing to judge by'):
        fit_keyframe_error([])


@pytest.fixture(scope='module')
def wall_map(tmp_path_factory) -> Path:
    """A map of views along a wall, exact but for one, which stands 20 cm beside its place."""
    folder = tmp_path_factory.mktemp('wall')
    write_recording(folder)
    for number, x_m in enumerate(np.linspace(-0.4, 0.4, NUM_VIEWS)):
        write_view(folder, number, x_m, wall_image())
    assert main(['map', 'build', '7scenes', str(folder), '--out', str(folder / 'map')]) == 0
    keyframes = list(load_map(folder / 'map'))
    T_moved = keyframes[MOVED_ID].T_map_camera.copy()
    T_moved[1, 3] += 0.2
    keyframes[MOVED_ID] = replace(keyframes[MOVED_ID], T_map_camera=T_moved)
    save_map(KeyframeMap(keyframes), folder / 'moved')
    noise = np.random.default_rng(0).integers(0, 255, keyframes[0].decode_image().shape, np.uint8)
    keyframes[MOVED_ID] = replace(keyframes[MOVED_ID], image=encode(noise, '.png'))
    save_map(KeyframeMap(keyframes), folder / 'strange')
    return folder


def test_an_exact_map_agrees_and_the_report_says_so(wall_map, tmp_path, capsys):
    assert main(['check-map', str(wall_map / 'map'), '--out', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['queries'] == report['localized'] == NUM_VIEWS
    assert report['max_error_cm'] < 3
    # Far below what the matcher takes a map for when nobody says anything.
    assert report['keyframe_error']['position_std_m'] < 0.005
    assert report['keyframe_error']['rotation_std_deg'] < 0.1
    assert len(report['per_query']) == NUM_VIEWS
    for name in ('top_view.png', 'disagreement.png'):
        assert cv2.imread(str(tmp_path / name)) is not None
    assert 'keyframe_position_std_m' in capsys.readouterr().out


def test_a_keyframe_in_the_wrong_place_is_named(wall_map, tmp_path, capsys):
    assert main(['check-map', str(wall_map / 'moved'), '--out', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    by_name = {o['name']: o['translation_error_m'] for o in report['per_query']}
    assert by_name[str(MOVED_ID)] == pytest.approx(0.2, abs=0.05)
    assert max(by_name, key=by_name.get) == str(MOVED_ID)
    assert report['keyframe_error']['outliers'] == [str(MOVED_ID)]
    assert re.search(r'disagreement, largest\W+(1[5-9]|2[0-5])\.\d cm', capsys.readouterr().out)


@pytest.mark.parametrize(
    ('apart', 'advice'),
    [('0', 'map the place more densely'), ('1', 'Nothing but their neighbours')],
)
def test_keyframes_that_no_other_sees_are_named(wall_map, capsys, apart, advice):
    words = ['--apart', apart, '--every', str(MOVED_ID)]
    assert main(['check-map', str(wall_map / 'strange'), *words]) == 0
    text = capsys.readouterr().out
    assert f'the others do not localize: {MOVED_ID}. ' in text
    assert [advice in text, 'more densely' in text] == [True, apart == '0']


def test_keyframes_for_which_none_is_left_are_not_checked(wall_map, tmp_path, capsys):
    words = ['check-map', str(wall_map / 'map'), '--apart']
    assert main([*words, str(NUM_VIEWS - 2), '--out', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert [one['name'] for one in report['per_query']] == ['0', str(NUM_VIEWS - 1)]
    assert main([*words, str(NUM_VIEWS - 1)]) == 2
    assert 'leaves nothing to localize any of 9 keyframes' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['{none}'], 'none'),
        (['{none}', '--apart', '-1'], '--apart -1'),
        (['{none}', '--every', '0'], '--every 0'),
    ],
)
def test_error_of_the_user_is_one_line_and_status_2(tmp_path, capsys, words, message):
    assert main(['check-map', *(word.format(none=tmp_path / 'none') for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
