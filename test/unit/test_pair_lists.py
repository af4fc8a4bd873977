"""The lists of MegaDepth-1500 and ScanNet-1500, in each form that people use."""

from __future__ import annotations

from pathlib import Path
import pickle

from bench_samples import INTRINSICS, objects, pair_line, write_image
from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.pair_lists import has_pair_list, read_pair_lists
from coam_ros.geometry.image_views import resize_view
from coam_ros.geometry.transforms import make_transform
import cv2
import numpy as np
import pytest
from rotations import rotation_from_vector

T_0_WORLD = make_transform(rotation_from_vector([0.1, 0, 0.2]), [1, 2, 3])
T_1_WORLD = make_transform(rotation_from_vector([0, -0.1, 0.1]), [1.5, 2, 3.5])
T_1_0 = T_1_WORLD @ np.linalg.inv(T_0_WORLD)
# The second image is larger, and wider.
SIZE1 = 640, 360
INTRINSICS1 = resize_view(2.0, 1.5) @ INTRINSICS
# As COLMAP has it, from the corner of the top-left pixel.
COLMAP_K, COLMAP_K1 = (
    K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]) for K in (INTRINSICS, INTRINSICS1)
)


def words(*arrays: np.ndarray) -> str:
    return ' '.join(repr(float(x)) for array in arrays for x in np.ravel(array))


def write_images(directory: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        # The suffix of OpenCV's encoder, whatever that of the name.
        path = directory / 'image.png'
        write_image(path, number)
        if number:
            assert cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), SIZE1))
        path.rename(directory / name)


def write_superglue(directory: Path) -> None:
    write_images(directory, 'scans/a.jpg', 'scans/b.jpg')
    line = pair_line('scans/a.jpg', 'scans/b.jpg', T_1_0, INTRINSICS, INTRINSICS1)
    (directory / 'scannet_test_pairs_with_gt.txt').write_text(line)


def write_calibrated(directory: Path) -> None:
    write_images(directory, 'a.jpg', 'b.jpg')
    pose = words(T_1_0[:3, :3], T_1_0[:3, 3])
    lines = [
        f'a.jpg b.jpg {words(INTRINSICS, INTRINSICS1)} {pose}\n',
        f'a.jpg b.jpg {words(INTRINSICS, INTRINSICS1, T_1_0)}\n',
    ]
    (directory / 'pairs_calibrated.txt').write_text(''.join(lines))


def write_views(directory: Path) -> None:
    write_images(directory / 'images', '0015/a.jpg', '0015/b.jpg')
    cameras = [
        f'PINHOLE {size} {words(K[[0, 1, 0, 1], [0, 1, 2, 2]])}'
        for size, K in (('320 240', COLMAP_K), ('640 360', COLMAP_K1))
    ]
    (directory / 'views.txt').write_text(
        f'0015/a.jpg {words(T_0_WORLD[:3, :3], T_0_WORLD[:3, 3])} {cameras[0]}\n'
        f'0015/b.jpg {words(T_1_WORLD[:3, :3], T_1_WORLD[:3, 3])} {cameras[1]}\n'
    )
    (directory / 'pairs.txt').write_text('0015/a.jpg 0015/b.jpg\n')


def write_scene_info(directory: Path) -> None:
    names = ['Undistorted_SfM/0015/a.jpg', None, 'Undistorted_SfM/0015/b.jpg']
    write_images(directory, names[0], names[2])
    folder = directory / 'megadepth_test_1500_scene_info'
    folder.mkdir()
    info = {
        'image_paths': objects(names),
        'intrinsics': objects([COLMAP_K, None, COLMAP_K1]),
        'poses': objects([T_0_WORLD, None, T_1_WORLD]),
        'pair_infos': objects([((0, 2), 0.2, np.zeros((5, 4)))]),
    }
    # As published: a pickle whatever the name says. And as training lists have it.
    (folder / '0015_0.1_0.3.npz').write_bytes(pickle.dumps(info))
    np.savez(folder / '0015_0.3_0.5.npz', **info)


def write_scannet(directory: Path) -> None:
    names = [f'scannet_test_1500/scene0707_01/color/{number}.jpg' for number in (15, 585)]
    write_images(directory, *names)
    np.savez(
        directory / 'test.npz',
        name=np.array([[707, 1, 15, 585]]),
        rel_pose=T_1_0[:3].reshape(1, 12),
    )
    # Of the depth images, of 640 x 480.
    np.savez(directory / 'intrinsics.npz', scene0707_01=resize_view(2.0) @ INTRINSICS)


@pytest.mark.parametrize(
    'write', [write_superglue, write_calibrated, write_views, write_scene_info, write_scannet]
)
def test_every_form_says_the_same_of_a_pair(tmp_path, write):
    write(tmp_path)
    assert has_pair_list(tmp_path)
    for pair in read_pair_lists(tmp_path):
        np.testing.assert_allclose(pair.T_1_0, T_1_0, atol=1e-9)
        np.testing.assert_allclose(pair.intrinsics0, INTRINSICS)
        np.testing.assert_allclose(pair.intrinsics1, INTRINSICS1)
        assert pair.path0 != pair.path1


def test_rotations_may_be_rounded(tmp_path):
    write_calibrated(tmp_path)
    line = f'a.jpg b.jpg {words(INTRINSICS, INTRINSICS1, T_1_0.round(3))}\n'
    (tmp_path / 'pairs_calibrated.txt').write_text(line)
    (pair,) = read_pair_lists(tmp_path)
    np.testing.assert_allclose(pair.T_1_0, T_1_0, atol=1e-3)


@pytest.mark.parametrize('write', [write_superglue, write_calibrated, write_views])
def test_lists_as_windows_writes_them_are_read(tmp_path, write):
    write(tmp_path)
    pairs = read_pair_lists(tmp_path)
    for path in tmp_path.glob('*.txt'):
        path.write_text(path.read_text(), encoding='utf-8-sig', newline='\r\n')
    assert [pair.path0 for pair in read_pair_lists(tmp_path)] == [pair.path0 for pair in pairs]


@pytest.mark.parametrize(
    ('write', 'image'),
    [
        (write_superglue, 'scans/b.jpg'),
        (write_calibrated, 'b.jpg'),
        (write_views, 'images/0015/b.jpg'),
        (write_scene_info, 'Undistorted_SfM/0015/b.jpg'),
        (write_scannet, 'scannet_test_1500/scene0707_01/color/585.jpg'),
    ],
)
def test_missing_image_is_named(tmp_path, write, image):
    write(tmp_path)
    (tmp_path / image).unlink()
    with pytest.raises(BenchmarkDataError, match=f'no image .*{image}'):
        read_pair_lists(tmp_path)


@pytest.mark.parametrize(
    ('write', 'name', 'content', 'message'),
    [
        (write_calibrated, 'pairs_calibrated.txt', 'a.jpg b.jpg 1 2 3\n', 'line 1: got'),
        (
            write_calibrated,
            'pairs_calibrated.txt',
            f'a.jpg b.jpg {words(INTRINSICS, INTRINSICS, np.diag([1.1, 1, 1, 1]))}\n',
            'line 1: T_1_0',
        ),
        (write_calibrated, 'pairs_calibrated.txt', '\n', 'No pairs'),
        (write_views, 'pairs.txt', '0015/a.jpg 0015/c.jpg\n', 'line 1: got'),
        (write_views, 'views.txt', 'a.jpg 1 2 3\n', 'line 1: got'),
        (
            write_views,
            'views.txt',
            f'0015/a.jpg {words(np.eye(3), np.zeros(3))} SIMPLE_RADIAL 320 240 260 160 120 0.1\n',
            'line 1: the camera has distortion',
        ),
        (write_scene_info, 'megadepth_test_1500_scene_info/0015_0.1_0.3.npz', 'x', 'LoFTR'),
        (write_scannet, 'intrinsics.npz', 'x', 'LoFTR'),
    ],
)
def test_wrong_list_is_named(tmp_path, write, name, content, message):
    write(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(BenchmarkDataError, match=message):
        read_pair_lists(tmp_path)


def test_list_that_would_run_a_program_is_refused(tmp_path):
    write_scene_info(tmp_path)
    path = tmp_path / 'megadepth_test_1500_scene_info/0015_0.1_0.3.npz'
    path.write_bytes(pickle.dumps({'image_paths': print}))
    with pytest.raises(BenchmarkDataError, match=r'holds builtins\.print, wanted arrays only'):
        read_pair_lists(tmp_path)


def test_folder_without_a_list_is_refused(tmp_path):
    assert not has_pair_list(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'No pair list.*MegaDepth'):
        read_pair_lists(tmp_path)
