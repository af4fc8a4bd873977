"""The parts of the demo that need no ROS: scenarios, score, report, child processes."""

from __future__ import annotations

import argparse
from dataclasses import replace
import itertools
import json
import os
from pathlib import Path
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings

from coam_ros.cli import main
from coam_ros.demo.child_node import ChildNode, NodeDiedError, own_transport
from coam_ros.demo.figures import describe_figures
from coam_ros.demo.room_scenario import (
    _live_steps,
    _mapping_poses,
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

# An installation by pip is tested too, with what it has.
_NO_EXTRA = 'the extra `demo` is not installed; ./run test brings it'


@pytest.fixture
def ros():
    """For what the demo does over nodes; all else is tested in an installation by pip too."""
    pytest.importorskip('rclpy', reason='ROS 2 is not here; ./run test brings it')


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
    assert summary['answers_hz'] == pytest.approx(8 / 4.5)
    assert summary['latency_ms']['match'] == pytest.approx({'median': 300, 'p95': 300})
    assert summary['latency_ms']['end_to_end']['median'] == pytest.approx(1000 * LATENCY_S)


def test_a_reason_that_only_the_node_knows_is_counted(played):
    scenario, recording = played
    answers = list(recording.answers)
    result = replace(answers[6].result, failure=None)
    answers[6] = replace(answers[6], reason='not_confirmed', result=result)
    summary = score(scenario, make_recording(answers)).summary
    assert summary['failures'] == {'not_confirmed': 1}


def test_figures_are_told_in_words(played):
    scenario, recording = played
    answers = list(recording.answers)
    # The slowest of eight.
    answers[0] = replace(answers[0], latency_s=5 * LATENCY_S)
    figures = dict(describe_figures(score(scenario, make_recording(answers)).summary))
    assert figures['images sent, answered, dropped (for a newer one)'] == '10, 8, 2 (2)'
    assert figures['error of localized, median (largest)'].startswith('1.00 cm (30.0 cm), ')
    assert figures['latency, median (95 %) [ms]'].endswith('end_to_end 250 (900)')
    assert figures['peak memory of the matcher'] == '100 MiB'


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
    assert [bar.is_met for bar in good.bars] == [True] * 6
    refusing = score(scenario, make_recording([failed_answer()] * 8))
    assert [bar.is_met for bar in refusing.bars] == [False, False, True, False, True, False]


def missed_bars(scenario, answers):
    bars = score(scenario, make_recording(answers)).bars
    return [bar.name for bar in bars if not bar.is_met]


def test_a_matcher_that_drops_most_images_or_hangs_misses_a_bar():
    unmapped = set(range(15, 25))
    scenario = make_scenario(40, unmapped, kidnappings=(10, 30))
    answers = [
        failed_answer() if i in unmapped else pose_answer(i, offset_m=2.0 * STD_M)
        for i in range(40)
    ]
    # A slow machine: an answer each 1.5 s.
    slow = [answer if i % 3 == 0 else None for i, answer in enumerate(answers)]
    assert missed_bars(scenario, slow) == []
    hanging = answers[:31] + [None] * 9
    assert missed_bars(scenario, hanging) == [
        'longest time without such a pose while the place is mapped'
    ]
    two_answers = [answer if i in (10, 30) else None for i, answer in enumerate(answers)]
    assert 'longest time without such a pose while the place is mapped' in missed_bars(
        scenario, two_answers
    )


@pytest.mark.parametrize(
    ('unrecognised', 'wanted'),
    [
        # Two seconds before the camera is carried away and two after.
        (range(16, 24), ['within 5 cm and 2 deg']),
        (
            range(20, 28),
            [
                'within 5 cm and 2 deg',
                'longest time without such a pose while the place is mapped',
                'recovery from a kidnapping',
            ],
        ),
    ],
)
def test_a_matcher_that_takes_long_at_a_new_place_misses_bars(unrecognised, wanted):
    scenario = make_scenario(40, set(), kidnappings=(20,))
    answers = [
        failed_answer() if i in unrecognised else pose_answer(i, offset_m=2.0 * STD_M)
        for i in range(40)
    ]
    assert missed_bars(scenario, answers) == wanted


def test_silence_in_an_unmapped_place_is_not_the_knowledge_that_it_is_unmapped():
    # The shortest visit, too: no answer there is no merit however soon it ends.
    for unmapped in ({3}, set(range(3, 13))):
        scenario = make_scenario(16, unmapped, kidnappings=())
        answers = [
            None if i in unmapped else pose_answer(i, offset_m=2.0 * STD_M) for i in range(16)
        ]
        assert missed_bars(scenario, answers) == [
            'longest time without an answer while the place is not mapped'
        ]


def test_report_holds_the_promised_keys_and_is_json(played, tmp_path):
    result = score(*played)
    queries = [outcome for outcome in result.outcomes if outcome]
    write_json(tmp_path / 'report.json', make_report(result.summary, queries))
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report.keys() >= KEYS
    assert len(report['per_query']) == 6


@pytest.mark.parametrize('answered', [(1,), range(4)])
def test_run_without_any_pose_is_reported_in_words_and_as_json(answered, tmp_path):
    # Image 1 is of an unmapped place: its answer alone is no query.
    scenario = make_scenario(4, unmapped={1}, kidnappings=(2,))
    answers = [failed_answer() if i in answered else None for i in range(4)]
    result = score(scenario, make_recording(answers))
    queries = [outcome for outcome in result.outcomes if outcome]
    write_json(tmp_path / 'report.json', make_report(result.summary, queries))
    met = json.loads((tmp_path / 'report.json').read_text())['bars_met']
    assert not met['within 5 cm and 2 deg']
    assert 'nan' not in f'{describe_figures(result.summary)} {result.bars}'


def test_page_stands_alone_and_shows_plots_and_matches(played):
    pytest.importorskip('matplotlib', reason=_NO_EXTRA)
    from coam_ros.demo.html_report import make_html

    scenario, recording = replace(played[0], title='a<b'), played[1]
    keyframe_map = KeyframeMap(scenario.map_frames)
    page = make_html(scenario, recording, score(scenario, recording), keyframe_map, './run demo')
    assert 'a&lt;b' in page
    assert 'images sent, answered, dropped (for a newer one)' in page
    assert 'dropped for a newer one or lost on the way' in page
    assert 'keyframe_position_std_m 0, keyframe_rotation_std_deg 0' in page
    assert 'NOT met' in page
    largest = re.search(r'The pose with the largest error, at 1\.5 s: [^<]*', page)
    assert 'off by 30.0 cm and 0.00 deg' in largest[0]
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 6
    assert all(source.startswith('data:image/') for source in sources)


def test_page_of_a_run_without_any_pose_is_made_too():
    pytest.importorskip('matplotlib', reason=_NO_EXTRA)
    from coam_ros.demo.html_report import make_html

    scenario = make_scenario(4, unmapped={1}, kidnappings=(2,))
    recording = make_recording([failed_answer(), failed_answer(), None, failed_answer()])
    result = score(scenario, recording)
    assert 'NOT met' in make_html(scenario, recording, result, KeyframeMap(), './run demo')


def test_latency_is_plotted_with_what_old_and_new_matplotlib_take(played, monkeypatch):
    pytest.importorskip('matplotlib', reason=_NO_EXTRA)
    from coam_ros.demo.plots import plot_latency
    from matplotlib.axes import Axes

    boxplot = Axes.boxplot

    def boxplot_of_every_version(self, x, positions, whis, showfliers):
        return boxplot(self, x, positions=positions, whis=whis, showfliers=showfliers)

    monkeypatch.setattr(Axes, 'boxplot', boxplot_of_every_version)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert plot_latency(played[1]).startswith(b'\x89PNG')


def test_rerun_recording_is_written_without_complaints(played, tmp_path):
    pytest.importorskip('rerun', reason=_NO_EXTRA)
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


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('--seed 7 --scene {path}', '--seed is 7, wanted it only without --scene'),
        ('--duration 20 --scene {path}', '--duration is 20.0, wanted it only without --scene'),
        ('--map-frames a.txt', '--map-frames is a.txt, wanted it only with --scene'),
        ('--live-frames a.txt', '--live-frames is a.txt, wanted it only with --scene'),
        ('--rate 30 --duration 3600', '108000 images, wanted at most 20000'),
    ],
)
@pytest.mark.usefixtures('ros')
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, capsys, words, message
):
    out = tmp_path / 'report'
    assert main(['demo', *words.format(path=tmp_path).split(), '--out', str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures('ros')
def test_seed_below_zero_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        main(['demo', '--seed', '-1'])
    assert 'argument --seed: -1 is below 0' in capsys.readouterr().err


@pytest.mark.usefixtures('ros')
def test_report_names_the_whole_command_line():
    from coam_ros.demo.command import _command_line, add_arguments

    words = ['--scene', 'far/away room', '--rate', '3.0', '--out', 'there', '--model', 'models/x']
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert shlex.split(_command_line(parser.parse_args(words))) == ['./run', 'demo', *words]
    rendered = _command_line(parser.parse_args(['--seed', '0']))
    assert rendered == './run demo --seed 0 --out demo_report'


@pytest.fixture
def without_package(monkeypatch):
    """Hide a package, and forget those of ours that hold it."""

    def hide(name):
        for module in ('html_report', 'plots', 'rerun_recording'):
            monkeypatch.delitem(sys.modules, f'coam_ros.demo.{module}', raising=False)
            monkeypatch.delattr(f'coam_ros.demo.{module}', raising=False)
        for module in [m for m in sys.modules if m.split('.')[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.usefixtures('ros')
def test_missing_matplotlib_ends_the_demo_before_its_work(
    tmp_path, capsys, monkeypatch, without_package
):
    monkeypatch.setattr('coam_ros.demo.command.make_room_scenario', pytest.fail)
    without_package('matplotlib')
    assert main(['demo', '--out', str(tmp_path)]) == 2
    assert "'matplotlib'" in capsys.readouterr().err


@pytest.mark.usefixtures('ros')
def test_demo_without_rerun_reports_all_else_and_says_so(
    played, tmp_path, capsys, monkeypatch, without_package
):
    pytest.importorskip('matplotlib', reason=_NO_EXTRA)
    scenario, recording = played
    # Room and nodes take a minute: test/ros has them.
    monkeypatch.setattr('coam_ros.demo.command.make_room_scenario', lambda *_: scenario)
    monkeypatch.setattr('coam_ros.demo.command.play', lambda *_, **__: recording)
    without_package('rerun')
    (tmp_path / 'demo.rrd').write_text('of an earlier run')
    assert main(['demo', '--out', str(tmp_path)]) == 0
    assert 'No demo.rrd: ' in capsys.readouterr().out
    assert (tmp_path / 'report.html').exists()
    assert json.loads((tmp_path / 'report.json').read_text())['sent_frames'] == 10
    assert not (tmp_path / 'demo.rrd').exists()


@pytest.mark.usefixtures('ros')
def test_pose_without_a_status_is_an_answer_and_false_when_it_is_far_off():
    from coam_ros.demo.player import _Player, _ros, _stamp_of
    from geometry_msgs.msg import PoseWithCovarianceStamped

    scenario = make_scenario(1, unmapped=set(), kidnappings=())
    message = PoseWithCovarianceStamped()
    message.pose.pose.orientation.w = 1.0
    message.pose.pose.position.x = 5.0
    message.pose.covariance = np.eye(6).ravel()
    with _ros(domain_id=101) as (node, executor):
        message.header.stamp = node.get_clock().now().to_msg()
        player = _Player(scenario, node, executor, ())
        player._on_pose(message)
        answer = player.answer_of(_stamp_of(message.header))
    assert 0.0 <= answer.latency_s < 10.0
    summary = score(scenario, make_recording([answer])).summary
    assert summary['queries'] == summary['false_poses'] == 1


@pytest.mark.usefixtures('ros')
def test_an_answer_holds_all_that_the_matcher_said_of_its_image():
    from coam_msgs.msg import RelocalizationStatus
    from coam_ros.demo.player import _Player, _ros, _stamp_of
    from coam_ros.nodes.conversions import matches_to_message, pose_with_covariance
    from std_msgs.msg import Header

    numbers = {
        'num_matches': 30,
        'num_inliers': 20,
        'num_inlier_blocks': 10,
        'inlier_ratio': 0.75,
        'coverage': 0.5,
        'reprojection_error_px': 1.25,
    }
    wanted = replace(
        pose_answer(2, 0.1).result,
        **numbers,
        covariance=np.diag(np.arange(1.0, 7.0)),
        stage_durations_s={'encode': 0.25, 'match': 0.5},
    )
    status = RelocalizationStatus(
        state=RelocalizationStatus.LOCALIZED,
        message='said',
        keyframe_ids=wanted.keyframe_ids,
        stage_names=list(wanted.stage_durations_s),
        stage_durations_s=list(wanted.stage_durations_s.values()),
        latency_s=0.125,
        **numbers,
    )
    with _ros(domain_id=101) as (node, executor):
        player = _Player(make_scenario(1, set(), ()), node, executor, ())
        status.header = Header(stamp=node.get_clock().now().to_msg())
        player._on_status(status)
        player._on_pose(
            pose_with_covariance(wanted.T_map_camera, wanted.covariance, status.header)
        )
        names = {'map_frame_id': 'map', 'engine_id': 'engine'}
        sizes = dict.fromkeys(('query_size', 'keyframe_size'), (64, 48))
        for matches in wanted.keyframe_matches:
            player._on_matches(matches_to_message(matches, status.header, **names, **sizes))
        answer = player.answer_of(_stamp_of(status.header))
    assert (answer.state, answer.reason, answer.message) == ('localized', 'none', 'said')
    assert answer.latency_s == 0.125
    found = answer.result
    assert found.failure is None
    assert found.message == 'said'
    assert {name: getattr(found, name) for name in numbers} == numbers
    assert found.stage_durations_s == wanted.stage_durations_s
    assert found.keyframe_ids == wanted.keyframe_ids
    np.testing.assert_allclose(found.T_map_camera, wanted.T_map_camera)
    np.testing.assert_array_equal(found.covariance, wanted.covariance)
    (matches,) = found.keyframe_matches
    np.testing.assert_array_equal(matches.query_pixels, wanted.keyframe_matches[0].query_pixels)
    assert matches.inlier_mask.tolist() == [True, True, False]


@pytest.mark.usefixtures('ros')
def test_demo_waits_while_engines_are_built(monkeypatch):
    from coam_ros.demo import player
    from coam_ros.nodes.publishing import building_message
    from std_msgs.msg import Header

    monkeypatch.setattr(player, '_STARTUP_TIMEOUT_S', 1.0)
    scenario = make_scenario(1, unmapped=set(), kidnappings=())
    with player._ros(domain_id=101) as (node, executor):
        playing = player._Player(scenario, node, executor, ())
        begun = time.monotonic()
        done = begun + 1.5

        def answer(*_):
            if time.monotonic() < done:
                playing._on_status(building_message(Header(), 'build the encoder'))

        # The engine is not built in the end, and the matcher gives up without another word.
        monkeypatch.setattr(playing, '_send', answer)
        with pytest.raises(player.PlayError, match=r'its last status is no_engine'):
            playing.warm_up(begun)
        assert done < time.monotonic() < done + 5.0


@pytest.mark.usefixtures('ros')
def test_ros_that_fails_is_one_line_of_the_demo(tmp_path, monkeypatch):
    from coam_ros.demo.player import _ros, PlayError

    (tmp_path / 'file').touch()
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'file' / 'log'))
    with pytest.raises(PlayError, match=r'^ROS 2 fails: .*file/log.*$'), _ros(domain_id=101):
        pass


def test_nodes_stay_on_this_machine_and_log_into_the_report_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')
    monkeypatch.setenv('ROS_LOG_DIR', '/nowhere')
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', 'mine.xml')
    with own_transport(7, tmp_path):
        assert os.environ['ROS_DOMAIN_ID'] == '7'
        assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
        assert Path(os.environ['ROS_LOG_DIR']).parent == tmp_path
        assert os.environ['FASTDDS_DEFAULT_PROFILES_FILE'] == 'mine.xml'
        assert Path(os.environ['FASTRTPS_DEFAULT_PROFILES_FILE']).is_file()
    assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'SUBNET'


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
