"""RGB-D pairs: a wall at 2 m along which the camera walks, in both layouts; bad frames."""

from __future__ import annotations

from dataclasses import replace
import logging

import cv2
import numpy as np
from pair_samples import (
    assert_same_place,
    FOCAL_PX,
    gradient,
    K,
    SIZE,
    STEP_PX,
    T_world_camera,
    wall_depth,
    WALL_M,
    wall_view,
    write_image,
    write_seven_scenes,
)
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.importers.tum import TumSequence
from coam_ros.matching.image_files import read_image
from coam_ros.training.data import make_source, RgbdSourceConfig, ViewSpec
from coam_ros.training.data.pairs import MATCHED, UNMATCHED
from coam_ros.training.data.posed_depth import (
    CoarseDepth,
    DepthFrame,
    DepthPairMaker,
    DepthTolerance,
    overlaps,
    project,
)
from coam_ros.training.data.views import CropConfig

SPEC = ViewSpec(SIZE, 200)
CAMERA = PinholeCamera.from_K(K, *SIZE)


def open_rgbd(folder, **fields):
    config = RgbdSourceConfig(path=str(folder), max_step=7, photometric_strength=0, **fields)
    return make_source(config, SPEC)


def wall_frame(index, depth=WALL_M):
    depths = np.full(SIZE[::-1], depth, np.float32)
    return DepthFrame(
        np.ascontiguousarray(wall_view(index)), depths, CAMERA, T_world_camera(index)
    )


def wide_frame():
    """As frame 0, but with as much again of the wall to the right."""
    return replace(
        wall_frame(0),
        image=np.ascontiguousarray(gradient(400, 128)[:, :320]),
        depth=np.full((128, 320), WALL_M, np.float32),
        camera=replace(CAMERA, width=320),
    )


def make_pair(frame0, frame1, seed=0, **crop):
    config = RgbdSourceConfig(
        path='', photometric_strength=0, crop=CropConfig(rotation_std_deg=0, **crop)
    )
    maker = DepthPairMaker(config, SPEC, DepthTolerance(0.01), is_precise=True)
    return maker.make(frame0, frame1, np.random.default_rng(seed))


def write_tum(folder, count=8, depth_delay_s=0.01, pose_delay_s=-0.005):
    lists = {'rgb': [], 'depth': [], 'groundtruth': ['# timestamp tx ty tz qx qy qz qw']}
    for index in range(count):
        stamp = 100 + index / 30
        write_image(folder / f'rgb/{index}.png', wall_view(index))
        (folder / 'depth').mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f'depth/{index}.png'), wall_depth(5000))
        lists['rgb'].append(f'{stamp:.4f} rgb/{index}.png')
        lists['depth'].append(f'{stamp + depth_delay_s:.4f} depth/{index}.png')
        x = T_world_camera(index)[0, 3]
        lists['groundtruth'].append(f'{stamp + pose_delay_s:.4f} {x} 0 0 0 0 0 1')
    for name, lines in lists.items():
        (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n')


def test_points_of_a_wall_move_by_the_parallax():
    pixels = np.array([[100, 60], [20, 60], [5.25, 7.75]], np.float32)
    moved, is_seen, is_unseen = project(wall_frame(0), wall_frame(3), pixels, DepthTolerance(0.01))
    # Parallax: focal length x baseline / depth = 3 steps; two points leave the image.
    np.testing.assert_allclose(moved, pixels - [3 * STEP_PX, 0], atol=1e-3)
    assert is_seen.tolist() == [True, False, False]
    assert is_unseen.tolist() == [False, True, True]
    # The other image may be larger.
    moved, is_seen, _ = project(wall_frame(10), wide_frame(), pixels[:1], DepthTolerance(0.01))
    np.testing.assert_allclose(moved, pixels[:1] + np.array([10 * STEP_PX, 0]), atol=1e-3)
    assert is_seen[0]


def test_a_surface_in_front_hides_and_doubt_or_unknown_depth_says_nothing():
    wall, front = wall_frame(0), wall_frame(3)
    wall.depth[:, 150:] = np.nan
    front.depth[:, :30] = 1.0
    front.depth[:, 30:50] = WALL_M - 0.04  # two tolerances nearer
    front.depth[:, 50:70] = 3.0
    front.depth[:, 100:] = np.nan
    pixels = np.array([[x, 64] for x in (40, 64, 84, 110, 140, 155)], np.float32)
    _, is_seen, is_unseen = project(wall, front, pixels, DepthTolerance(0.01))
    assert is_seen.tolist() == [False, False, False, True, False, False]
    assert is_unseen.tolist() == [True, False, False, False, False, False]
    _, is_seen, _ = project(wall, front, pixels, DepthTolerance(0.0, absolute=0.05))
    assert is_seen.tolist() == [False, True, False, True, False, False]


def test_points_that_the_second_view_surely_does_not_show_are_unmatched():
    for pair in (
        make_pair(wall_frame(0), wall_frame(14), min_extent=1),
        make_pair(wall_frame(0), wall_frame(0), min_extent=0.5, max_extent=0.5),
    ):
        assert set(pair.state.tolist()) == {MATCHED, UNMATCHED}
    assert make_pair(wall_frame(0), wall_frame(19), min_extent=1) is None


def test_the_second_view_is_made_for_the_points_that_its_image_shows():
    for seed in range(3):
        pair = make_pair(
            wall_frame(3), wide_frame(), seed, min_extent=0.5, max_extent=0.5, max_shift=0
        )
        assert (pair.state == MATCHED).mean() > 0.9
        np.testing.assert_allclose(np.median(pair.points1, axis=0), (79.5, 63.5), atol=12)


def test_points_behind_the_camera_are_surely_not_seen():
    behind = wall_frame(0)
    behind.T_world_camera[2, 3] = WALL_M + 1
    _, is_seen, is_unseen = project(
        wall_frame(0), behind, np.array([[80, 64]], np.float32), DepthTolerance(0.01)
    )
    assert not is_seen[0]
    assert is_unseen[0]


@pytest.mark.parametrize('reduction', [2, 4])
def test_an_image_read_small_draws_the_same_view(tmp_path, reduction):
    # No multiple of the reduction: the last column of the small image is a part of one.
    write_image(tmp_path / 'wall.jpg', wall_view(0)[:125, :157])
    frames = [
        replace(
            wall_frame(0),
            image=read_image(tmp_path / 'wall.jpg', r),
            camera=replace(CAMERA, width=157, height=125),
        )
        for r in (1, reduction)
    ]
    view = np.array([[0.6, 0.1, 10], [-0.1, 0.6, 20], [0, 0, 1]])
    drawn = [frame.draw(view, (96, 96))[30:70, 30:70].astype(float) for frame in frames]
    # The wall has up to 2 levels a pixel: a shift by half a pixel would show as 1.
    assert np.abs((drawn[0] - drawn[1]).mean(axis=(0, 1))).max() < 0.3


def test_overlap_is_the_share_of_the_wall_that_both_see():
    frames = [wall_frame(index) for index in (0, 5, 10, 30)]
    coarse = [CoarseDepth.of(f.depth, f.camera, f.T_world_camera) for f in frames]
    wanted = [1, 0.75, 0.5, 0]
    # Cells are 10 pixels of 160.
    np.testing.assert_allclose(overlaps(coarse[0], coarse), wanted, atol=0.07)


def test_overlap_is_judged_by_the_depth_of_each_place():
    stepped, hidden = wall_frame(0), wall_frame(0, depth=1.0)
    stepped.depth[:, 80:] = 6.0
    one, other = (CoarseDepth.of(f.depth, f.camera, f.T_world_camera) for f in (stepped, hidden))
    assert overlaps(one, [one, other]).tolist() == [1, 0]


def test_frames_make_pairs_both_ways_with_the_steps_and_tolerances_of_the_config(tmp_path):
    write_seven_scenes(tmp_path)
    config = RgbdSourceConfig(
        path=str(tmp_path),
        min_step=3,
        max_step=4,
        is_precise=False,
        relative_tolerance=0.05,
        absolute_tolerance_m=0.01,
    )
    source = make_source(config, SPEC)
    assert {j - i for i, j in source._pairs} == {-4, -3, 3, 4}
    assert source._maker._tolerance == DepthTolerance(0.05, 0.01)
    assert not source.sample(np.random.default_rng(0)).is_precise


def test_seven_scenes_pairs_show_the_same_place(tmp_path):
    write_seven_scenes(tmp_path)
    source = open_rgbd(tmp_path)
    for seed in range(5):
        assert_same_place(source.sample(np.random.default_rng(seed)))


def test_tum_pairs_show_the_same_place(tmp_path):
    write_tum(tmp_path)
    source = open_rgbd(tmp_path, intrinsics=(FOCAL_PX, FOCAL_PX, 79.5, 63.5))
    for seed in range(5):
        assert_same_place(source.sample(np.random.default_rng(seed)))


def test_a_calibration_that_would_not_be_used_is_refused(tmp_path):
    write_seven_scenes(tmp_path)
    with pytest.raises(ValueError, match='only a TUM recording takes'):
        open_rgbd(tmp_path, intrinsics=(FOCAL_PX, FOCAL_PX, 79.5, 63.5))
    with pytest.raises(ValueError, match='without intrinsics'):
        RgbdSourceConfig(path='recording', distortion=(0.1, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match='intrinsics has 3 numbers'):
        RgbdSourceConfig(path='recording', intrinsics=(FOCAL_PX, 79.5, 63.5))
    with pytest.raises(ValueError, match='Frames are 0 to 40 steps apart'):
        RgbdSourceConfig(path='recording', min_step=0)


def test_the_distortion_of_the_config_is_that_of_the_frames(tmp_path):
    write_tum(tmp_path)
    fields = {'intrinsics': (FOCAL_PX, FOCAL_PX, 79.5, 63.5), 'distortion': (0.1, 0, 0, 0)}
    assert open_rgbd(tmp_path, **fields)._keyframes[0].camera.is_distorted


def test_tum_takes_the_nearest_pose_and_the_calibration_by_name(tmp_path):
    folder = tmp_path / 'rgbd_dataset_freiburg1_desk'
    folder.mkdir()
    write_tum(folder)
    keyframe = TumSequence(folder, None)[5]
    np.testing.assert_allclose(keyframe.T_map_camera, T_world_camera(5), atol=1e-9)
    np.testing.assert_allclose(keyframe.decode_depth_m(), WALL_M, atol=1e-6)
    assert keyframe.camera.fx == 517.306408
    assert keyframe.camera.is_distorted
    with pytest.raises(ValueError, match='No calibration'):
        TumSequence(folder.rename(tmp_path / 'desk'), None)


def test_tum_frames_without_a_pose_in_time_are_left_out(tmp_path, caplog):
    write_tum(tmp_path)
    lines = (tmp_path / 'groundtruth.txt').read_text().splitlines()
    (tmp_path / 'groundtruth.txt').write_text('\n'.join(lines[:-2]))
    with caplog.at_level(logging.WARNING):
        open_rgbd(tmp_path, intrinsics=(FOCAL_PX, FOCAL_PX, 79.5, 63.5))
    (record,) = caplog.records
    assert '2 of 8 frames are not used' in record.getMessage()
    assert 'rgb/7.png: no pose' in record.getMessage()


def test_bad_frames_are_named_and_counted_in_one_warning(tmp_path, caplog):
    stems = write_seven_scenes(tmp_path, 10)
    stems[0].with_suffix('.pose.txt').unlink()
    np.savetxt(stems[1].with_suffix('.pose.txt'), 2 * np.eye(4))
    stems[2].with_suffix('.depth.png').unlink()
    image = stems[3].with_suffix('.color.jpg')
    image.write_bytes(image.read_bytes()[:500])
    cv2.imwrite(f'{stems[4]}.depth.png', wall_depth(0))
    with caplog.at_level(logging.WARNING):
        source = open_rgbd(tmp_path)
    (record,) = caplog.records
    assert '5 of 10 frames are not used' in record.getMessage()
    reasons = ('cannot be read', 'not a rigid', 'no depth', 'cut short', 'no depth')
    for index, reason in enumerate(reasons):
        line = next(li for li in record.getMessage().splitlines() if stems[index].name in li)
        assert reason in line
    assert_same_place(source.sample(np.random.default_rng(0)))


def test_a_scene_without_depth_is_named(tmp_path):
    for stem in write_seven_scenes(tmp_path):
        stem.with_suffix('.depth.png').unlink()
    with pytest.raises(ValueError, match='none of 8 frames has an image, a pose and depth'):
        open_rgbd(tmp_path)


def test_frames_that_share_nothing_are_an_error(tmp_path):
    for index, stem in enumerate(write_seven_scenes(tmp_path)):
        np.savetxt(stem.with_suffix('.pose.txt'), T_world_camera(100 * index))
    with pytest.raises(ValueError, match='No overlapping frames'):
        open_rgbd(tmp_path)
