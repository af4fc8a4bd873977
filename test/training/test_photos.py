"""Photo pairs: correspondences that hold, unusable files that are named, repeatability."""

from __future__ import annotations

from dataclasses import replace
import logging

import cv2
import numpy as np
from pair_samples import assert_same_place, gradient, write_image
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.training.checkpoint import hash_names_and_sizes
from coam_ros.training.data import make_mixture, make_source, PhotoSourceConfig, ViewSpec
from coam_ros.training.data.pairs import MATCHED, UNMATCHED
from coam_ros.training.data.reading import list_photos
from coam_ros.training.data.views import CropConfig, HomographyConfig

SPEC = ViewSpec((160, 128), 200)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    for index in range(2):
        write_image(folder / f'{index}.png', gradient(320, 240))
    return folder


def open_photos(folder, **fields):
    return make_source(PhotoSourceConfig(path=str(folder), **fields), SPEC)


@pytest.mark.parametrize('seed', range(5))
def test_both_views_show_the_same_place(photos, seed):
    source = open_photos(photos, unrelated_share=0, photometric_strength=0)
    assert_same_place(source.sample(np.random.default_rng(seed)))


def test_large_photos_read_small_show_the_same_place(tmp_path):
    write_image(tmp_path / 'large.jpg', gradient(1601, 1203))
    source = open_photos(tmp_path, unrelated_share=0, photometric_strength=0)
    for seed in range(3):
        assert_same_place(source.sample(np.random.default_rng(seed)))


def test_points_are_middles_of_blocks_or_any_pixels(photos):
    config = PhotoSourceConfig(path=str(photos))
    for spec, places in ((SPEC, {3.5}), (replace(SPEC, points='pixels'), {*range(8)})):
        points = make_source(config, spec).sample(np.random.default_rng(0)).points0
        assert set((points % 8).ravel()) == places


def test_photos_behind_links_to_folders_are_found(photos, tmp_path):
    linked = tmp_path / 'linked'
    linked.mkdir()
    (linked / 'here').symlink_to(photos)
    (linked / 'around').symlink_to(linked)
    assert list(list_photos(linked)) == [linked / 'here' / f'{index}.png' for index in range(2)]
    before = hash_names_and_sizes([linked])
    (photos / '1.png').unlink()
    assert hash_names_and_sizes([linked]) != before


def test_the_strengths_of_the_config_are_those_of_the_pairs(photos):
    """Without tilt, turn and shift, a homography that doubles the scale doubles distances."""
    still = HomographyConfig(
        max_tilt=0,
        rotation_std_deg=0,
        free_rotation_share=0,
        min_scale=2,
        max_scale=2,
        max_shift=0,
    )
    pair = open_photos(photos, homography=still, unrelated_share=0).sample(
        np.random.default_rng(0)
    )
    matched = pair.state == MATCHED
    points0, points1 = pair.points0[matched], pair.points1[matched]
    np.testing.assert_allclose(points1 - points1[0], 2 * (points0 - points0[0]), atol=1e-3)


def test_a_crop_of_the_whole_photo_is_the_photo(photos):
    whole = CropConfig(min_extent=1, max_extent=1, rotation_std_deg=0)
    source = make_source(
        PhotoSourceConfig(path=str(photos), crop=whole, photometric_strength=0),
        ViewSpec((320, 256), 10),
    )
    image = source.sample(np.random.default_rng(0)).image0
    # 240 rows fill 256, so the scale is 256 / 240, and some columns fall away.
    rows = (np.arange(256) + 0.5) * 240 / 256 - 0.5
    # The outermost rows blend with the black beyond.
    assert np.abs(image[:, 160, 1] - rows / 240 * 255)[1:-1].max() < 1.5


def test_unrelated_photos_have_no_match(photos):
    pair = open_photos(photos, unrelated_share=1).sample(np.random.default_rng(0))
    assert (pair.state == UNMATCHED).all()


def test_a_single_photo_is_unrelated_to_none(tmp_path):
    write_image(tmp_path / 'one.png', gradient(320, 240))
    source = open_photos(tmp_path, unrelated_share=1.0)
    assert (source.sample(np.random.default_rng(0)).state == MATCHED).any()


def test_unusable_files_are_named_and_counted_in_one_warning(photos, caplog):
    data = cv2.imencode('.jpg', gradient(320, 240))[1].tobytes()
    (photos / 'cut.jpg').write_bytes(data[: len(data) // 2])
    (photos / 'empty.png').write_bytes(b'')
    write_image(photos / 'tiny.png', gradient(40, 30))
    (photos / 'mask.png').write_bytes(cv2.imencode('.png', np.ones((200, 200)))[1].tobytes())
    with caplog.at_level(logging.WARNING):
        source = open_photos(photos)
    (record,) = caplog.records
    assert '4 of 6 photos are not used' in record.getMessage()
    for name in ('cut.jpg', 'empty.png', 'tiny.png', 'mask.png'):
        assert name in record.getMessage()
    source.sample(np.random.default_rng(0))


def test_grey_and_sixteen_bit_photos_are_used(tmp_path):
    grey = gradient(320, 240)[..., 0]
    cv2.imwrite(str(tmp_path / 'grey.jpg'), grey)
    cv2.imwrite(str(tmp_path / 'deep.png'), grey.astype(np.uint16) * 257)
    source = open_photos(tmp_path, photometric_strength=0, unrelated_share=0)
    for seed in range(4):
        image = source.sample(np.random.default_rng(seed)).image0
        assert image.shape == (128, 160, 3)
        assert (image[..., 0] == image[..., 2]).all()
        assert image.max() > 100


def test_a_folder_without_a_usable_photo_is_named(tmp_path):
    with pytest.raises(ValueError, match='No training photos'):
        open_photos(tmp_path)
    with pytest.raises(FileNotFoundError, match='missing'):
        open_photos(tmp_path / 'missing')


def test_an_item_is_the_same_in_every_run_and_after_others(photos):
    configs = [
        PhotoSourceConfig(path=str(photos), weight=3.0),
        PhotoSourceConfig(path=str(photos), weight=1.0, cache_mb=0),
    ]
    first, second = (make_mixture(configs, SPEC, 10, seed=3) for _ in range(2))
    for index in range(7):
        second[index]
    for key, value in first[7].items():
        assert value.equal(second[7][key])
    assert not first[7]['image0'].equal(make_mixture(configs, SPEC, 10, seed=4)[7]['image0'])


@pytest.mark.parametrize(
    ('fields', 'name'),
    [
        ({'weight': -1.0}, 'weight'),
        ({'unrelated_share': 1.5}, 'unrelated_share'),
        ({'cache_mb': -1}, 'cache_mb'),
    ],
)
def test_a_field_out_of_range_is_named(fields, name):
    with pytest.raises(ValueError, match=name):
        PhotoSourceConfig(path='photos', **fields)
    with pytest.raises(ValueError, match='min_extent'):
        CropConfig(min_extent=0.9, max_extent=0.5)
    with pytest.raises(ValueError, match='multiples of 32'):
        ViewSpec((100, 64), 10)
