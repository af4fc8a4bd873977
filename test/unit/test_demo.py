"""The parts of the demo that need no ROS: scenarios, score, report, child processes."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
import warnings

from coam_ros.demo.child_node import ChildNode, NodeDiedError
from coam_ros.demo.room_scenario import (
    _live_steps,
    _mapping_poses,
    _overlap,
    CAMERA,
    MAPPED_PHOTOGRAPHS,
    OTHER_PHOTOGRAPHS,
)
from coam_ros.demo.scene_scenario import read_scene_scenario
from coam_ros.demo.scoring import score
from coam_ros.evaluation.files import write_json
from coam_ros.evaluation.metrics.localization import make_report
from coam_ros.mapping.importers.seven_scenes import SevenScenesError
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.rendering import Room, RoomConfig
from demo_samples import (
    failed_answer,
    LATENCY_S,
    make_recording,
    make_scenario,
    pose_answer,
    RATE_HZ,
    seven_scenes_frame,
    STD_M,
)
from map_samples import make_keyframe
import numpy as np
import pytest

KEYS = {
    'queries',
    'localized',
    'recall_5cm_2deg',
    'recall_25cm_5deg',
    'false_poses',
    'unmapped_frames',
    'median_error_of_localized_cm',
    'median_error_of_localized_deg',
    'latency_ms',
    'dropped_frames',
    'recovery_s',
    'nees_per_dof',
}


@pytest.fixture
def played():
    """Ten frames: two dropped, two of an unmapped place, one unrecognised, one far off."""
    scenario = make_scenario(10, unmapped={4, 5}, kidnappings=(6,))
    answers = [pose_answer(i, offset_m=0.01) for i in range(10)]
    answers[1] = answers[8] = None
    answers[4] = answers[5] = failed_answer()
    answers[6] = failed_answer()
    answers[3] = pose_answer(3, offset_m=0.30)
    return scenario, make_recording(answers)


def test_score_counts_every_frame_once_and_against_its_own_pose(played):
    summary = score(*played).summary
    assert summary['sent_frames'] == 10
    assert summary['dropped_frames'] == 2
    assert summary['unmapped_frames'] == 2
    assert summary['queries'] == 6
    assert summary['localized'] == 5
    assert summary['recall_5cm_2deg'] == pytest.approx(4 / 6)
    assert summary['false_poses'] == 1
    assert summary['median_error_of_localized_cm'] == pytest.approx(1.0)
    # Squared error over variance along one of six axes: four times 1, once 900.
    assert summary['nees_per_dof'] == pytest.approx((4 * (0.01 / STD_M) ** 2 + 900) / 5 / 6)
    assert summary['failures'] == {'too_few_inliers': 1}
    assert summary['latency_ms']['match'] == pytest.approx({'median': 300, 'p95': 300})
    assert summary['latency_ms']['end_to_end']['median'] == pytest.approx(1000 * LATENCY_S)


def test_recovery_runs_from_the_first_frame_at_the_new_place_to_the_right_pose(played):
    scenario, recording = played
    # Frame 6 is not recognised, frame 7 is.
    assert score(scenario, recording).summary['recovery_s'] == pytest.approx(
        [1 / RATE_HZ + LATENCY_S]
    )
    answers = list(recording.answers)
    answers[7] = pose_answer(7, offset_m=0.2)
    answers[9] = None
    summary = score(scenario, make_recording(answers)).summary
    assert summary['recovery_s'] == [None]


def test_pose_of_an_unmapped_place_is_false_however_good_it_looks(played):
    scenario, recording = played
    answers = list(recording.answers)
    answers[5] = pose_answer(5)
    summary = score(scenario, make_recording(answers)).summary
    assert summary['false_poses'] == 2
    assert summary['false_poses_unmapped'] == 1


def test_bars_say_what_is_met():
    scenario = make_scenario(8, unmapped={3}, kidnappings=(5,))
    answers = [pose_answer(i, offset_m=2.0 * STD_M) for i in range(8)]
    answers[3] = failed_answer()
    good = score(scenario, make_recording(answers))
    assert [bar.is_met for bar in good.bars] == [True] * 4
    silent = score(scenario, make_recording([failed_answer()] * 8))
    assert [bar.is_met for bar in silent.bars] == [False, True, False, False]


def test_report_holds_the_promised_keys_and_is_json(played, tmp_path):
    result = score(*played)
    queries = [outcome for outcome in result.outcomes if outcome]
    write_json(tmp_path / 'report.json', make_report(result.summary, queries))
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report.keys() >= KEYS
    assert len(report['per_query']) == 6


def test_page_stands_alone_and_shows_plots_and_matches(played):
    pytest.importorskip('matplotlib')
    from coam_ros.demo.html_report import make_html

    scenario, recording = played
    keyframe_map = KeyframeMap(scenario.map_frames)
    page = make_html(
        scenario, recording, score(scenario, recording), keyframe_map, [('a<b', '1')], './run demo'
    )
    assert 'a&lt;b' in page
    assert 'NOT met' in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 6
    assert all(source.startswith('data:image/') for source in sources)


def test_page_of_a_run_without_any_pose_is_made_too():
    pytest.importorskip('matplotlib')
    from coam_ros.demo.html_report import make_html

    scenario = make_scenario(4, unmapped={1}, kidnappings=(2,))
    recording = make_recording([failed_answer(), failed_answer(), None, failed_answer()])
    result = score(scenario, recording)
    assert 'NOT met' in make_html(scenario, recording, result, KeyframeMap(), [], './run demo')


def test_rerun_recording_is_written_without_complaints(played, tmp_path):
    pytest.importorskip('rerun')
    from coam_ros.demo.rerun_recording import write_rerun

    scenario, recording = played
    path = tmp_path / 'demo.rrd'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        write_rerun(path, scenario, recording, score(scenario, recording))
    data = path.read_bytes()
    assert data.startswith(b'RRF')
    for entity in (b'/map/camera', b'/errors/position_cm', b'/latency_ms/match', b'/map/inliers'):
        assert entity in data


@pytest.mark.parametrize('seed', range(4))
def test_both_paths_keep_clear_of_walls_and_furniture(seed):
    # Furniture comes before textures from the same seed: coarse ones make the same room.
    room = Room.generate(
        2 * seed, RoomConfig(texels_per_m=20.0), [np.zeros((64, 64, 3), np.uint8)]
    )
    rng = np.random.default_rng(seed)
    for T_room_camera in _mapping_poses(room):
        assert room.is_free(T_room_camera[:3, 3], 0.25)
    steps = list(_live_steps(room, 5.0, 60.0, rng))
    assert len(steps) == 300
    assert sum(step.is_kidnapped for step in steps) == 2
    assert 30 <= sum(not step.is_mapped for step in steps) <= 60
    for step in steps:
        assert room.is_free(step.T_room_camera[:3, 3], 0.25)
    # Nobody drives faster than a robot, kidnappers aside.
    for before, after in itertools.pairwise(steps):
        if before.is_mapped == after.is_mapped and not after.is_kidnapped:
            moved_m = np.linalg.norm(after.T_room_camera[:3, 3] - before.T_room_camera[:3, 3])
            assert moved_m * 5.0 < 1.0


def test_the_other_room_shows_none_of_the_mapped_photographs():
    assert not set(MAPPED_PHOTOGRAPHS) & set(OTHER_PHOTOGRAPHS)


def test_overlap_is_the_share_of_the_view_that_the_keyframe_sees():
    depth_m = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)
    here = np.eye(4)
    assert _overlap(here, depth_m, here, depth_m) == 1.0
    # A wall 2 m away: half of the view is 2 m * 320 / 525 further to the right.
    aside = np.eye(4)
    aside[0, 3] = 2.0 * 320 / 525
    assert _overlap(here, depth_m, aside, depth_m) == pytest.approx(0.5, abs=0.06)
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert _overlap(here, depth_m, turned, depth_m) == 0.0
    # Something stands before the keyframe.
    assert _overlap(here, depth_m, here, depth_m / 2) == 0.0


def test_recording_becomes_a_scenario(tmp_path):
    names = [seven_scenes_frame(tmp_path, make_keyframe(id=i)) for i in range(4)]
    np.savetxt(tmp_path / 'intrinsics.txt', make_keyframe().camera.K)
    (tmp_path / 'map.txt').write_text('\n'.join(names[:3]))
    (tmp_path / 'query.txt').write_text(names[3])
    scenario = read_scene_scenario(tmp_path, 'map.txt', 'query.txt', 2.0)
    assert [frame.id for frame in scenario.map_frames] == [0, 1, 2]
    assert len(scenario.live_frames) == 1
    assert scenario.live_frames[0].is_mapped
    assert not scenario.is_exact
    with pytest.raises((SevenScenesError, FileNotFoundError), match=r'nothing\.txt'):
        read_scene_scenario(tmp_path, 'nothing.txt', 'query.txt', 2.0)


def test_death_of_a_node_is_reported_with_the_end_of_its_log(tmp_path):
    child = ChildNode('broken', 'nowhere_to_be_found:main', '/coam', {}, tmp_path / 'log')
    with child:
        child._process.wait(30.0)
        with pytest.raises(NodeDiedError, match=r'(?s)broken ended.*nowhere_to_be_found'):
            child.check()


def test_node_that_ignores_the_interrupt_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr('coam_ros.demo.child_node._STOP_TIMEOUT_S', 0.2)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    (tmp_path / 'deaf_node.py').write_text(
        'import signal, time\n'
        'def main():\n'
        '    signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
        '    print("ready", flush=True)\n'
        '    time.sleep(600)\n'
    )
    log = tmp_path / 'log'
    child = ChildNode('deaf', 'deaf_node:main', '/coam', {'map_path': 'a: b'}, log)
    wait_until(lambda: 'ready' in log.read_text())
    child.check()
    assert child.peak_memory_bytes() > 2**20
    child.stop()
    with pytest.raises(NodeDiedError, match=f'status -{signal.SIGKILL.value}'):
        child.check()


def test_node_ends_when_the_demo_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{os.pathsep.join(sys.path)}')
    (tmp_path / 'patient_node.py').write_text(
        'import time\ndef main():\n    print("ready", flush=True)\n    time.sleep(600)\n'
    )
    log = tmp_path / 'log'
    demo = (
        'import pathlib, time; from coam_ros.demo.child_node import ChildNode; '
        f'child = ChildNode("patient", "patient_node:main", "/", {{}}, pathlib.Path("{log}")); '
        'print(child._process.pid, flush=True); time.sleep(600)'
    )
    with subprocess.Popen([sys.executable, '-c', demo], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        wait_until(lambda: 'ready' in log.read_text())
        parent.kill()
    wait_until(lambda: 'KeyboardInterrupt' in log.read_text())
    wait_until(lambda: not is_running(pid))


def wait_until(claim):
    deadline_s = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().split(') ')[1][0] != 'Z'
    except OSError:
        return False
