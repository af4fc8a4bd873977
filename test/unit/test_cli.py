"""The command line, with the real model on a small exact scene."""

from __future__ import annotations

import json
from pathlib import Path
import shutil
import subprocess
import sys

from coam_ros.cli import _COMMANDS, main
from coam_ros.inference import default_model_directory
from coam_ros.inference.manifest import Manifest
import cv2
import pytest
from recording_samples import HEIGHT, WIDTH, write_recording

# The smallest input that the model takes is the quickest.
SMALL = ['--image-area', '131072']
# What not every machine with the unit tests has.
NEEDED = {'demo': 'rclpy', 'train': 'torch', 'import-checkpoint': 'torch', 'export': 'torch'}


@pytest.fixture(scope='module')
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp('recording')
    write_recording(directory)
    return directory


@pytest.fixture(scope='module')
def built_map(recording: Path) -> Path:
    path = recording / 'wall_map'
    words = ['map', 'build', '7scenes', str(recording), '--frames', 'map.txt', *SMALL]
    assert main([*words, '--out', str(path)]) == 0
    return path


def test_recording_becomes_a_map_in_which_another_view_is_localized(
    recording, built_map, tmp_path, capsys
):
    words = ['localize', str(recording), '--frames', 'query.txt', '--map', str(built_map)]
    assert main([*words, *SMALL, '--out', str(tmp_path), '--num-keyframes', '2']) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['queries'] == report['localized'] == 1
    assert report['recall_5cm_2deg'] == 1
    assert report['num_keyframes'] == 2
    assert report['map_keyframes'] == 3
    assert report['feature_cache']['misses'] == 2
    assert 1 < report['feature_cache']['mib'] < 100
    assert set(report['latency_ms']) == {'encode', 'retrieve', 'match', 'pose', 'total'}
    for name in ('top_view.png', 'errors.png', 'best_1_frame-000003.jpg'):
        assert (tmp_path / name).stat().st_size > 1000
    assert 'within 5 cm, 2 deg' in capsys.readouterr().out


def test_spacing_leaves_near_frames_out(recording, tmp_path, capsys):
    words = ['map', 'build', '7scenes', str(recording), '--frames', 'map.txt']
    assert main([*words, *SMALL, '--out', str(tmp_path / 'map'), '--min-distance', '0.39']) == 0
    assert '2 keyframes of 3 frames' in ' '.join(capsys.readouterr().out.split())


def test_map_without_depth_gets_its_3d_by_triangulation(recording, tmp_path, capsys):
    bare = tmp_path / 'bare'
    shutil.copytree(recording, bare, ignore=shutil.ignore_patterns('*.depth.png', 'wall_map'))
    path = tmp_path / 'map'
    words = ['map', 'build', '7scenes', str(bare), '--frames', 'map.txt', *SMALL]
    assert main([*words, '--out', str(path)]) == 0
    assert f'coam map triangulate {path}' in ' '.join(capsys.readouterr().out.split())
    assert main(['map', 'triangulate', str(path), *SMALL]) == 0
    assert '3 of 3 keyframes have landmarks' in ' '.join(capsys.readouterr().out.split())
    # All frames of the recording; the three best and what is left are drawn.
    words = ['localize', str(bare), '--map', str(path)]
    assert main([*words, *SMALL, '--out', str(tmp_path / 'report')]) == 0
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert (report['queries'], report['recall_5cm_2deg']) == (4, 1)
    drawn = sorted(file.stem.rsplit('_', 1) for file in (tmp_path / 'report').glob('*.jpg'))
    assert [kind for kind, _ in drawn] == ['best_1', 'best_2', 'best_3', 'worst_1']
    assert {frame for _, frame in drawn} == {f'frame-{i:06d}' for i in range(4)}
    # Landmarks that are there are somebody's.
    assert main(['map', 'triangulate', str(path), *SMALL]) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert main(['map', 'triangulate', str(path), *SMALL, '--overwrite']) == 0


@pytest.fixture
def standing(recording, tmp_path):
    """The recording without depth, of a camera that never moved: nothing to triangulate."""
    bare = tmp_path / 'bare'
    shutil.copytree(recording, bare, ignore=shutil.ignore_patterns('*.depth.png', 'wall_map'))
    for path in bare.glob('*.pose.txt'):
        path.write_bytes((bare / 'frame-000000.pose.txt').read_bytes())
    return bare


def test_map_without_motion_is_not_triangulated_and_stays(standing, tmp_path, capsys):
    path = tmp_path / 'map'
    words = ['map', 'build', '7scenes', str(standing), '--frames', 'map.txt', *SMALL]
    assert main([*words, '--out', str(path)]) == 0
    before = (path / 'map.json').read_bytes()
    assert main(['map', 'triangulate', str(path), *SMALL]) == 2
    assert 'nothing to triangulate' in capsys.readouterr().err
    assert (path / 'map.json').read_bytes() == before


def test_map_of_one_keyframe_is_not_triangulated_and_stays(recording, tmp_path, capsys):
    path = tmp_path / 'map'
    words = ['map', 'build', '7scenes', str(recording), '--frames', 'query.txt', *SMALL]
    assert main([*words, '--out', str(path)]) == 0
    before = (path / 'map.json').read_bytes()
    assert main(['map', 'triangulate', str(path), *SMALL]) == 2
    assert 'wanted at least 2 keyframes' in capsys.readouterr().err
    assert (path / 'map.json').read_bytes() == before


def test_triangulation_that_fails_leaves_the_descriptors_too(standing, tmp_path, capsys):
    path = tmp_path / 'a[map]'
    words = ['map', 'build', '7scenes', str(standing), '--frames', 'map.txt', *SMALL]
    assert main([*words, '--out', str(path)]) == 0
    # Brackets are a name here, and no style.
    assert f'{path}: 3 keyframes' in capsys.readouterr().out
    model = json.loads((path / 'map.json').read_text())['descriptor_model_id']
    text = (path / 'map.json').read_text().replace(model, 'another-model')
    (path / 'map.json').write_text(text)
    assert main(['map', 'triangulate', str(path), *SMALL]) == 2
    assert (path / 'map.json').read_text() == text


def test_report_goes_to_no_file_and_says_why_nothing_was_localized(
    recording, built_map, tmp_path, capsys
):
    words = ['localize', str(recording), '--frames', 'query.txt', '--map', str(built_map), *SMALL]
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit):
        main([*words, '--out', str(tmp_path / 'file')])
    assert 'is a file, wanted a folder' in capsys.readouterr().err
    assert main([*words, '--min-inliers', '4800']) == 0
    assert 'too_few_inliers, for example frame-000003: ' in capsys.readouterr().out


def test_info_says_what_is_in_a_map(built_map, capsys):
    assert main(['map', 'info', str(built_map)]) == 0
    lines = [line.strip('│').split('│') for line in capsys.readouterr().out.splitlines()]
    told = {cells[0].strip(): cells[1].strip() for cells in lines if len(cells) == 2}
    assert told['image sizes'] == f'{WIDTH} x {HEIGHT}'
    assert told['extent of positions'] == '0.80 x 0.00 x 0.00 m'
    names = ('keyframes', 'with depth', 'with landmarks', 'with descriptor')
    assert [told[name] for name in names] == ['3', '3', '0', '3']
    assert told['frame'] == 'map'
    assert told['descriptors by'] == Manifest.load(default_model_directory()).descriptor_model_id
    num_bytes = sum(file.stat().st_size for file in built_map.rglob('*') if file.suffix != '.json')
    assert told['size'] == f'{num_bytes / 2**20:.1f} MiB'


def test_map_of_another_model_is_described_again(built_map, tmp_path, recording, capsys):
    from coam_ros.mapping.keyframe_map import KeyframeMap
    from coam_ros.mapping.storage import load_map, save_map

    path = tmp_path / 'map'
    save_map(KeyframeMap(load_map(built_map), descriptor_model_id='another-model'), path)
    words = ['localize', str(recording), '--frames', 'query.txt', '--map', str(path)]
    assert main([*words, *SMALL, '--num-keyframes', '1']) == 0
    assert 'coam map describe' in ' '.join(capsys.readouterr().out.split())
    assert main(['map', 'describe', str(path), *SMALL]) == 0
    assert load_map(path).descriptor_model_id != 'another-model'


def test_match_draws_a_picture_of_both_images(recording, tmp_path, capsys):
    images = [str(recording / f'frame-00000{i}.color.jpg') for i in (1, 3)]
    assert main(['match', *images, *SMALL, '--out', str(tmp_path / 'new' / 'matches.png')]) == 0
    picture = cv2.imread(str(tmp_path / 'new' / 'matches.png'))
    assert picture.shape == (HEIGHT, 2 * WIDTH + 4, 3)
    assert 'matches by' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('map info {empty}', 'it is empty'),
        ('map info {none}', 'No map at'),
        ('map build 7scenes {none} --out {none}/map', 'No directory'),
        ('map build 7scenes {recording} --frames no.txt --out {none}', 'No list no.txt'),
        ('map build 7scenes {recording} --out {map}', 'Allow overwriting'),
        ('map build 7scenes {recording} --out {recording}', 'not a map'),
        ('localize {recording} --map {empty}', 'is not a map'),
        ('localize {recording} --map {map} --num-keyframes 99', 'num_keyframes is 99'),
        ('localize {recording} --map {map} --frames {recording}/intrinsics.txt', 'line 1'),
        ('localize {recording} --map {map} --image-area 10', 'area too small'),
        ('localize {recording} --map {map} --model {empty}', 'manifest'),
        ('match {none} {none}', 'No image'),
        ('match {recording}/map.txt {recording}/map.txt', 'is no image'),
        ('match {image} {image} --out {none}.txt --image-area 131072', 'such as matches.png'),
        ('match {image} {image} --max-lines 0', '--max-lines is 0'),
        ('match {image} {nothing}', 'is no image'),
        ('map triangulate {map} --overwrite --cache-mib -1', '--cache-mib is -1'),
    ],
)
def test_error_of_the_user_is_one_line_and_status_2(
    recording, built_map, tmp_path, capsys, words, message
):
    (tmp_path / 'empty').mkdir()
    places = {
        'empty': tmp_path / 'empty',
        'none': tmp_path / 'none',
        'recording': recording,
        'map': built_map,
        'image': recording / 'frame-000000.color.jpg',
        'nothing': tmp_path / 'nothing.jpg',
    }
    places['nothing'].write_bytes(b'')
    assert main(words.format(**places).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error
    assert len(error.splitlines()) == 1


def test_debug_shows_where_an_error_comes_from(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(['--debug', 'map', 'info', str(tmp_path / 'none')])


@pytest.mark.parametrize('words', [['nonsense'], [], ['map'], ['map', 'build'], ['match']])
def test_wrong_command_line_ends_with_status_2(words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    'words',
    ['', 'map build', 'map build 7scenes', 'map info', *_COMMANDS],
)
def test_help_shows_an_example(words, capsys):
    if words in NEEDED:
        pytest.importorskip(NEEDED[words], reason=f'{NEEDED[words]}, which it needs, is not here')
    with pytest.raises(SystemExit) as caught:
        main([*words.split(), '--help'])
    assert caught.value.code == 0
    assert f'  coam {words}' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('module', 'advice'),
    [
        ('cv2', '`pip install opencv-python-headless`'),
        ('skimage.data', '`pip install scikit-image`'),
        ('torch', '`pip install torch`'),
        ('rclpy', 'Source a ROS 2'),
        ('coam_msgs.msg', 'in a checkout use `./run shell`'),
    ],
)
def test_missing_package_is_named_with_what_brings_it(module, advice, monkeypatch, capsys):
    def fail(_):
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr('importlib.import_module', fail)
    assert main(['map']) == 2
    error = capsys.readouterr().err
    assert advice in error
    assert len(error.splitlines()) == 1


def test_help_imports_nothing_heavy():
    code = (
        'import sys, coam_ros.cli\n'
        'try: coam_ros.cli.main(["--help"])\n'
        'except SystemExit: print(sorted({"cv2", "numpy", "torch", "rclpy"} & set(sys.modules)))'
    )
    output = subprocess.check_output([sys.executable, '-c', code], text=True)
    assert output.splitlines()[-1] == '[]'
