"""`coam bench` from the command line to the report, with SIFT and with our real model."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
import re
import shlex
import signal
import subprocess
import sys
import time

from bench_samples import pair_line, write_image, write_sequence
from coam_ros.cli import main
from coam_ros.evaluation.data.sweep import SWEEPS
from coam_ros.evaluation.matchers.matcher import PEER_WORKER
from coam_ros.evaluation.reports.benchmark_html import make_html
from coam_ros.evaluation.reports.benchmark_report import (
    compare_results,
    make_result,
    tabulate,
    verdict,
)
import cv2
import numpy as np
import pytest
from recording_samples import write_recording


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """Three pairs of an image with itself."""
    directory = tmp_path / 'planes'
    for name in ('a', 'b', 'c'):
        write_sequence(directory / name, [np.eye(3)])
        (directory / name / '2.png').write_bytes((directory / name / '1.png').read_bytes())
    return directory


# The real worker with a matcher that moves nothing and dies on images whose first pixel is 2.
DYING_WORKER = """
import os, sys
sys.path.insert(0, {benchmarks!r})
import numpy as np
from peer_worker import serve

def match(image0, image1):
    if image0[0, 0, 0] == 2:
        print('out of memory', file=sys.stderr, flush=True)
        os._exit(9)
    points = np.random.default_rng(0).uniform((20, 20), (600, 440), (50, 2))
    return np.column_stack([points, points, np.ones(50)])

serve(lambda: match, lambda: 'still of nobody 1')
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where matches are kept, by default."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'caches'))
    return tmp_path / 'caches/coam_ros/bench'


def bench(*words: object) -> int:
    alone = [] if words[0] == '--compare' else ['--peers', 'none']
    return main(['bench', *map(str, words), *alone])


def test_report_holds_protocol_settings_figures_and_every_pair(sequences, tmp_path, capsys):
    out = tmp_path / 'new' / 'report.json'
    assert bench('homography', sequences, '--matcher', 'sift', '--every', 2, '--out', out) == 0
    report = json.loads(out.read_text())
    assert report['benchmark'] == 'homography'
    assert '640 x 480' in report['protocol']
    settings = {'every': 2, 'threads': None, 'estimator': 'poselib', 'network_alone': False}
    assert report['settings'] == settings
    (result,) = report['results']
    assert (result['data_set'], result['matcher']) == ('planes', 'sift')
    assert result['model_id'].startswith('opencv')
    assert re.match('[0-9a-f]{40}|coam_ros ', report['commit'])
    assert len(result['data_hash']) == len(result['matcher_hash']) == 16
    assert result['summary']['mma_1px'] > 0.95  # an image with itself
    assert result['summary']['auc_3px'] > 0.95
    names = [pair['name'] for pair in result['per_pair']]
    assert names == ['a 1.png 2.png', 'c 1.png 2.png']
    # The second pair shows the same images as the first one, whose matches are kept.
    assert result['per_pair'][0]['duration_s'] > 0
    assert result['per_pair'][1]['duration_s'] is None
    low, high = result['intervals']['mma_1px']
    assert low <= result['summary']['mma_1px'] <= high
    assert {path.name for path in out.parent.iterdir()} == {
        'report.json',
        'report.html',
        'report.png',
    }
    page = (out.parent / 'report.html').read_text()
    assert report['commit'] in page
    # The plot, and of two pairs the better and the worse.
    assert page.count('src="data:image/png;base64,') == 1
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert 'http' not in page
    assert 'mma 3px' in capsys.readouterr().out


def pictures_of(page: str) -> dict[str, np.ndarray]:
    """Give the pictures of matches in a report by their captions."""
    found = re.findall(r'base64,([^"]*)"><figcaption>(among|.*?: among)(.*?)<', page)
    return {
        words + rest: cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1)
        for data, words, rest in found
    }


def test_pictures_are_those_of_the_worst_and_of_the_best_pair(sequences, tmp_path):
    # Nothing is worse than no homography at all.
    assert cv2.imwrite(str(sequences / 'b/2.png'), np.full((240, 320, 3), 128, np.uint8))
    (sequences / 'c/H_1_2').write_text('1 0 9  0 1 0  0 0 1')
    out = tmp_path / 'report.json'
    words = ['--matcher', 'orb', '--matcher', 'sift', '--pictures', 1, '--out', out]
    assert bench('homography', sequences, *words) == 0
    pictures = pictures_of(out.with_suffix('.html').read_text())
    captions = list(pictures)
    assert len(captions) == 4
    for matcher, worst, best in (('orb', *captions[:2]), ('sift', *captions[2:])):
        assert re.fullmatch(
            rf'planes, {matcher}: among the worst: b 1.png 2.png, 0 matches, .* none', worst
        )
        assert best.startswith(f'planes, {matcher}: among the best: a 1.png 2.png, ')
        # The right half of each shows its second image.
        flat, textured = (pictures[caption][:, -300:].std() for caption in (worst, best))
        assert flat < 5 < 20 < textured


def test_hashes_follow_the_content_and_nothing_else(sequences, tmp_path):
    def hashes(*words: object) -> dict:
        out = tmp_path / 'report.json'
        assert bench('homography', sequences, '--matcher', 'sift', '--out', out, *words) == 0
        (result,) = json.loads(out.read_text())['results']
        return {name: result[name] for name in ('data_hash', 'matcher_hash')}

    first = hashes()
    assert hashes('--threads', 1) == first
    assert hashes('--every', 2)['data_hash'] != first['data_hash']
    (sequences / 'a/H_1_2').write_text('1 0 1  0 1 0  0 0 1')
    changed = hashes()
    assert changed['data_hash'] != first['data_hash']
    assert changed['matcher_hash'] == first['matcher_hash']


def test_an_interrupted_run_continues(tmp_path, cache):
    for number in range(8):
        write_sequence(tmp_path / 'planes' / f'v_{number}', [np.eye(3)])
        write_image(tmp_path / 'planes' / f'v_{number}/1.png', 100 + number)
    out = tmp_path / 'report.json'
    words = ['homography', tmp_path / 'planes', '--matcher', 'sift', '--threads', 1, '--out', out]
    command = [sys.executable, '-m', 'coam_ros.cli', 'bench', *map(str, words)]
    # Tests that a shell started in the background ignore SIGINT, and their children would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(cache.rglob('*.npz')) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[1].endswith('Interrupted.\n')
    assert child.returncode == 130
    kept = len(list(cache.rglob('*.npz')))
    assert 0 < kept < 8
    assert not list(cache.rglob('*.part'))
    assert bench(*words) == 0
    (result,) = json.loads(out.read_text())['results']
    assert result['kept_matches'] == kept
    assert result['summary']['pairs'] == 8
    durations_s = [pair['duration_s'] for pair in result['per_pair']]
    assert durations_s[:kept] == [None] * kept
    assert all(duration_s > 0 for duration_s in durations_s[kept:])
    # Once more, all from what is kept, and then nothing of it.
    assert bench(*words) == 0
    (again,) = json.loads(out.read_text())['results']
    assert again['kept_matches'] == 8
    assert again['summary']['median_ms_per_pair'] is None
    figures = ('errors', 'corner_errors_px', 'accuracy', 'num_matches')
    for pair, former in zip(again['per_pair'], result['per_pair'], strict=True):
        assert all(pair.get(name) == former.get(name) for name in figures)
    assert bench(*words, '--fresh', '--every', 8) == 0
    assert json.loads(out.read_text())['results'][0]['kept_matches'] == 0


def test_all_names_the_matchers_that_are_absent(sequences, tmp_path, capsys):
    out = tmp_path / 'report.json'
    assert bench('homography', sequences, '--matcher', 'all', '--every', 3, '--out', out) == 0
    report = json.loads(out.read_text())
    assert [result['matcher'] for result in report['results']] == ['ours', 'sift', 'orb']
    assert set(report['absent']) == {'xfeat', 'aliked-lightglue', 'disk-lightglue'}
    output = ' '.join(capsys.readouterr().out.split())
    assert 'Left out: xfeat.' in output
    assert 'setup_peers.sh' in output
    assert 'left out: xfeat' in out.with_suffix('.html').read_text()


def mark(path: Path) -> None:
    """Let `dying_peer` die on a pair whose first image this is."""
    image = cv2.imread(str(path))
    image[:4, :4] = 2
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def dying_peer(tmp_path: Path) -> Path:
    """Stand where the interpreter of the peers does, and run `DYING_WORKER`."""
    worker = tmp_path / 'worker.py'
    worker.write_text(DYING_WORKER.format(benchmarks=str(PEER_WORKER.parent)))
    python = tmp_path / 'python'
    python.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(worker))}\n'
    )
    python.chmod(0o755)
    return python


def test_a_peer_that_dies_on_one_pair_fails_that_pair_alone(
    sequences, dying_peer, tmp_path, capsys
):
    mark(sequences / 'b/1.png')
    out = tmp_path / 'report.json'
    words = ['homography', sequences, '--matcher', 'xfeat', '--peers', dying_peer, '--out', out]
    assert main(['bench', *map(str, words)]) == 0
    (result,) = json.loads(out.read_text())['results']
    assert list(result['failures']) == ['b 1.png 2.png']
    assert 'out of memory' in result['failures']['b 1.png 2.png']
    assert result['summary']['failed_pairs'] == 1
    assert result['summary']['mma_3px'] == pytest.approx(2 / 3)
    output = ' '.join(capsys.readouterr().out.split())
    assert 'xfeat failed on planes, b 1.png 2.png' in output
    page = out.with_suffix('.html').read_text()
    assert 'out of memory' in page
    # There is nothing to see of it.
    assert not [caption for caption in pictures_of(page) if 'b 1.png' in caption]


def test_a_scene_with_one_failed_pair_is_no_error(dying_peer, tmp_path, capsys):
    scene = tmp_path / 'scene'
    scene.mkdir()
    for number in range(3):
        write_image(scene / f'{number}.png', number)
    mark(scene / '1.png')
    words = ['sfm', scene, '--matcher', 'xfeat', '--peers', dying_peer, '--threads', 1]
    assert main(['bench', *map(str, words)]) == 0
    output = ' '.join(capsys.readouterr().out.split())
    assert 'xfeat failed on scene, scene: 1.png 2.png: xfeat ended with status 9' in output
    assert 'every pair' not in output


def test_a_matcher_that_answers_nothing_is_an_error(sequences, tmp_path, capsys):
    worker = tmp_path / 'python'
    worker.write_text('#!/bin/sh\necho \'{"ready": "nothing 1"}\'\n')
    worker.chmod(0o755)
    words = ['homography', sequences, '--matcher', 'xfeat', '--peers', worker]
    assert main(['bench', *map(str, words)]) == 1
    assert 'xfeat failed on every pair of planes' in ' '.join(capsys.readouterr().out.split())


def test_two_models_stand_side_by_side(sequences, tmp_path):
    model = Path(__file__).parents[2] / 'models/default'
    (tmp_path / 'other').symlink_to(model)
    out = tmp_path / 'report.json'
    words = ['--model', model, '--model', tmp_path / 'other', '--every', 3, '--out', out]
    assert bench('homography', sequences, *words) == 0
    results = json.loads(out.read_text())['results']
    assert [result['matcher'] for result in results] == [
        f'ours {model}',
        f'ours {tmp_path / "other"}',
    ]
    assert results[0]['summary']['mma_3px'] == results[1]['summary']['mma_3px'] > 0.9


def test_lost_pairs_are_null_in_the_report(tmp_path):
    write_image(tmp_path / '0.png', 0)
    assert cv2.imwrite(str(tmp_path / '1.png'), np.full((240, 320, 3), 128, np.uint8))
    names = [('0.png', '1.png'), ('1.png', '1.png'), ('1.png', '0.png')]
    (tmp_path / 'pairs.txt').write_text(''.join(pair_line(*both, np.eye(4)) for both in names))
    out = tmp_path / 'report.json'
    assert bench('pose', tmp_path, '--matcher', 'sift', '--every', 2, '--out', out) == 0
    (result,) = json.loads(out.read_text())['results']
    assert [pair['name'] for pair in result['per_pair']] == ['0.png 1.png', '1.png 0.png']
    assert [pair['errors_deg'] for pair in result['per_pair']] == [[None] * 3] * 2
    assert result['summary']['auc_20deg'] == 0


@pytest.mark.parametrize('kind', ['homography', 'ranking'])
def test_a_plot_lies_beside_the_report(sequences, tmp_path, kind):
    words = ['--matcher', 'sift', '--every', 3, '--out', tmp_path / 'run.json']
    assert bench(kind, sequences, *words) == 0
    plot = cv2.imread(str(tmp_path / 'run.png'))
    assert min(plot.shape[:2]) > 200
    assert plot.std() > 5  # more than white paper


def test_sweep_takes_as_many_photos_as_it_is_told(tmp_path):
    (tmp_path / 'photos').mkdir()
    for number in range(2):
        write_image(tmp_path / f'photos/{number}.png', number)
    out = tmp_path / 'run.json'
    words = ['--matcher', 'orb', '--photos', 1, '--out', out]
    assert bench('sweep', tmp_path / 'photos', *words) == 0
    (result,) = json.loads(out.read_text())['results']
    assert result['summary']['pairs'] == sum(len(change.levels) for change in SWEEPS.values())


def test_runs_lie_side_by_side_and_are_compared(sequences, tmp_path, capsys):
    runs = [tmp_path / f'{name}.json' for name in ('first', 'second')]
    words = ['homography', sequences, '--matcher', 'sift', '--out']
    assert bench(*words, runs[0]) == 0
    assert bench(*words, runs[1], '--estimator', 'opencv', '--compare', runs[0]) == 0
    out = tmp_path / 'both.json'
    assert main(['bench', '--compare', *map(str, runs), '--out', str(out)]) == 0
    report = json.loads(out.read_text())
    wanted = ['sift (first)', 'sift (second)', 'sift (first) (second)']
    assert [result['matcher'] for result in report['results']] == wanted
    comparison = report['comparisons'][1]
    assert (comparison['a'], comparison['b']) == (wanted[0], wanted[2])
    # The same run: no difference, and surely so.
    assert comparison['figures']['mma_3px'] == {
        'difference': 0,
        'interval': [0, 0],
        'p_value': 1,
    }
    assert report['compared_with'].keys() == {'first', 'second'}
    # They differ in the estimator, and say so.
    assert 'estimator poselib' in report['compared_with']['first']
    assert 'estimator opencv' in report['compared_with']['second']
    errors = [[pair['corner_errors_px'] for pair in r['per_pair']] for r in report['results']]
    assert errors[0] == errors[2] != errors[1]
    output = ' '.join(capsys.readouterr().out.split())
    assert 'planes: sift (first) against sift (second)' in output
    assert 'sift (second)' in out.with_suffix('.html').read_text()


def test_runs_side_by_side_want_a_report_of_json(sequences, tmp_path, capsys):
    run = tmp_path / 'run.json'
    assert bench('homography', sequences, '--matcher', 'sift', '--out', run) == 0
    assert bench('--compare', run, '--out', tmp_path / 'both.html') == 2
    assert 'ends with .json' in capsys.readouterr().err
    assert not (tmp_path / 'both.html').exists()


def test_former_runs_without_a_figure_are_to_be_measured_again(sequences, tmp_path, capsys):
    out = tmp_path / 'run.json'
    assert bench('homography', sequences, '--matcher', 'sift', '--out', out) == 0
    report = json.loads(out.read_text())
    for pair in report['results'][0]['per_pair']:
        del pair['accuracy']
    (tmp_path / 'old.json').write_text(json.dumps(report))
    assert main(['bench', '--compare', str(out), str(tmp_path / 'old.json')]) == 2
    error = capsys.readouterr().err
    assert 'accuracy' in error
    assert 'measure again' in error


def test_a_difference_to_a_median_that_is_lost_is_no_figure(sequences, tmp_path):
    runs = [tmp_path / f'{name}.json' for name in ('some', 'none')]
    for path in runs:
        assert bench('homography', sequences, '--matcher', 'sift', '--out', path) == 0
    report = json.loads(runs[1].read_text())
    report['benchmark'] = 'localize'
    for pair, error in zip(report['results'][0]['per_pair'], (0.1, None, None), strict=True):
        pair |= {'is_within': {}, 'translation_error_m': error, 'rotation_error_deg': error}
    runs[1].write_text(json.dumps(report))
    for pair in report['results'][0]['per_pair']:
        pair |= {'translation_error_m': 0.1, 'rotation_error_deg': 0.1}
    runs[0].write_text(json.dumps(report))
    out = tmp_path / 'both.json'
    assert main(['bench', '--compare', *map(str, runs), '--out', str(out)]) == 0
    (comparison,) = json.loads(out.read_text())['comparisons']
    assert 'mean_matches' in comparison['figures']
    assert 'median_error_cm' not in comparison['figures']
    assert out.with_suffix('.html').is_file()


def test_verdict_calls_better_what_has_more_right_and_less_error_and_time():
    differences = {
        'auc_5deg': 0.1,
        'median_error_cm': -2.0,
        'median_ms_per_pair': 30.0,
        'epipolar_precision': -0.1,
        'mean_matches': 500.0,
    }
    figures = {name: {'difference': x, 'p_value': 0.01} for name, x in differences.items()}
    figures['auc_10deg'] = {'difference': 0.1, 'p_value': 0.2}
    comparison = {'data_set': 'room', 'a': 'ours', 'b': 'sift', 'figures': figures}
    assert verdict(comparison) == (
        'room: ours against sift: '
        'better in auc_5deg (+10.0, p 0.010), median_error_cm (-2.00, p 0.010); '
        'worse in median_ms_per_pair (+30, p 0.010), epipolar_precision (-10.0, p 0.010); '
        'no difference shown in 1 figures.'
    )


def test_page_tells_of_each_data_set_which_matcher_is_the_better_one():
    def found(data_set: str, matcher: str, share: float) -> dict:
        identity = {'data_set': data_set, 'matcher': matcher, 'model_id': 'model'}
        identity |= {'data_hash': f'of {data_set}', 'matcher_hash': f'of {matcher}'}
        keys = {'num_matches': 9, 'duration_s': None, 'failure': None, 'share': share}
        outcomes = [{'name': str(number), **keys} for number in range(20)]
        return make_result(identity, outcomes, mean_share, 50)

    def mean_share(outcomes) -> dict:
        return {'auc_5deg': float(np.mean([outcome['share'] for outcome in outcomes]))}

    results = [found('room', 'ours', 0.75), found('room', 'sift', 0.5)]
    results += [found('garden', 'ours', 0.25), found('garden', 'sift', 1.0)]
    words = ('benchmark', 'protocol', 'statistics', 'command', 'commit', 'date', 'machine')
    report = {**dict.fromkeys(words, ''), 'python': '', 'settings': {}, 'absent': {}}
    report |= {'compared_with': {'monday': 'commit a<b'}}
    report |= {'comparisons': compare_results(results, mean_share, 1000)}
    page = make_html(report, results, None, [])
    room, garden = page[page.index('<h2>room') :].split('<h2>garden')
    assert '<td>75.0 ±0.0</td><td>50.0 ±0.0</td>' in room
    assert 'room: ours against sift: better in auc_5deg (+25.0' in room
    assert '<td>25.0 ±0.0</td><td>100.0 ±0.0</td>' in garden
    assert 'garden: ours against sift: worse in auc_5deg (-75.0' in garden
    assert '<td>compared with monday</td><td>commit a&lt;b</td>' in page
    header = '<th>hash of the data</th><th>hash of the matcher</th>'
    assert header in page
    assert '<td>of garden</td><td>of ours</td>' in page


def test_table_tells_percent_milliseconds_and_half_the_width_of_an_interval():
    rows = [('a', 10, 0.02, None), ('b', 20, None, 'out of memory'), ('c', 60, 0.04, None)]
    keys = ('name', 'num_matches', 'duration_s', 'failure')
    outcomes = [dict(zip(keys, row, strict=True)) for row in rows]
    identity = {'data_set': 'room', 'matcher': 'sift'}
    figures = {'auc_5deg': 0.5, 'success_tilt': 0.25, 'recall_10cm_5deg': 0.75}
    # For plots alone.
    figures |= {'mma_8px': 0.5, 'success at tilt 30': 0.5}
    result = make_result(identity, outcomes, lambda _: figures, 10)
    names, rows = tabulate([{**result, 'intervals': {'auc_5deg': [0.4, 0.6]}}], 'room')
    assert names == ['sift']
    assert dict(rows) == {
        'auc 5deg': '50.0 ±10.0',
        'success tilt': '25.0',
        'recall 10cm 5deg': '75.0',
        'mean matches': '30',
        'median ms per pair': '30',
        'pairs': '3',
        'failed pairs': '1',
    }


def test_times_of_different_runs_are_not_compared(sequences, tmp_path):
    words = ['homography', sequences, '--every', 1, '--fresh', '--cache', tmp_path / 'cache']
    two = ['--matcher', 'sift', '--matcher', 'ours']
    assert bench(*words, *two, '--out', tmp_path / 'both.json') == 0
    assert (
        bench(*words, *two[:2], '--compare', tmp_path / 'both.json', '--out', tmp_path / 'x.json')
        == 0
    )
    assert bench('--compare', tmp_path / 'both.json', '--out', tmp_path / 'y.json') == 0

    def timed(name):
        report = json.loads((tmp_path / name).read_text())
        return ['median_ms_per_pair' in c['figures'] for c in report['comparisons']]

    assert timed('both.json') == timed('y.json') == [True]
    assert timed('x.json') == [False, False]


def test_an_absent_matcher_shows_before_another_is_measured(sequences, tmp_path, capsys):
    out = tmp_path / 'report.json'
    words = ['--matcher', 'sift', '--matcher', 'xfeat', '--out', out]
    assert bench('homography', sequences, *words) == 2
    assert 'xfeat' in capsys.readouterr().err
    assert not out.exists()


def test_runs_of_other_data_are_not_compared(sequences, tmp_path, capsys):
    words = ['homography', sequences, '--matcher', 'sift', '--every']
    for number in (1, 2):
        assert bench(*words, number, '--out', tmp_path / f'{number}.json') == 0
    assert bench('--compare', tmp_path / '1.json', tmp_path / '2.json') == 2
    assert 'not the same' in capsys.readouterr().err
    # Before anything is matched: there is no report.
    words += [1, '--out', tmp_path / '3.json', '--compare', tmp_path / '2.json']
    assert bench(*words) == 2
    assert 'not the same' in capsys.readouterr().err
    assert not (tmp_path / '3.json').exists()


def test_broken_reports_are_named(tmp_path, capsys):
    (tmp_path / 'a.json').write_text('{"benchmark": "pose"}')
    (tmp_path / 'b.json').write_text('{')
    for kind in ('pose', 'sfm', 'magic'):
        text = json.dumps({'benchmark': kind, 'commit': 'none', 'results': []})
        (tmp_path / f'{kind}.json').write_text(text)
    for words, message in [
        ([], 'Nothing to measure'),
        (['--compare', tmp_path / 'a.json'], 'lacks commit, results'),
        (['--compare', tmp_path / 'b.json'], 'is no report'),
        (['--compare', tmp_path / 'none.json'], 'No report'),
        (['--compare', tmp_path / 'pose.json', tmp_path / 'sfm.json'], 'several benchmarks'),
        (['--compare', tmp_path / 'pose.json', tmp_path / 'pose.json'], 'equal names'),
        (['--compare', tmp_path / 'magic.json'], "Unknown benchmark 'magic'"),
    ]:
        assert main(['bench', *map(str, words)]) == 2
        assert message in capsys.readouterr().err


def test_localization_differs_in_the_matcher_alone(tmp_path):
    write_recording(tmp_path)
    out = tmp_path / 'report.json'
    words = ['--matcher', 'ours', '--matcher', 'sift', '--num-keyframes', 2, '--out', out]
    assert bench('localize', tmp_path, *words) == 0
    ours, sift = json.loads(out.read_text())['results']
    for result in (ours, sift):
        assert result['summary']['pairs'] == 1
        assert result['summary']['recall_10cm_5deg'] == 1
        # Depth and poses are exact; what is left are the matches, of about a pixel = 5 mm.
        assert result['summary']['median_error_cm'] < 3
    assert 'without view search' in ours['model_id']
    (query_ours,), (query_sift,) = ours['per_pair'], sift['per_pair']
    assert query_ours['keyframe_ids'] == query_sift['keyframe_ids']
    assert query_ours['num_matches'] != query_sift['num_matches']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('pose {none}', 'No folder'),
        ('pose {empty}', 'No pair list'),
        ('homography {empty}', 'No pairs'),
        ('ranking {empty}', 'No pairs'),
        ('localize {empty}', 'none of the layouts'),
        ('sfm {empty}', '0 images'),
        ('homography {sequences} --every 0', '--every 0'),
        ('homography {sequences} --out report.txt', 'ends with .json'),
        ('homography {sequences} --out /proc/none/report.json', 'folder cannot be made'),
        ('homography {sequences} {sequences}', 'equal names'),
        ('homography {sequences} --matcher ours --threads -1', 'threads is -1'),
        ('homography {sequences} --matcher xfeat', 'not installed'),
        ('homography {sequences} --model {empty}', 'manifest'),
    ],
)
def test_error_of_the_user_is_one_line_and_status_2(sequences, tmp_path, capsys, words, message):
    (tmp_path / 'empty').mkdir()
    places = {
        'none': tmp_path / 'none',
        'empty': tmp_path / 'empty',
        'sequences': sequences,
    }
    assert bench(*words.format(**places).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
