"""Rendered rooms: correspondences that hold, rooms that change on time, repeatability."""

from __future__ import annotations

import cv2
import numpy as np
from pair_samples import colours, gradient, write_image
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.rendering import camera_pose
from coam_ros.training.data import make_source, RoomSourceConfig, ViewSpec
from coam_ros.training.data.pairs import MATCHED, UNMATCHED
from coam_ros.training.data.rooms import _direction
from coam_ros.training.data.views import CropConfig

SPEC = ViewSpec((128, 96), 160)


@pytest.fixture
def photos(tmp_path):
    """Smooth pictures, so that a pixel beside the right one has nearly its colour."""
    for index in range(3):
        photo = np.roll(gradient(320, 240), index, axis=2)
        write_image(tmp_path / f'{index}.png', cv2.GaussianBlur(photo, (0, 0), 3))
    return tmp_path


def open_rooms(folder, **fields):
    config = RoomSourceConfig(
        path=str(folder),
        photometric_strength=0,
        pairs_per_room=5,
        texels_per_m=40,
        min_size_m=(3, 3, 2.3),
        max_size_m=(4, 4, 2.6),
        crop=CropConfig(min_extent=0.8),
        **{'frames_per_room': 12, 'light_strength': 0, **fields},
    )
    return make_source(config, SPEC)


def test_matched_points_have_one_colour_and_others_none(photos):
    source = open_rooms(photos)
    matched, elsewhere, states = [], [], []
    for seed in range(6):
        pair = source.sample(np.random.default_rng(seed), 0)
        is_matched = pair.state == MATCHED
        seen0 = colours(pair.image0, pair.points0[is_matched])
        seen1 = colours(pair.image1, pair.points1[is_matched])
        matched += np.abs(seen0 - seen1).mean(axis=1).tolist()
        elsewhere += np.abs(seen0 - seen1[::-1]).mean(axis=1).tolist()
        states += pair.state.tolist()
    # White light of strength 0: the same texture, drawn twice, from afar and from near.
    assert np.median(matched) < 4
    assert np.median(elsewhere) > 5 * np.median(matched)
    assert UNMATCHED in states


def test_an_item_is_the_same_in_a_process_that_made_other_rooms_before(photos):
    fresh, used = open_rooms(photos), open_rooms(photos)
    used.sample(np.random.default_rng(1), 0)
    used.sample(np.random.default_rng(2), 11)
    one, two = (source.sample(np.random.default_rng(3), 5) for source in (fresh, used))
    np.testing.assert_array_equal(one.image0, two.image0)
    np.testing.assert_array_equal(one.points1, two.points1)


def test_the_room_changes_after_its_pairs(photos):
    source = open_rooms(photos)
    images = [source.sample(np.random.default_rng(0), item).image0 for item in (0, 4, 5)]
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0].astype(int) - images[2]).mean() > 5


def test_rooms_have_the_seed_the_light_and_the_cameras_of_the_config(photos):
    fields = {'min_fov_deg': 60.0, 'max_fov_deg': 70.0}
    sources = [
        open_rooms(photos, **fields, **others)
        for others in ({}, {'seed': 1}, {'light_strength': 1.0})
    ]
    images = [source.sample(np.random.default_rng(0)).image0.astype(int) for source in sources]
    assert np.abs(images[0] - images[1]).mean() > 5
    assert np.abs(images[0] - images[2]).mean() > 3
    for index in range(3):
        camera = sources[0]._room.frame(index).camera
        assert 60 <= 2 * np.rad2deg(np.arctan(camera.width / 2 / camera.fx)) <= 70


def test_cameras_of_a_group_look_at_one_place(photos):
    np.testing.assert_allclose(
        camera_pose((0, 0, 0), *_direction(np.array([2.0, 3.0, 6.0])))[:3, 2],
        np.array([2, 3, 6]) / 7,
    )
    source = open_rooms(photos)
    for number in range(3):
        source.sample(np.random.default_rng(0), 5 * number)
        # Of 60 in the two groups.
        assert sum(i // 6 == j // 6 for i, j in source._room.pairs) > 42


def test_frames_that_never_overlap_are_named(photos):
    with pytest.raises(ValueError, match='wanted 0 <= min_overlap < 1'):
        open_rooms(photos, min_overlap=1.0)
    narrow = {'frames_per_room': 2, 'min_fov_deg': 10.0, 'max_fov_deg': 10.0}
    source = open_rooms(photos, min_overlap=0.999, **narrow)
    with pytest.raises(ValueError, match='lower min_overlap'):
        source.sample(np.random.default_rng(0))


def test_impossible_cameras_are_named():
    with pytest.raises(ValueError, match='field of view'):
        RoomSourceConfig(min_fov_deg=90, max_fov_deg=60)
