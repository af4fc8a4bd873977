from __future__ import annotations

from pathlib import Path

from coam_ros.geometry.transforms import is_rigid
from coam_ros.mapping.importers.seven_scenes import SevenScenesError, SevenScenesSequence
from map_samples import encode, HEIGHT, make_image, WIDTH
import numpy as np
import pytest

POSE = '0 -1 0 1.5\n1 0 0 -2\n0 0 1 0.25\n0 0 0 1\n'


def write_frame(directory: Path, number: int, extension: str = 'jpg', pose: str = POSE) -> None:
    name = f'frame-{number:06d}'
    (directory / f'{name}.color.{extension}').write_bytes(encode(make_image(), f'.{extension}'))
    counts = np.full((HEIGHT, WIDTH), 1000 + number, np.uint16)
    (directory / f'{name}.depth.png').write_bytes(encode(counts, '.png'))
    (directory / f'{name}.pose.txt').write_text(pose)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    for number, extension in ((0, 'jpg'), (7, 'png'), (12, 'jpg')):
        write_frame(tmp_path, number, extension)
    (tmp_path / 'intrinsics.txt').write_text('60 0 31.5\n0 61 23.5\n0 0 1\n')
    (tmp_path / 'map.txt').write_text('frame-000012\nframe-000000\n')
    return tmp_path


def test_frames_of_a_list_come_in_its_order(scene):
    frames = SevenScenesSequence(scene, 'map.txt')
    assert len(frames) == 2
    assert [frame.id for frame in frames] == [12, 0]
    assert frames.names == ['frame-000012', 'frame-000000']


def test_without_a_list_all_frames_come_by_number(scene):
    write_frame(scene, 30000)
    for path in scene.glob('frame-000007.*'):
        path.rename(scene / path.name.replace('000007', '7'))
    assert [frame.id for frame in SevenScenesSequence(scene)] == [0, 7, 12, 30000]


def test_frame_has_pose_camera_depth_and_stamp(scene):
    frame = SevenScenesSequence(scene)[2]
    np.testing.assert_array_equal(frame.T_map_camera[:3, 3], [1.5, -2, 0.25])
    np.testing.assert_array_equal(frame.T_map_camera[:2, :2], [[0, -1], [1, 0]])
    camera = frame.camera
    assert (camera.width, camera.height, camera.fx, camera.cy) == (WIDTH, HEIGHT, 60, 23.5)
    assert SevenScenesSequence(scene, default_K=np.eye(3))[2].camera == camera
    assert frame.decode_depth_m()[3, 3] == pytest.approx(1.012)
    assert frame.stamp_s == pytest.approx(12 / 30)


@pytest.mark.parametrize(
    'text',
    [
        '525 0 320.0\n0 525 240\n0 0 1.',
        '525.000000 0.000000 320.000000\r\n0.000000 525.0 240.0\r\n0 0 1.000000\r\n',
        '# fx 0 cx\n525, 0, 320\n0\t525\t240\t\n\n0 0 1\n\n',
    ],
)
def test_spellings_of_intrinsics_are_understood(scene, text):
    (scene / 'intrinsics.txt').write_text(text)
    assert SevenScenesSequence(scene)[0].camera.K[0].tolist() == [525, 0, 320]


def test_lists_may_have_suffixes_comments_and_another_place(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp('lists') / 'mine.txt'
    path.write_text('# mine\n\n  frame-000007.color.png \r\n')
    assert [frame.id for frame in SevenScenesSequence(scene, path)] == [7]


def test_list_of_the_directory_comes_before_one_of_the_current_directory(
    scene, tmp_path_factory, monkeypatch
):
    monkeypatch.chdir(tmp_path_factory.mktemp('here'))
    for name in ('map.txt', 'mine.txt'):
        Path(name).write_text('frame-000007\n')
    assert [frame.id for frame in SevenScenesSequence(scene, 'map.txt')] == [12, 0]
    assert [frame.id for frame in SevenScenesSequence(scene, 'mine.txt')] == [7]


@pytest.mark.parametrize(
    ('name', 'start'),
    [
        ('map.txt', '\ufeff'.encode()),
        ('map.txt', '# Büro\n'.encode('latin-1')),
        ('intrinsics.txt', '\ufeff'.encode()),
        ('frame-000012.pose.txt', '\ufeff'.encode()),
    ],
)
def test_texts_may_be_of_any_editor(scene, name, start):
    (scene / 'map.txt').write_text('frame-000012\n')
    (scene / name).write_bytes(start + (scene / name).read_bytes())
    assert [frame.id for frame in SevenScenesSequence(scene, 'map.txt')] == [12]


def test_rounded_rotation_is_made_exact(scene):
    write_frame(scene, 7, 'png', POSE.replace('-1', '-1.002'))
    T_map_camera = SevenScenesSequence(scene)[1].T_map_camera
    assert is_rigid(T_map_camera, tolerance=1e-12)


def test_frame_without_depth_is_read(scene):
    (scene / 'frame-000007.depth.png').unlink()
    assert SevenScenesSequence(scene)[1].depth is None


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('frame-000012.pose.txt', POSE.replace('-2', 'x'), r'000012.pose.txt, line 2.*1 0 0 x'),
        ('frame-000012.pose.txt', POSE.replace('0.25', 'nan'), r'000012.pose.txt, line 3'),
        ('frame-000012.pose.txt', POSE.replace(' 1.5', ''), r'000012.pose.txt, line 1'),
        ('frame-000012.pose.txt', POSE.replace('-1', '-2'), 'not a rigid'),
        ('frame-000012.pose.txt', '', 'not a rigid'),
        ('frame-000012.pose.txt', None, '000012.pose.txt cannot be read'),
        ('frame-000012.color.jpg', 'no image', '000012.color.jpg: Not an encoded image'),
        ('frame-000012.depth.png', 'no image', '000012.depth.png: Not an encoded image'),
        ('intrinsics.txt', '525 0 320\n0 525\n0 0 1', 'intrinsics.txt, line 2'),
        ('intrinsics.txt', '525 0 320\n0 525 240', '3 x 3'),
        ('intrinsics.txt', '0 0 320\n0 525 240\n0 0 1', 'fx=0'),
        ('intrinsics.txt', '525 0 320\n0 525 240\n0 1 1', '3 x 3'),
        ('intrinsics.txt', None, 'intrinsics.txt cannot be read'),
        ('map.txt', 'frame-000012\nframe 3\n', 'map.txt, line 2.*frame 3'),
        ('map.txt', 'frame-000012\n\nframe-000099\n', 'map.txt, line 3.*000099.color.jpg'),
        ('map.txt', 'frame-000012\nframe-000012\n', 'map.txt, line 2.*twice'),
        ('map.txt', 'frame-000012\nframe-12\n', 'map.txt, line 2.*twice'),
        ('map.txt', '\n# nothing\n', 'names no frames'),
    ],
)
def test_error_names_the_file_and_the_line(scene, name, content, words):
    if content is None:
        (scene / name).unlink()
    else:
        (scene / name).write_text(content)
    with pytest.raises(SevenScenesError, match=words):
        list(SevenScenesSequence(scene, 'map.txt'))


def test_two_names_of_one_number_are_refused(scene):
    write_frame(scene, 7, 'png')
    for path in scene.glob('frame-000007.*'):
        (scene / path.name.replace('000007', '7')).write_bytes(path.read_bytes())
    with pytest.raises(SevenScenesError, match='frame 7 under two names'):
        SevenScenesSequence(scene)


def test_depth_of_another_size_is_refused(scene):
    counts = np.ones((HEIGHT // 2, WIDTH // 2), np.uint16)
    (scene / 'frame-000000.depth.png').write_bytes(encode(counts, '.png'))
    with pytest.raises(SevenScenesError, match=r'frame-000000.*32 x 24.*64 x 48'):
        SevenScenesSequence(scene)[0]


def test_missing_directory_list_and_frames_are_told_apart(scene, tmp_path):
    with pytest.raises(FileNotFoundError, match='No directory'):
        SevenScenesSequence(scene / 'none')
    with pytest.raises(FileNotFoundError, match='No list'):
        SevenScenesSequence(scene, 'none.txt')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SevenScenesError, match='holds no frames'):
        SevenScenesSequence(tmp_path / 'empty')
