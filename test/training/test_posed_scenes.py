"""Pairs from tracks, keyframe maps, MegaDepth and posed images of a wall; bad input."""

from __future__ import annotations

import importlib
import logging
import re

from bench_samples import objects, pair_line
import cv2
import numpy as np
from pair_samples import (
    assert_epipolar,
    assert_same_place,
    gradient,
    K,
    SIZE,
    STEP_PX,
    T_world_camera,
    WALL_M,
    wall_view,
    write_image,
    write_seven_scenes,
)
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.geometry.epipolar import symmetric_epipolar_distance_px
from coam_ros.geometry.image_views import resize_view
from coam_ros.geometry.transforms import invert
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import save_map
from coam_ros.training.data import (
    KeyframeMapSourceConfig,
    make_mixture,
    make_source,
    MegaDepthSourceConfig,
    PosedImageSourceConfig,
    RgbdSourceConfig,
    TrackSourceConfig,
    ViewSpec,
)
from coam_ros.training.data.keyframe_map import split_keyframes
from coam_ros.training.data.pairs import MATCHED
from coam_ros.training.data.tracks import TrackPairMaker
from coam_ros.training.data.views import CropConfig

SPEC = ViewSpec(SIZE, 200)


def assert_pairs_show_the_same_place(config):
    source = make_source(config, SPEC)
    for seed in range(5):
        assert_same_place(source.sample(np.random.default_rng(seed)))
    return source


def landmarks(index, count=400):
    """The same points of the wall in every view: numbers, pixels and world coordinates."""
    rng = np.random.default_rng(0)
    places = rng.uniform([0, 5], [230, 123], (count, 2))
    pixels = places - [index * STEP_PX, 0]
    seen = np.flatnonzero((pixels[:, 0] > 2) & (pixels[:, 0] < SIZE[0] - 3))
    points = np.c_[places, np.ones(count)] @ np.linalg.inv(K).T * WALL_M
    return seen, pixels[seen].astype(np.float32), points[seen]


def line_of(i, j, T_1_0=None):
    T_1_0 = invert(T_world_camera(j)) @ T_world_camera(i) if T_1_0 is None else T_1_0
    return pair_line(f'{i}.jpg', f'{j}.jpg', T_1_0, K)


@pytest.fixture
def posed(tmp_path):
    """Six images, tracks and a list of pairs."""
    lines = ''
    (tmp_path / 'points').mkdir()
    for index in range(6):
        write_image(tmp_path / f'{index}.jpg', wall_view(index))
        ids, xy, _ = landmarks(index)
        np.savez(tmp_path / 'points' / f'{index}.npz', xy=xy, id=ids)
        lines += ''.join(line_of(index, other) for other in range(index))
    (tmp_path / 'pairs.txt').write_text(lines)
    return tmp_path


# --- tracks ---------------------------------------------------------------------------------


def test_track_pairs_show_the_same_place(posed):
    (posed / 'points/0.npz').rename(posed / 'points/0.jpg.npz')
    source = assert_pairs_show_the_same_place(
        TrackSourceConfig(path=str(posed), photometric_strength=0, is_precise=False)
    )
    assert len(source._pairs) == 15
    assert not source.sample(np.random.default_rng(0)).is_precise


def test_crops_are_made_around_tracks_and_show_twenty_or_are_none():
    crop = CropConfig(min_extent=0.3, max_extent=0.3, rotation_std_deg=0)
    maker = TrackPairMaker(TrackSourceConfig(path='', crop=crop), SPEC, is_precise=True)
    images = (wall_view(0), wall_view(1))
    # Less than a quarter of a view wide.
    points = np.random.default_rng(0).uniform(30, 38, (25, 2)).astype(np.float32)
    for seed in range(10):
        pair = maker.make(images, (points, points + 50), np.random.default_rng(seed))
        assert (pair.state == MATCHED).sum() == 25
    few = (points[:19], points[:19] + 50)
    assert maker.make(images, few, np.random.default_rng(0)) is None


def test_track_images_that_are_missing_or_cut_are_named(posed, caplog):
    (posed / '0.jpg').unlink()
    (posed / '1.jpg').write_bytes((posed / '1.jpg').read_bytes()[:400])
    (posed / 'points/2.npz').unlink()
    with caplog.at_level(logging.WARNING):
        assert_pairs_show_the_same_place(
            TrackSourceConfig(path=str(posed), photometric_strength=0)
        )
    (record,) = caplog.records
    assert '3 of 6 images are not used' in record.getMessage()
    for name in ('0.jpg', '1.jpg: JPEG is cut short', '2.jpg: no points'):
        assert name in record.getMessage()


def test_tracks_that_are_cut_short_are_named(posed, caplog):
    tracks = sorted((posed / 'points').iterdir())
    tracks[0].write_bytes(tracks[0].read_bytes()[:100])
    tracks[1].write_bytes(b'')
    with caplog.at_level(logging.WARNING):
        make_source(TrackSourceConfig(path=str(posed)), SPEC)
    assert '2 of 6 images are not used' in caplog.records[0].getMessage()


def test_tracks_of_another_shape_are_named(posed, caplog):
    ids, xy, _ = landmarks(0)
    np.savez(posed / 'points/0.npz', xy=xy[:-1], id=ids)
    np.savez(posed / 'points/1.npz', xy=landmarks(1)[1].T, id=landmarks(1)[0])
    with caplog.at_level(logging.WARNING):
        make_source(TrackSourceConfig(path=str(posed)), SPEC)
    (record,) = caplog.records
    assert '2 of 6 images are not used' in record.getMessage()
    assert f'xy of shape (2, {len(landmarks(1)[0])})' in record.getMessage()


def test_few_points_a_pair_are_enough(tmp_path):
    write_seven_scenes(tmp_path)
    config = RgbdSourceConfig(path=str(tmp_path), min_step=1, min_overlap=0.1)
    make_source(config, ViewSpec(SPEC.size, 10)).sample(np.random.default_rng(0))


def test_too_few_tracks_are_an_error(posed):
    with pytest.raises(ValueError, match='none of 15 pairs has 1000 common points'):
        make_source(TrackSourceConfig(path=str(posed), min_tracks=1000), SPEC)


# --- keyframe maps --------------------------------------------------------------------------


def save_walk(folder):
    write_seven_scenes(folder / 'walk', 12)
    save_map(KeyframeMap(SevenScenesSequence(folder / 'walk')), folder / 'map')


def save_walk_with_landmarks(folder, without=()):
    """As `save_walk`, with landmarks in place of depth; some keyframes have none."""
    write_seven_scenes(folder / 'walk', 12)
    rng = np.random.default_rng(0)
    keyframes = []
    for index, frame in enumerate(SevenScenesSequence(folder / 'walk')):
        _, pixels, points = landmarks(index)
        has_landmarks = index not in without
        keyframes.append(
            Keyframe(
                id=frame.id,
                stamp_s=frame.stamp_s,
                T_map_camera=frame.T_map_camera,
                camera=frame.camera,
                image=frame.image,
                landmark_pixels=pixels if has_landmarks else None,
                # Rounded otherwise for every keyframe.
                landmark_points_map=points + rng.normal(0, 1e-9, points.shape)
                if has_landmarks
                else None,
            )
        )
    save_map(KeyframeMap(keyframes), folder / 'map')


def test_keyframes_with_depth_show_the_same_place(tmp_path):
    save_walk(tmp_path)
    source = assert_pairs_show_the_same_place(
        KeyframeMapSourceConfig(
            path=str(tmp_path / 'map'), photometric_strength=0, is_precise=False
        )
    )
    assert not source.sample(np.random.default_rng(0)).is_precise


def test_keyframes_with_landmarks_show_the_same_place(tmp_path):
    save_walk_with_landmarks(tmp_path)
    source = assert_pairs_show_the_same_place(
        KeyframeMapSourceConfig(
            path=str(tmp_path / 'map'), photometric_strength=0, min_landmarks=220
        )
    )
    # Eleven steps of the walk share a third of that.
    ids = [keyframe.id for keyframe in source._keyframes]
    assert max(abs(ids[i] - ids[j]) for i, j, *_ in source._pairs) in (3, 4)


def test_every_nth_keyframe_is_held_back():
    training, held_back = split_keyframes(range(10), 4)
    assert held_back == [2, 6]
    assert training == [0, 1, 3, 4, 5, 7, 8, 9]
    assert split_keyframes(range(3), 0) == ([0, 1, 2], [])


@pytest.mark.parametrize('has_depth', [True, False])
def test_held_back_keyframes_are_in_no_training_pair_and_one_in_every_other(tmp_path, has_depth):
    if has_depth:
        save_walk(tmp_path)
    else:
        save_walk_with_landmarks(tmp_path, without=(0,))
    held_back = {2, 7}
    pairs = {}
    for part in ('training', 'held_back'):
        source = make_source(KeyframeMapSourceConfig(path=str(tmp_path / 'map'), part=part), SPEC)
        pairs[part] = [
            {source._keyframes[i].id, source._keyframes[j].id} for i, j, *_ in source._pairs
        ]
    assert pairs['training']
    assert not any(held_back & pair for pair in pairs['training'])
    assert all(len(held_back & pair) == 1 for pair in pairs['held_back'])
    assert held_back <= set.union(*pairs['held_back'])


def test_a_keyframe_is_compared_with_the_nearest_ones_alone(tmp_path):
    save_walk(tmp_path)
    config = KeyframeMapSourceConfig(
        path=str(tmp_path / 'map'), num_neighbours=2, hold_back_every=0
    )
    assert {abs(i - j) for i, j in make_source(config, SPEC)._pairs} == {1, 2}


def test_holding_back_what_is_not_there_is_refused(tmp_path):
    for every in (-1, 1):
        with pytest.raises(ValueError, match=f'hold_back_every is {every}'):
            KeyframeMapSourceConfig(path='map', hold_back_every=every)
    with pytest.raises(ValueError, match='part is held_back'):
        KeyframeMapSourceConfig(path='map', hold_back_every=0, part='held_back')
    save_walk(tmp_path)
    with pytest.raises(ValueError, match='of 12 keyframes none is held back when every 30th is'):
        make_source(
            KeyframeMapSourceConfig(
                path=str(tmp_path / 'map'), hold_back_every=30, part='held_back'
            ),
            SPEC,
        )


def test_held_back_keyframes_without_depth_are_not_replaced_by_others(tmp_path):
    stems = write_seven_scenes(tmp_path / 'walk', 12)
    for index in (2, 7):
        stems[index].with_suffix('.depth.png').unlink()
    save_map(KeyframeMap(SevenScenesSequence(tmp_path / 'walk')), tmp_path / 'map')
    with pytest.raises(ValueError, match='part held_back: of 10 keyframes no two share 20%'):
        make_source(KeyframeMapSourceConfig(path=str(tmp_path / 'map'), part='held_back'), SPEC)


def test_a_map_without_depth_and_landmarks_is_an_error(tmp_path):
    for stem in write_seven_scenes(tmp_path / 'walk'):
        stem.with_suffix('.depth.png').unlink()
    save_map(KeyframeMap(SevenScenesSequence(tmp_path / 'walk')), tmp_path / 'map')
    with pytest.raises(ValueError, match='without depth no two share'):
        make_source(KeyframeMapSourceConfig(path=str(tmp_path / 'map')), SPEC)


# --- MegaDepth ------------------------------------------------------------------------------


@pytest.fixture
def megadepth(tmp_path):
    """A scene of six images and one without files, as D2-Net prepares it."""
    h5py = pytest.importorskip('h5py', reason='h5py is not installed')
    (tmp_path / 'scene_info').mkdir()
    (tmp_path / 'depths').mkdir()
    count = 6
    for index in range(count):
        write_image(tmp_path / f'images/{index}.jpg', wall_view(index))
        with h5py.File(tmp_path / f'depths/{index}.h5', 'w') as file:
            file['depth'] = np.full(SIZE[::-1], WALL_M, np.float32)
    # COLMAP's pixels.
    intrinsics = K.copy()
    intrinsics[:2, 2] += 0.5
    overlap = np.full((count + 1, count + 1), -1.0)
    overlap[:count, :count] = 1 - np.abs(np.subtract.outer(range(count), range(count))) * 0.05
    info = {
        'image_paths': objects([*(f'images/{i}.jpg' for i in range(count)), None]),
        'depth_paths': objects([*(f'depths/{i}.h5' for i in range(count)), None]),
        'intrinsics': objects([*(intrinsics for _ in range(count)), None]),
        'poses': objects([*(invert(T_world_camera(i)) for i in range(count)), None]),
        'overlap_matrix': overlap,
        'points3D_id_to_2D': objects([{1: (2.0, 3.0)}, None]),
    }
    write_scene(tmp_path, info)
    return tmp_path, info


def write_scene(folder, info):
    np.savez(folder / 'scene_info/0000.npz', **info)


def test_megadepth_pairs_show_the_same_place(megadepth):
    folder, _ = megadepth
    source = assert_pairs_show_the_same_place(
        MegaDepthSourceConfig(path=str(folder), photometric_strength=0)
    )
    assert all(i != j for i, j in source._scenes[0].pairs)


def test_megadepth_frames_have_our_pixels_and_no_depth_of_zero(megadepth):
    folder, _ = megadepth
    with importlib.import_module('h5py').File(folder / 'depths/0.h5', 'a') as file:
        file['depth'][:, :40] = 0
    source = make_source(MegaDepthSourceConfig(path=str(folder)), SPEC)
    frame = source._frame(source._scenes[0], 0)
    np.testing.assert_allclose(frame.camera.K, K)
    assert np.isnan(frame.depth).mean() == 40 / SIZE[0]


def test_megadepth_scenes_are_chosen_by_name_and_used_where_they_have_pairs(megadepth):
    folder, info = megadepth
    nothing = {**info, 'overlap_matrix': np.full((7, 7), -1.0)}
    np.savez(folder / 'scene_info/0001.npz', **nothing)
    source = make_source(MegaDepthSourceConfig(path=str(folder)), SPEC)
    assert len(source._scenes) == 1
    with pytest.raises(ValueError, match='1 scenes have no pair'):
        make_source(MegaDepthSourceConfig(path=str(folder), scenes=('0001',)), SPEC)
    with pytest.raises(FileNotFoundError, match=r'No 0002\.npz'):
        make_source(MegaDepthSourceConfig(path=str(folder), scenes=('0002',)), SPEC)


def test_megadepth_pair_lists_of_loftr_are_read(megadepth):
    folder, info = megadepth
    del info['overlap_matrix']
    info['pair_infos'] = objects([((0, 2), 0.6, np.zeros(3)), ((1, 4), 0.3, np.zeros(3))])
    write_scene(folder, info)
    source = assert_pairs_show_the_same_place(
        MegaDepthSourceConfig(path=str(folder), min_overlap=0.5, photometric_strength=0)
    )
    assert source._scenes[0].pairs.tolist() == [[0, 2]]
    source = make_source(MegaDepthSourceConfig(path=str(folder), max_overlap=0.5), SPEC)
    assert source._scenes[0].pairs.tolist() == [[1, 4]]


def test_megadepth_images_without_files_or_rigid_pose_are_named(megadepth, caplog):
    folder, info = megadepth
    (folder / 'depths/0.h5').unlink()
    info['poses'][1] = np.diag([1.0, 1, 2, 1])
    write_scene(folder, info)
    with caplog.at_level(logging.WARNING):
        assert_pairs_show_the_same_place(
            MegaDepthSourceConfig(path=str(folder), photometric_strength=0)
        )
    (record,) = caplog.records
    assert '2 of 7 images are not used' in record.getMessage()
    assert '0.h5' in record.getMessage()
    assert '1.jpg: no pose, or one that is not rigid' in record.getMessage()


def test_megadepth_files_that_turn_out_damaged_are_named_once(megadepth, caplog):
    folder, _ = megadepth
    (folder / 'images/3.jpg').write_bytes(b'')
    (folder / 'depths/4.h5').write_bytes(b'not an h5 file')
    with importlib.import_module('h5py').File(folder / 'depths/5.h5', 'w') as file:
        file['depth'] = np.ones((64, 80), np.float32)
    source = make_source(MegaDepthSourceConfig(path=str(folder)), SPEC)
    with caplog.at_level(logging.WARNING):
        for seed in range(15):
            source.sample(np.random.default_rng(seed))
    assert len(caplog.records) == 3
    assert '5.jpg is 160 x 128, its depth (80, 64) px' in caplog.text


@pytest.mark.parametrize(('suffix', 'columns'), [('jpg', 251), ('png', 1003)])
def test_images_of_megadepth_are_read_small_where_that_is_exact(megadepth, suffix, columns):
    folder, info = megadepth
    # No multiple of 4: of a PNG OpenCV would make 250 columns, 4.012 pixels wide.
    width, height = 1003, 805
    write_image(folder / f'images/large.{suffix}', gradient(width, height))
    with importlib.import_module('h5py').File(folder / 'depths/0.h5', 'w') as file:
        file['depth'] = np.full((height, width), WALL_M, np.float32)
    info['image_paths'][0] = f'images/large.{suffix}'
    write_scene(folder, info)
    config = MegaDepthSourceConfig(path=str(folder), crop=CropConfig(min_extent=0.5))
    source = make_source(config, ViewSpec((96, 64), 200))
    assert source._frame(source._scenes[0], 0).image.shape[1] == columns


def test_a_pickle_that_runs_programs_is_refused(megadepth):
    folder, info = megadepth

    class Evil:
        def __reduce__(self):
            return (print, ('run',))

    info['poses'] = objects([Evil()])
    write_scene(folder, info)
    with pytest.raises(ValueError, match=r'holds builtins\.print, wanted arrays only'):
        make_source(MegaDepthSourceConfig(path=str(folder)), SPEC)


# --- posed images ---------------------------------------------------------------------------

CROP = CropConfig(min_extent=0.8, rotation_std_deg=15)


def open_posed(folder, **fields):
    return make_source(
        PosedImageSourceConfig(path=str(folder), photometric_strength=0, crop=CROP, **fields), SPEC
    )


def assert_pairs_keep_their_geometry(source):
    for seed in range(4):
        assert_epipolar(source.sample(np.random.default_rng(seed)))


def test_pairs_of_a_list_keep_their_epipolar_geometry(posed):
    assert_pairs_keep_their_geometry(open_posed(posed))


def test_a_pair_of_two_cameras_keeps_its_epipolar_geometry_both_ways(posed):
    """The second camera has 1.6 times the resolution, so the two roles differ."""
    factor = 1.6
    image = cv2.resize(wall_view(4), None, fx=factor, fy=factor)
    write_image(posed / 'large.jpg', image)
    intrinsics = resize_view(factor, factor) @ K
    T_1_0 = invert(T_world_camera(4)) @ T_world_camera(0)
    numbers = ' '.join(f'{value:.9g}' for m in (K, intrinsics, T_1_0) for value in m.ravel())
    (posed / 'pairs.txt').write_text(f'0.jpg large.jpg 0 0 {numbers}\n')
    assert_pairs_keep_their_geometry(open_posed(posed))


def test_seven_scenes_without_depth_keep_their_epipolar_geometry(tmp_path):
    stems = write_seven_scenes(tmp_path)
    for stem in stems:
        stem.with_suffix('.depth.png').unlink()
    stems[0].with_suffix('.pose.txt').unlink()
    source = open_posed(tmp_path)
    assert_pairs_keep_their_geometry(source)
    assert {key for r in source._relations for key in (r.key0, r.key1)} == set(range(1, 8))


def test_seven_scenes_pairs_have_the_steps_baseline_and_rotation_of_the_config(tmp_path):
    stems = write_seven_scenes(tmp_path)
    turned = T_world_camera(7)
    turned[:3, :3] = cv2.Rodrigues(np.array([0, 0.8, 0]))[0]
    np.savetxt(f'{stems[7]}.pose.txt', turned)
    # Cameras are 8 cm apart.
    for fields, steps in (
        ({'min_step': 2, 'max_step': 4}, {2, 3, 4}),
        ({'min_step': 2, 'max_step': 4, 'min_baseline_m': 0.2}, {3, 4}),
    ):
        source = open_posed(tmp_path, **fields)
        assert {(r.key0, r.key1) for r in source._relations} == {
            (i, i + step) for step in steps for i in range(7 - step)
        }


def write_colmap_text(folder):
    """Write four images of the wall, and a model of them."""
    lines = '# images\n'
    tracks = {}
    for index in range(4):
        write_image(folder / f'images/view_{index}.jpg', wall_view(index))
        ids, xy, points = landmarks(index)
        x = -T_world_camera(index)[0, 3]
        lines += f'{index + 1} 1 0 0 0 {x} 0 0 7 view_{index}.jpg\n'
        lines += ' '.join(f'{p[0]} {p[1]} {i}' for p, i in zip(xy, ids, strict=True)) + ' 5 5 -1\n'
        for place, (i, point) in enumerate(zip(ids, points, strict=True)):
            tracks.setdefault(i, f'{i} {point[0]} {point[1]} {point[2]} 0 0 0 1')
            tracks[i] += f' {index + 1} {place}'
    (folder / 'sparse').mkdir()
    (folder / 'sparse/images.txt').write_text(lines)
    (folder / 'sparse/points3D.txt').write_text('\n'.join(tracks.values()) + '\n')
    (folder / 'sparse/cameras.txt').write_text('7 PINHOLE 160 128 200 200 80 64\n')


def test_a_colmap_model_keeps_its_epipolar_geometry(tmp_path):
    pycolmap = pytest.importorskip('pycolmap', reason='pycolmap is not installed')
    write_colmap_text(tmp_path)
    as_text = open_posed(tmp_path)
    assert_pairs_keep_their_geometry(as_text)
    model = pycolmap.Reconstruction(tmp_path / 'sparse')
    for file in (tmp_path / 'sparse').iterdir():
        file.unlink()
    model.write_binary(tmp_path / 'sparse')
    as_binary = open_posed(tmp_path)
    one, other = (source.sample(np.random.default_rng(0)) for source in (as_text, as_binary))
    np.testing.assert_array_equal(one.image0, other.image0)
    np.testing.assert_array_equal(one.fundamental, other.fundamental)


def test_the_geometry_of_a_colmap_model_goes_from_the_first_image_to_the_second(tmp_path):
    pytest.importorskip('pycolmap', reason='pycolmap is not installed')
    write_colmap_text(tmp_path)
    file = tmp_path / 'sparse/images.txt'
    file.write_text(file.read_text().replace('\n2 1 0 0 0 ', '\n2 0.6 0 0 0.8 '))
    (relation,) = [
        r
        for r in open_posed(tmp_path)._relations
        if (r.key0, r.key1) == ('view_0.jpg', 'view_1.jpg')
    ]
    points = landmarks(0)[2]
    turn = np.array([[-0.28, -0.96, 0], [0.96, -0.28, 0], [0, 0, 1]])
    rays = points, points @ turn.T - T_world_camera(1)[:3, 3]
    pixels = [(ray @ K.T)[:, :2] / ray[:, 2:] for ray in rays]
    assert symmetric_epipolar_distance_px(*pixels, relation.fundamental).max() < 1e-3


def test_images_of_a_colmap_model_from_one_place_make_no_pair(tmp_path):
    pytest.importorskip('pycolmap', reason='pycolmap is not installed')
    write_colmap_text(tmp_path)
    file = tmp_path / 'sparse/images.txt'
    place = -T_world_camera(0)[0, 3]
    file.write_text(re.sub(r'\n2 1 0 0 0 \S+', f'\n2 1 0 0 0 {place}', file.read_text()))
    relations = open_posed(tmp_path)._relations
    assert {frozenset((r.key0, r.key1)) for r in relations} == {
        frozenset(f'view_{i}.jpg' for i in pair)
        for pair in ((0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    }
    assert all(np.isfinite(r.fundamental).all() for r in relations)


def test_files_of_another_size_than_the_model_have_their_camera_scaled(tmp_path, caplog):
    pytest.importorskip('pycolmap', reason='pycolmap is not installed')
    write_colmap_text(tmp_path)
    for index, sides in ((1, (80, 64)), (3, (80, 80))):
        path = tmp_path / f'images/view_{index}.jpg'
        write_image(path, cv2.resize(wall_view(index), sides, interpolation=cv2.INTER_AREA))
    with caplog.at_level(logging.WARNING):
        source = open_posed(tmp_path)
    assert 'view_3.jpg: image of 80 x 80 pixels' in caplog.records[0].getMessage()
    assert {frozenset((r.key0, r.key1)) for r in source._relations} == {
        frozenset(f'view_{i}.jpg' for i in pair) for pair in ((0, 1), (0, 2), (1, 2))
    }
    assert_pairs_keep_their_geometry(source)


def test_a_colmap_model_without_common_points_or_with_distortion_is_refused(tmp_path):
    pytest.importorskip('pycolmap', reason='pycolmap is not installed')
    write_colmap_text(tmp_path)
    with pytest.raises(ValueError, match='no pair of images'):
        open_posed(tmp_path, min_shared_points=10_000)
    (tmp_path / 'sparse/cameras.txt').write_text('7 OPENCV 160 128 200 200 80 64 0.1 0 0 0\n')
    with pytest.raises(ValueError, match='image_undistorter'):
        open_posed(tmp_path)


def test_pairs_without_baseline_or_rigid_pose_are_named(posed, caplog):
    lines = line_of(1, 0) + line_of(2, 0, T_1_0=np.eye(4))
    (posed / 'pairs.txt').write_text(lines + line_of(3, 0, T_1_0=2 * T_world_camera(1)))
    with caplog.at_level(logging.WARNING):
        assert_pairs_keep_their_geometry(open_posed(posed))
    assert '2 of 7 images and pairs are not used' in caplog.records[0].getMessage()


def test_a_damaged_line_of_a_list_is_named(posed):
    (posed / 'pairs.txt').write_text(line_of(1, 0) + '2.jpg 3.jpg 0 0 1 2 3\n')
    with pytest.raises(ValueError, match='line 2'):
        open_posed(posed)


def test_epipolar_and_corresponding_sources_do_not_mix(posed):
    configs = [PosedImageSourceConfig(path=str(posed)), TrackSourceConfig(path=str(posed))]
    with pytest.raises(ValueError, match='sources mix posed_images'):
        make_mixture(configs, SPEC, 10, seed=0)
    batch = make_mixture(configs[:1], SPEC, 10, seed=0)[0]
    assert batch['fundamental'].shape == (3, 3)
    assert batch['image0'].shape == (3, 128, 160)
