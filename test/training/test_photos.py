"""Photo pairs: correspondences that hold, unusable files that are named, repeatability."""

from __future__ import annotations

from dataclasses import replace
import logging

import cv2
import numpy as np
from pair_samples import assert_same_place, colours, gradient, write_image
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.geometry.image_views import is_inside, transform
from coam_ros.training.checkpoint import hash_names_and_sizes
from coam_ros.training.data import make_mixture, make_source, PhotoSourceConfig, ViewSpec
from coam_ros.training.data.pairs import IGNORED, MATCHED, PairFinisher, UNMATCHED
from coam_ros.training.data.reading import (
    ArrayCache,
    files_below,
    largest_reduction,
    list_photos,
)
from coam_ros.training.data.views import (
    CropConfig,
    HomographyConfig,
    random_crop,
    random_homography,
)

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
    # Half of the size is still more than the most magnified view of 160 px shows.
    assert source._photo(0).shape == (602, 801, 3)
    assert largest_reduction((800, 300), (100, 100)) == 2


def test_points_are_middles_of_blocks_or_any_pixels_of_the_whole_view(photos):
    config = PhotoSourceConfig(path=str(photos))
    for spec, places in ((SPEC, {3.5}), (replace(SPEC, points='pixels'), {*range(8)})):
        points = make_source(config, spec).sample(np.random.default_rng(0)).points0
        assert set((points % 8).ravel()) == places
        many = spec.draw_points(20_000, np.random.default_rng(0))
        assert many.min(axis=0).tolist() == [min(places)] * 2
        assert many.max(axis=0).tolist() == [152 + max(places), 120 + max(places)]


def test_crops_show_all_parts_of_an_image_at_all_extents_and_nothing_beside_it():
    config, rng = CropConfig(min_extent=0.5, rotation_std_deg=0), np.random.default_rng(0)
    crops = [random_crop((320, 240), SPEC.size, config, rng) for _ in range(300)]
    scales = [crop[0, 0] for crop in crops]
    # 128 of 240 rows: the side that fits.
    assert min(scales) == pytest.approx(128 / 240, rel=0.02)
    assert max(scales) == pytest.approx(2 * 128 / 240, rel=0.02)
    view = [[-0.5, -0.5], [159.5, 127.5]]
    seen = np.array([transform(view, np.linalg.inv(crop)) for crop in crops])
    np.testing.assert_allclose(seen.min(axis=(0, 1)), -0.5, atol=2)
    np.testing.assert_allclose(seen.max(axis=(0, 1)), (319.5, 239.5), atol=2)
    assert seen.min() > -0.501
    assert (seen < (319.501, 239.501)).all()
    assert seen.mean(axis=1).std(axis=0).min() > 15


def test_a_crop_around_a_point_shows_it_anywhere_but_at_the_border_and_stays_on_the_image():
    config, rng = CropConfig(max_extent=0.5, rotation_std_deg=0), np.random.default_rng(0)
    view = [[-0.5, -0.5], [159.5, 127.5]]
    for point, spread_px in (((160, 120), 30), ((0, 0), 0), ((319, 239), 0)):
        places = []
        for _ in range(100):
            crop = random_crop((320, 240), SPEC.size, config, rng, np.array(point))
            seen = transform(view, np.linalg.inv(crop))
            assert (seen > -0.501).all()
            assert (seen < (319.501, 239.501)).all()
            places.append(transform([point], crop)[0])
        assert is_inside(places, SPEC.size).all()
        assert np.ptp(places, axis=0).min() > spread_px


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_a_share_of_the_views_turns_by_any_angle(share):
    fields = {'rotation_std_deg': 5.0, 'free_rotation_share': share}
    crop, change = CropConfig(**fields), HomographyConfig(max_tilt=0, **fields)
    rng = np.random.default_rng(0)
    for draw in (
        lambda: random_crop((320, 240), SPEC.size, crop, rng),
        lambda: random_homography(SPEC.size, change, rng),
    ):
        turns = (draw() for _ in range(300))
        is_free = [abs(np.arctan2(turn[1, 0], turn[0, 0])) > np.deg2rad(20) for turn in turns]
        # An angle of a ninth of all lies within the limit.
        assert np.mean(is_free) == pytest.approx(share * 8 / 9, abs=0.08)


def test_homographies_reach_all_scales_and_half_of_them_magnify():
    config = HomographyConfig(
        max_tilt=0, rotation_std_deg=0, free_rotation_share=0, min_scale=0.5, max_scale=2
    )
    rng = np.random.default_rng(0)
    scales = [random_homography(SPEC.size, config, rng)[0, 0] for _ in range(300)]
    assert min(scales) == pytest.approx(0.5, rel=0.03)
    assert max(scales) == pytest.approx(2, rel=0.03)
    assert np.median(scales) == pytest.approx(1, rel=0.1)


def test_points_beyond_the_photo_say_nothing(photos):
    source = open_photos(
        photos,
        crop=CropConfig(rotation_std_deg=45),
        unrelated_share=0,
        photometric_strength=0,
    )
    known, is_photo = [], []
    for seed in range(5):
        pair = source.sample(np.random.default_rng(seed))
        known += (pair.state != IGNORED).tolist()
        # The photos have a blue of 90, what lies beyond is black.
        is_photo += (colours(pair.image0, pair.points0)[:, 2] > 85).tolist()
    assert np.mean(is_photo) < 0.98
    assert np.mean(np.equal(known, is_photo)) > 0.99


def test_photos_behind_links_to_folders_are_found(photos, tmp_path):
    linked = tmp_path / 'linked'
    linked.mkdir()
    (linked / 'here').symlink_to(photos)
    (linked / 'around').symlink_to(linked)
    assert list(list_photos(linked)) == [linked / 'here' / f'{index}.png' for index in range(2)]
    before = hash_names_and_sizes([linked])
    (photos / '1.png').unlink()
    assert hash_names_and_sizes([linked]) != before


def test_files_come_in_order(tmp_path):
    for index in np.random.default_rng(0).permutation(20):
        (tmp_path / f'{index:02}.png').touch()
    assert files_below(tmp_path) == [tmp_path / f'{index:02}.png' for index in range(20)]


def test_the_cache_keeps_what_was_used_last_and_no_more_than_its_size():
    cache, read = ArrayCache(1), []
    for key in 'abacab':
        cache.get(key, lambda key=key: read.append(key) or np.zeros(400_000, np.uint8))
    # Two fit: c takes the place of b, which was used before a.
    assert read == ['a', 'b', 'c', 'b']


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


def test_unrelated_photos_are_two_in_any_order_and_have_no_match(photos):
    write_image(photos / '1.png', 255 - gradient(320, 240))
    source = open_photos(photos, unrelated_share=1, photometric_strength=0)
    first = set()
    for seed in range(8):
        pair = source.sample(np.random.default_rng(seed))
        assert (pair.state == UNMATCHED).all()
        is_second = [bool(image[..., 2].max() > 127) for image in (pair.image0, pair.image1)]
        assert is_second[0] != is_second[1]
        first.add(is_second[0])
    assert len(first) == 2


def test_a_single_photo_is_unrelated_to_none(tmp_path):
    write_image(tmp_path / 'one.png', gradient(320, 240))
    source = open_photos(tmp_path, unrelated_share=1.0)
    assert (source.sample(np.random.default_rng(0)).state == MATCHED).any()


def test_unusable_files_are_named_and_counted_in_one_warning(photos, caplog):
    data = cv2.imencode('.jpg', gradient(320, 240))[1].tobytes()
    (photos / 'cut.jpg').write_bytes(data[: len(data) // 2])
    (photos / 'empty.png').write_bytes(b'')
    write_image(photos / 'narrow.png', gradient(320, 40))
    (photos / 'mask.png').write_bytes(cv2.imencode('.png', np.ones((200, 200)))[1].tobytes())
    with caplog.at_level(logging.WARNING):
        source = open_photos(photos)
    (record,) = caplog.records
    assert '4 of 6 photos are not used' in record.getMessage()
    for name in ('cut.jpg', 'empty.png', 'narrow.png', 'mask.png'):
        assert name in record.getMessage()
    source.sample(np.random.default_rng(0))


def test_grey_and_sixteen_bit_photos_are_used(tmp_path):
    grey = gradient(320, 240)[..., 0]
    cv2.imwrite(str(tmp_path / 'GREY.JPG'), grey)
    cv2.imwrite(str(tmp_path / 'deep.png'), grey.astype(np.uint16) * 257)
    source = open_photos(tmp_path, photometric_strength=0, unrelated_share=0)
    assert len(source._photos) == 2
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
    assert not first[7]['image0'].equal(first[6]['image0'])
    assert not first[7]['image0'].equal(make_mixture(configs, SPEC, 10, seed=4)[7]['image0'])


def test_a_mixture_follows_its_weights_and_counts_the_pairs_of_each_source(photos):
    class Noting:
        def __init__(self, source):
            self.pair, self.items = source.sample(np.random.default_rng(0)), []

        def sample(self, rng, item):
            self.items.append(item)
            return self.pair

    configs = [PhotoSourceConfig(path=str(photos), weight=weight) for weight in (3.0, 1.0)]
    mixture = make_mixture(configs, SPEC, 800, seed=0)
    sources = mixture._sources = [Noting(source) for source in mixture._sources]
    for index in range(800):
        mixture[index]
    assert len(sources[0].items) == pytest.approx(600, abs=40)
    for source in sources:
        assert np.abs(np.arange(len(source.items)) - source.items).max() < 50


def test_a_finished_pair_holds_what_teaches_in_random_order_and_both_views_are_varied():
    image = gradient(64, 64)
    finisher = PairFinisher(PhotoSourceConfig(path='photos'), ViewSpec((64, 64), 10))
    state = np.repeat([IGNORED, MATCHED, UNMATCHED], (20, 6, 4))
    points0 = np.arange(60.0).reshape(30, 2)
    # As of points whose depth is not known.
    points1 = np.where((state == MATCHED)[:, None], points0 + 100, np.nan)

    def finish(rows):
        return finisher.finish(
            (image, image),
            (points0[rows], points1[rows]),
            state[rows],
            np.random.default_rng(0),
            is_precise=True,
        )

    pair = finish(slice(None))
    assert sorted(pair.points0.tolist()) == points0[20:].tolist()
    assert pair.points0.tolist() != points0[20:].tolist()
    matched = pair.state == MATCHED
    np.testing.assert_array_equal(pair.points1[matched], pair.points0[matched] + 100)
    np.testing.assert_array_equal(pair.points1[~matched], 0)
    for view in (pair.image0, pair.image1):
        assert (view != image).any()
    few = finish(slice(20, 23))
    assert few.state.tolist() == [MATCHED] * 3 + [IGNORED] * 7


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
    for config in (CropConfig, HomographyConfig):
        with pytest.raises(ValueError, match='free_rotation_share is 2, wanted a share'):
            config(free_rotation_share=2)
    with pytest.raises(ValueError, match='min_scale'):
        HomographyConfig(min_scale=2, max_scale=1)
    with pytest.raises(ValueError, match='max_tilt'):
        HomographyConfig(max_tilt=0.5)
    with pytest.raises(ValueError, match='multiples of 32'):
        ViewSpec((100, 64), 10)
