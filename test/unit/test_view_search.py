"""Turned and zoomed photos, matched by the real default model."""

from __future__ import annotations

from coam_ros.matching import CoamMatcher, Correspondences
from coam_ros.matching.alignment import ENOUGH_ALIGNED
from coam_ros.matching.view_search import search_view
import cv2
import numpy as np
import pytest
from skimage import data


@pytest.fixture(scope='module')
def matcher():
    matcher = CoamMatcher.load()
    yield matcher
    matcher.close()


@pytest.fixture(scope='module')
def upright_matcher():
    matcher = CoamMatcher.load(searches_views=False)
    yield matcher
    matcher.close()


def similarity(turn_deg, scale, size):
    """Turn and zoom about the middle of an image: (2, 3)."""
    return cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), turn_deg, scale)


def errors_px(found, transform):
    expected = found.points0 @ transform[:, :2].T + transform[:, 2]
    return np.linalg.norm(expected - found.points1, axis=1)


def test_finds_a_photo_that_is_turned_and_much_smaller_and_elsewhere(matcher, upright_matcher):
    photo = data.astronaut()
    transform = similarity(-110, 0.3, (512, 512))
    transform[:, 2] += 60
    turned = cv2.warpAffine(photo, transform, (512, 512))
    as_it_is = upright_matcher.match(photo, turned)
    found = matcher.match(photo, turned)
    assert (errors_px(as_it_is, transform) < 3).mean() < 0.5
    # Cut out alike, the photo matches in nearly every block of the 64 x 64, both ways.
    assert found.num_aligned > 3000
    assert (errors_px(found, transform) < 3).mean() > 0.9
    assert (found.points0 >= 0).all()
    assert (found.points0 <= 511).all()


def test_upright_photos_are_not_searched(matcher, upright_matcher):
    photo = data.astronaut()
    transform = similarity(5, 0.95, (512, 512))
    moved = cv2.warpAffine(photo, transform, (512, 512))
    found, as_it_is = (x.match(photo, moved) for x in (matcher, upright_matcher))
    np.testing.assert_array_equal(found.points0, as_it_is.points0)


def test_photos_of_different_places_stay_doubtful(matcher):
    found = matcher.match(data.astronaut(), data.coffee())
    assert found.num_aligned < ENOUGH_ALIGNED


def test_images_too_long_to_be_warped_stay_as_they_are():
    nothing = np.empty((0, 2), np.float32)
    upright = Correspondences(nothing, nothing, nothing[:, 0])
    images = np.zeros((40, 32, 3), np.uint8), np.zeros((40, 32001, 3), np.uint8)
    for image0, image1 in (images, images[::-1]):
        # Without a matcher: none is asked.
        assert search_view(None, None, image0, image1, upright) is upright
