"""Preprocessing: sizes, the exact way back, and refusal of what is no image."""

from __future__ import annotations

from coam_ros.matching.preprocessing import as_rgb, Resizing
import numpy as np
import pytest

SIZES = [(640, 480), (480, 640), (1920, 1080), (554, 965), (37, 23), (1, 1), (3000, 40)]


@pytest.mark.parametrize('size', SIZES)
def test_way_back_is_exact(size):
    resizing = Resizing.fit(size, 640 * 480, 32)
    rng = np.random.default_rng(0)
    points = (rng.uniform(0, 1, (200, 2)) * size).astype(np.float32)
    in_input = (points + 0.5) * np.divide(resizing.resized_size, size) - 0.5
    assert np.abs(resizing.to_image(in_input) - points).max() < 0.01


@pytest.mark.parametrize('size', SIZES)
def test_input_has_multiples_and_the_area(size):
    resizing = Resizing.fit(size, 640 * 480, 32)
    assert all(side % 32 == 0 for side in resizing.input_size)
    padding = np.subtract(resizing.input_size, resizing.resized_size)
    assert ((padding >= 0) & (padding < 32)).all()
    assert np.prod(resizing.resized_size) >= 0.99 * 640 * 480
    image = np.zeros((size[1], size[0], 3), np.uint8)
    assert resizing.apply(image).shape == (*resizing.input_size[::-1], 3)


@pytest.mark.parametrize('size', SIZES)
def test_an_image_fits_inside_a_fixed_input_and_touches_two_sides(size):
    resizing = Resizing.fit_inside(size, (640, 480))
    assert resizing.input_size == (640, 480)
    free = np.subtract((640, 480), resizing.resized_size)
    assert (free >= 0).all()
    assert free.min() == 0
    image = np.zeros((size[1], size[0], 3), np.uint8)
    assert resizing.apply(image).shape == (480, 640, 3)


def test_native_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    resizing = Resizing.fit((640, 480), 640 * 480, 32)
    np.testing.assert_array_equal(resizing.apply(image), image)


def test_a_feature_keeps_its_place_through_the_resize():
    """The centre of a blob, found again in the resized image, maps back to where it was drawn."""
    y, x = np.mgrid[0:960, 0:1280]
    blob = np.exp(-((x - 812) ** 2 + (y - 333) ** 2) / (2 * 20.0**2))
    image = np.repeat((255 * blob).astype(np.uint8)[..., None], 3, axis=2)
    resizing = Resizing.fit((1280, 960), 640 * 480, 32)
    small = resizing.apply(image)[..., 0].astype(float)
    rows, columns = np.mgrid[0 : small.shape[0], 0 : small.shape[1]]
    centre = np.array([[(columns * small).sum(), (rows * small).sum()]]) / small.sum()
    np.testing.assert_allclose(resizing.to_image(centre), [[812, 333]], atol=0.05)


def test_image_lies_at_the_top_left_of_its_input_and_its_border_goes_on():
    image = np.random.default_rng(0).integers(0, 256, (470, 630, 3), np.uint8)
    padded = Resizing.fit((630, 470), 630 * 470, 32).apply(image)
    assert padded.shape == (480, 640, 3)
    np.testing.assert_array_equal(padded[:470, :630], image)
    np.testing.assert_array_equal(padded[:470, 630:], np.repeat(image[:, -1:], 10, axis=1))
    np.testing.assert_array_equal(padded[470:, :630], np.repeat(image[-1:], 10, axis=0))


def test_stripes_too_fine_for_the_input_become_grey():
    image = np.zeros((960, 1280, 3), np.uint8)
    image[:, ::4] = 200
    small = Resizing.fit((1280, 960), 160 * 120, 8).apply(image)
    np.testing.assert_allclose(small, 50, atol=2)


def test_grey_becomes_rgb():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for image in (grey, grey[..., None]):
        rgb = as_rgb(image)
        assert rgb.shape == (3, 4, 3)
        np.testing.assert_array_equal(rgb[..., 1], grey)


@pytest.mark.parametrize(
    ('image', 'error', 'says'),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, 'float32'),
        ('image.png', TypeError, 'str'),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r'\(4, 4, 4\)'),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r'\(0, 4, 3\)'),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r'\(2, 4, 4, 3\)'),
        (np.zeros((1001, 1), np.uint8), ValueError, '1 x 1001 px'),
    ],
)
def test_refuses_what_is_no_image(image, error, says):
    with pytest.raises(error, match=says):
        as_rgb(image)
