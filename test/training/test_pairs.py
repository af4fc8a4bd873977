"""Training pairs: correspondences that hold, and repeatability by seed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.training.pairs import (
    MATCHED,
    PairMixture,
    PhotoSource,
    RgbdSource,
    TrackSource,
    UNMATCHED,
)

SIZE = (160, 128)


@pytest.fixture
def photos(tmp_path):
    """Two smooth photos whose colour tells the place: equal colour, same point."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f'{index}.png'), _gradient(320, 240))
    return folder


def _gradient(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x / width * 255, y / height * 255, np.full_like(x, 90)], -1).astype(np.uint8)


@pytest.fixture
def no_photometry(monkeypatch):
    monkeypatch.setattr('coam_ros.training.pairs.vary_photometry', lambda image, rng: image)


def _colours(image, points):
    return np.array(
        [cv2.getRectSubPix(image, (1, 1), tuple(map(float, p)))[0, 0] for p in points], float
    )


def _assert_same_place(pair):
    matched = pair.state == MATCHED
    assert matched.sum() > 20
    colours0 = _colours(pair.image0, pair.points0[matched])
    colours1 = _colours(pair.image1, pair.points1[matched])
    # 0.8 counts a pixel at the original scale; up to 4 px of interpolation at the border.
    assert np.median(np.abs(colours0 - colours1)) < 2.0


def test_photo_pairs_show_the_same_place(photos, no_photometry):
    source = PhotoSource(photos, SIZE, unrelated_share=0)
    for seed in range(5):
        _assert_same_place(source.sample(np.random.default_rng(seed)))


def test_unrelated_photos_have_no_match(photos):
    pair = PhotoSource(photos, SIZE, unrelated_share=1).sample(np.random.default_rng(0))
    assert (pair.state == UNMATCHED).all()


def test_rgbd_pairs_show_the_same_place(tmp_path, no_photometry):
    """A textured wall 2 m ahead, the camera moving sideways: exact depth and poses."""
    focal, depth_m = 200.0, 2.0
    (tmp_path / 'intrinsics.txt').write_text(f'{focal} 0 79.5\n0 {focal} 63.5\n0 0 1\n')
    wall = _gradient(400, 128)
    for index in range(8):
        shift_px = 8 * index
        stem = tmp_path / f'frame-{index:06d}'
        cv2.imwrite(
            f'{stem}.color.jpg',
            wall[:, shift_px : shift_px + 160][..., ::-1],
            [cv2.IMWRITE_JPEG_QUALITY, 100],
        )
        cv2.imwrite(f'{stem}.depth.png', np.full((128, 160), 1000 * depth_m, np.uint16))
        T_world_camera = np.eye(4)
        T_world_camera[0, 3] = shift_px * depth_m / focal
        np.savetxt(f'{stem}.pose.txt', T_world_camera)
    source = RgbdSource(tmp_path, SIZE, max_step=7, is_precise=True)
    for seed in range(5):
        _assert_same_place(source.sample(np.random.default_rng(seed)))


def test_track_pairs_show_the_same_place(tmp_path, no_photometry):
    (tmp_path / 'points').mkdir()
    rng = np.random.default_rng(0)
    xy = rng.uniform(5, [314, 234], (300, 2)).astype(np.float32)
    for name in ('a', 'b'):
        cv2.imwrite(str(tmp_path / f'{name}.jpg'), _gradient(320, 240)[..., ::-1])
        order = rng.permutation(300)
        np.savez(tmp_path / 'points' / f'{name}.npz', xy=xy[order], id=order)
    (tmp_path / 'pairs.txt').write_text('a.jpg b.jpg 0 0\n')
    source = TrackSource(tmp_path, SIZE)
    for seed in range(5):
        _assert_same_place(source.sample(np.random.default_rng(seed)))


def test_an_item_is_the_same_in_every_run(photos):
    first, second = (
        PairMixture([PhotoSource(photos, SIZE)], [1.0], 10, seed=3)[7] for _ in range(2)
    )
    for key, value in first.items():
        assert value.equal(second[key])


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='No training photos'):
        PhotoSource(tmp_path, SIZE)
