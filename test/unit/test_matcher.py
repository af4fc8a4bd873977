"""The real default model on real photographs, through the public matcher."""

from __future__ import annotations

from coam_ros.matching import CoamMatcher
import cv2
import numpy as np
import pytest
from skimage import data

# Turns by 12 degrees, shrinks to 85 % and shifts; perspective as of a plane seen aslant.
HOMOGRAPHY = np.array([[0.83, -0.18, 60.0], [0.17, 0.84, -20.0], [1e-4, 5e-5, 1.0]])


@pytest.fixture(scope='module')
def matcher():
    matcher = CoamMatcher.load()
    yield matcher
    matcher.close()


@pytest.fixture(scope='module')
def photo():
    return data.astronaut()


@pytest.fixture(scope='module')
def warped(photo):
    darker = (photo * 0.7).astype(np.uint8)
    return cv2.warpPerspective(darker, HOMOGRAPHY, (560, 470))


def transfer_errors_px(correspondences, homography):
    points = cv2.perspectiveTransform(correspondences.points0[:, None].astype(float), homography)
    return np.linalg.norm(points[:, 0] - correspondences.points1, axis=1)


def test_finds_a_warped_photo_to_the_pixel(matcher, photo, warped):
    correspondences = matcher.match(photo, warped)
    errors = transfer_errors_px(correspondences, HOMOGRAPHY)
    assert (errors < 3).sum() > 300
    assert np.median(errors) < 0.3
    assert correspondences.is_aligned.all()


def test_best_matches_come_first(matcher, photo, warped):
    correspondences = matcher.match(photo, warped)
    assert (np.diff(correspondences.scores) <= 0).all()
    assert (correspondences.scores > 0).all()
    assert (correspondences.scores <= 1).all()
    right = transfer_errors_px(correspondences, HOMOGRAPHY) < 3
    third = len(right) // 3
    assert right[:third].mean() > right[-third:].mean()


@pytest.mark.parametrize('shift_px', [2, 4, 6])
def test_points_are_not_drawn_to_the_middle_of_the_blocks(photo, shift_px):
    """A network trained on points in the middle of blocks was: by more than a pixel at 2 px."""
    matcher = CoamMatcher.load(image_area_px=512 * 512)  # as the photo is
    shifted = np.roll(photo, shift_px, axis=1)
    correspondences = matcher.match(shifted, photo)
    errors = correspondences.points0 - correspondences.points1 - [shift_px, 0]
    errors = errors[np.abs(errors).max(axis=1) < 6]
    assert len(errors) > 500
    assert np.abs(errors.mean(axis=0)).max() < 0.4


def test_unlikely_matches_are_left_out(photo, warped):
    all_of_them, by_default, likely = (
        CoamMatcher.load(aligns=False, **least).match(photo, warped)
        for least in ({'min_score': 0.0}, {}, {'min_score': 0.5})
    )
    assert len(likely) < len(by_default) < len(all_of_them)
    assert likely.scores.min() >= 0.5
    np.testing.assert_array_equal(likely.points0, all_of_them.points0[: len(likely)])
    with pytest.raises(ValueError, match=r'0 <= min_score < 1'):
        CoamMatcher.load(min_score=1.5)


def test_scores_are_probabilities_that_a_match_is_right(matcher, photo, warped):
    """Within 15 points of a hundred on a pair that no training has seen."""
    correspondences = matcher.match(photo, warped)
    right = transfer_errors_px(correspondences, HOMOGRAPHY) < 3
    assert abs(right.mean() - correspondences.scores.mean()) < 0.15


def test_points_lie_inside_the_images(matcher, photo, warped):
    correspondences = matcher.match(photo, warped)
    for points, image in ((correspondences.points0, photo), (correspondences.points1, warped)):
        assert points.dtype == np.float32
        assert (points > -1).all()
        assert (points < np.array(image.shape[1::-1])).all()


def test_unrelated_photos_score_lower_and_agree_on_nothing(matcher, photo, warped):
    related = matcher.match(photo, warped)
    unrelated = matcher.match(photo, data.coffee())
    best = min(200, len(unrelated))
    assert unrelated.scores[:best].mean() < 0.75 * related.scores[:best].mean()
    _, mask = cv2.findHomography(unrelated.points0, unrelated.points1, cv2.USAC_MAGSAC, 3.0)
    assert mask.sum() < 25  # four points make a homography; chance adds a handful


def test_batch_equals_single(photo, warped):
    """Keyframes of one size run together, of another size apart; neither changes the answer."""
    matcher = CoamMatcher.load(backend='onnxruntime')
    query = matcher.encode(photo)
    images = [warped, data.coffee(), warped[::-1].copy()]
    keyframes = [matcher.encode(image) for image in images]
    together = matcher.match_encoded(query, keyframes)
    for keyframe, batched in zip(keyframes, together, strict=True):
        alone = matcher.match_encoded(query, [keyframe])[0]
        # Rounding may flip a tie between two points, so a few matches may differ.
        common = set(map(tuple, alone.points1)) & set(map(tuple, batched.points1))
        assert len(common) > 0.97 * len(alone)


def test_nothing_to_match_gives_nothing(matcher, photo):
    assert matcher.match_encoded(matcher.encode(photo), []) == []


@pytest.mark.parametrize('shape', [(1, 1), (23, 37), (40, 1200), (30, 30, 3)])
def test_odd_sizes_are_no_error(matcher, photo, shape):
    correspondences = matcher.match(photo, np.full(shape, 128, np.uint8))
    assert (correspondences.points1 < np.array(shape[1::-1])).all()


def test_grey_equals_rgb_of_the_same_grey(matcher):
    grey = data.camera()
    rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        matcher.encode(grey).global_descriptor, matcher.encode(rgb).global_descriptor
    )


def test_global_descriptor_tells_places_apart(matcher, photo, warped):
    descriptors = [matcher.encode(image).global_descriptor for image in (photo, warped)]
    other = matcher.encode(data.coffee()).global_descriptor
    assert descriptors[0] @ descriptors[1] > descriptors[0] @ other
    assert np.linalg.norm(other) == pytest.approx(1, abs=1e-3)


def test_too_small_an_area_is_refused():
    with pytest.raises(ValueError, match='Image area too small: got 1000 px'):
        CoamMatcher.load(image_area_px=1000)
