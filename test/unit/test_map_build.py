"""`coam map build` takes the layouts that people have; the maps localize."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from coam_ros.cli import main
from coam_ros.localization import LocalizationConfig, Relocalizer
from coam_ros.mapping.importers.tum import TumSequence
from coam_ros.mapping.storage import load_map
from coam_ros.matching import CoamMatcher
from map_samples import encode
import numpy as np
import pytest
from recording_samples import HEIGHT, WIDTH
from test_localization_sets import poses, write_colmap, write_tum

SMALL = ['--image-area', '131072']
without_colmap = pytest.mark.skipif(
    importlib.util.find_spec('pycolmap') is None, reason='pycolmap is not installed'
)


def build(layout, *words):
    return main(['map', 'build', layout, *map(str, words), *SMALL])


def check_localizes(path):
    """Each keyframe is found among the others."""
    keyframe_map = load_map(path)
    query = keyframe_map.get(1)
    keyframe_map.remove(1)
    matcher = CoamMatcher.load(image_area_px=131072)
    relocalizer = Relocalizer(matcher, keyframe_map, LocalizationConfig(min_coverage=0.05))
    result = relocalizer.relocalize(query.decode_image(), query.camera)
    assert result.is_localized, result.message
    np.testing.assert_allclose(result.T_map_camera, query.T_map_camera, atol=0.02)


def test_tum_recording_becomes_a_map_without_what_has_no_pose(tmp_path, capsys):
    directory = write_tum(tmp_path)
    lines = (directory / 'groundtruth.txt').read_text().splitlines()
    (directory / 'groundtruth.txt').write_text('\n'.join(lines[:3]))
    assert build('tum', directory, '--out', tmp_path / 'map') == 0
    printed = capsys.readouterr().out
    assert f'{tmp_path / "map"}: 3 keyframes of 3 frames.' in printed
    assert '1 images without a pose were left out.' in printed
    for keyframe, pose in zip(load_map(tmp_path / 'map'), poses()[:3], strict=True):
        np.testing.assert_allclose(keyframe.T_map_camera, pose)
        assert keyframe.depth_scale_m == pytest.approx(1 / 5000)


def test_calibration_of_a_recording_of_ones_own_is_given(tmp_path, capsys):
    directory = write_tum(tmp_path).rename(tmp_path / 'office')
    words = (directory, '--out', tmp_path / 'map')
    assert build('tum', *words) == 2
    assert 'give the calibration' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        build('tum', *words, '--intrinsics', '525,525')
    assert 'wanted 4 numbers' in capsys.readouterr().err
    assert build('tum', *words, '--distortion', '0.1,0,0,0,0') == 2
    assert 'give both' in capsys.readouterr().err
    assert build('tum', *words, '--intrinsics', '400,400,223.5,167.5') == 0
    barrel = '--distortion=-0.2,0.1,0,0,0'
    words = (*words, '--overwrite')
    assert build('tum', *words, '--intrinsics', '400,400,223.5,167.5', barrel) == 0
    assert load_map(tmp_path / 'map').get(0).camera.distortion[0] == -0.2
    assert build('tum', *words, '--intrinsics', '400,400,223.5,167.5') == 0
    camera = load_map(tmp_path / 'map').get(0).camera
    assert (camera.fx, camera.cx, camera.is_distorted) == (400, 223.5, False)


def test_calibration_goes_by_the_name_of_the_folder_that_is_entered(tmp_path, monkeypatch):
    directory = write_tum(tmp_path)
    monkeypatch.chdir(directory)
    assert TumSequence(Path(), None)[0].camera.fx == pytest.approx(535.433105)
    directory = directory.rename(tmp_path / 'fr1_desk')
    assert TumSequence(directory, None)[0].camera.fx == pytest.approx(517.306408)


def test_image_takes_the_nearest_pose_and_depth_within_20_ms_in_whatever_order(tmp_path):
    directory = write_tum(tmp_path)
    (directory / 'depth/1.png').write_bytes(
        encode(np.full((HEIGHT, WIDTH), 5000, np.uint16), '.png')
    )
    stamps = (-0.015, 0.01, 1.019, 1.981, 3.021)
    truth = [f'{stamp} {place} 0 0 0 0 0 1\n' for place, stamp in enumerate(stamps)]
    (directory / 'groundtruth.txt').write_text(''.join(reversed(truth)))
    depths = (directory / 'depth.txt').read_text().splitlines()
    (directory / 'depth.txt').write_text('\n'.join(reversed(depths)))
    frames = TumSequence(directory, ((400, 410, 220, 160), ()))
    assert frames.posed == [0, 1, 2]
    assert [frames[i].T_map_camera[0, 3] for i in frames.posed] == [1, 2, 3]
    assert [frames[i].decode_depth_m()[0, 0] == 1 for i in frames.posed] == [False, True, False]
    assert [frames[i].stamp_s for i in frames.posed] == [0, 1, 2]
    camera = frames[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (400, 410, 220, 160)


def test_tum_recording_without_depth_becomes_a_map_to_triangulate(tmp_path, capsys):
    directory = write_tum(tmp_path)
    (directory / 'depth.txt').unlink()
    assert build('tum', directory, '--out', tmp_path / 'map') == 0
    assert 'None has a depth image: run coam map triangulate' in capsys.readouterr().out
    assert [keyframe.depth for keyframe in load_map(tmp_path / 'map')] == [None] * 4


@pytest.mark.parametrize(
    'start', ['\ufeff'.encode(), '\ufeff# Büro\r\n'.encode(), '# Büro\n'.encode('latin-1')]
)
def test_tum_lists_may_be_of_any_editor(tmp_path, start):
    directory = write_tum(tmp_path)
    for name in ('rgb.txt', 'depth.txt', 'groundtruth.txt'):
        (directory / name).write_bytes(start + (directory / name).read_bytes())
    frames = TumSequence(directory, None)
    assert (frames.posed, len(frames)) == ([0, 1, 2, 3], 4)
    assert frames[0].depth is not None


def test_recording_without_any_pose_is_refused(tmp_path, capsys):
    directory = write_tum(tmp_path)
    (directory / 'groundtruth.txt').write_text('1000.0 0 0 0 0 0 0 1\n')
    assert build('tum', directory, '--out', tmp_path / 'map') == 2
    assert 'none of 4 images has a pose' in capsys.readouterr().err
    assert not (tmp_path / 'map').exists()


def test_empty_folder_is_told_by_the_list_that_it_lacks(tmp_path, capsys):
    assert build('tum', tmp_path, '--out', tmp_path / 'map') == 2
    assert f'No {tmp_path / "rgb.txt"}' in capsys.readouterr().err


@pytest.mark.parametrize('file', ['rgb/frame-000000.color.jpg', 'depth/0.png'])
def test_damaged_image_of_a_tum_recording_is_named(tmp_path, file):
    directory = write_tum(tmp_path)
    path = directory / file
    path.write_bytes(path.read_bytes()[:-20])
    named = rf'{directory}/rgb/frame-000000\.color\.jpg \(depth: depth/0\.png\): .*cut short'
    with pytest.raises(ValueError, match=named):
        TumSequence(directory, None)[0]


@pytest.mark.parametrize(
    ('name', 'line'),
    [
        ('rgb.txt', 'yesterday rgb/1.jpg'),
        ('rgb.txt', '1.0'),
        ('groundtruth.txt', '1.0 0 0 zero 0 0 0 1'),
        ('groundtruth.txt', '1.0 0 0 nan 0 0 0 1'),
        ('groundtruth.txt', '1.0 0 0 0 0 0 0 0'),
        ('groundtruth.txt', '1.0 0 0 0 0 0 1'),
    ],
)
def test_bad_line_of_a_tum_list_is_named(tmp_path, capsys, name, line):
    directory = write_tum(tmp_path)
    lines = (directory / name).read_text().splitlines()
    lines[1] = line
    (directory / name).write_text('# made by hand\n' + '\n'.join(lines))
    assert build('tum', directory, '--out', tmp_path / 'map') == 2
    assert f'{directory / name}, line 3: got {line!r}, wanted' in capsys.readouterr().err


@without_colmap
def test_colmap_model_becomes_a_map_with_its_points(tmp_path, capsys):
    write_colmap(tmp_path)
    words = (tmp_path / 'sparse/0', '--images', tmp_path / 'images', '--out', tmp_path / 'map')
    assert build('colmap', *words) == 0
    assert 'wanted metres' in capsys.readouterr().out
    assert all(len(k.landmark_pixels) for k in load_map(tmp_path / 'map'))
    check_localizes(tmp_path / 'map')


@without_colmap
@pytest.mark.parametrize(
    ('name', 'share'),
    [('images.bin', 0.5), ('points3D.bin', 0.5), ('cameras.bin', 0.7), ('cameras.bin', 0.9)],
)
def test_colmap_model_that_is_cut_short_is_refused(tmp_path, capsys, name, share):
    import pycolmap

    write_colmap(tmp_path)
    model = tmp_path / 'model'
    model.mkdir()
    pycolmap.Reconstruction(tmp_path / 'sparse/0').write(model)
    content = (model / name).read_bytes()
    (model / name).write_bytes(content[: int(share * len(content))])
    words = (model, '--images', tmp_path / 'images', '--out', tmp_path / 'map')
    assert build('colmap', *words) == 2
    assert str(model) in capsys.readouterr().err
    (model / name).write_bytes(content)
    assert build('colmap', *words) == 0


@without_colmap
def test_folder_without_a_model_is_named(tmp_path, capsys):
    words = (tmp_path, '--images', tmp_path, '--out', tmp_path / 'map')
    assert build('colmap', *words) == 2
    assert f'No COLMAP model in {tmp_path}' in capsys.readouterr().err
