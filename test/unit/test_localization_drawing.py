from __future__ import annotations

from coam_ros.localization import KeyframeMatches, RelocalizationResult
from coam_ros.localization.drawing import draw_best_keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from map_samples import encode, HEIGHT, make_image, make_keyframe, WIDTH
import numpy as np
import pytest

QUERY = make_image()


def matches_with(keyframe_id: int, num_inliers: int, num_matches: int = 5) -> KeyframeMatches:
    points = np.random.default_rng(0).uniform(0, 40, (num_matches, 2)).astype(np.float32)
    inlier_mask = np.arange(num_matches) < num_inliers
    landmarks = np.ones((num_matches, 3))
    return KeyframeMatches(keyframe_id, points, points, points[:, 0], landmarks, inlier_mask)


def keyframe_of(brightness: int):
    """Make a keyframe that is told in a picture: its id is its brightness."""
    flat = np.full((HEIGHT, WIDTH, 3), brightness, np.uint8)
    return make_keyframe(id=brightness, image=encode(flat, '.png'))


def shown_keyframe(*matches: KeyframeMatches) -> int:
    keyframe_map = KeyframeMap([keyframe_of(100), keyframe_of(200)])
    result = RelocalizationResult(keyframe_matches=matches)
    picture = draw_best_keyframe(QUERY, result, keyframe_map)
    assert picture.shape == (HEIGHT, 2 * WIDTH + 4, 3)
    return int(np.median(picture[:, -WIDTH:]))


@pytest.mark.parametrize(
    ('first', 'second', 'shown'),
    [
        (matches_with(100, 1), matches_with(200, 4), 200),
        (matches_with(100, 4), matches_with(200, 4, 9), 200),
        (matches_with(100, 0, 6), matches_with(200, 0), 100),
        # The first is the more similar one.
        (matches_with(100, 4), matches_with(200, 4), 100),
    ],
)
def test_picture_shows_the_keyframe_with_most_inliers_then_matches(first, second, shown):
    assert shown_keyframe(first, second) == shown


def test_keyframes_that_are_no_longer_in_the_map_are_left_out():
    assert shown_keyframe(matches_with(100, 1), matches_with(3, 5)) == 100
    result = RelocalizationResult(keyframe_matches=(matches_with(3, 5),))
    assert draw_best_keyframe(QUERY, result, {}) is None
    assert draw_best_keyframe(QUERY, RelocalizationResult(), KeyframeMap()) is None


def test_matches_run_from_the_query_to_the_keyframe_and_inliers_are_green():
    query_pixels = np.array([(10, 10), (10, 30)], np.float32)
    keyframe_pixels = np.array([(50, 10), (50, 30)], np.float32)
    matches = KeyframeMatches(
        100,
        query_pixels,
        keyframe_pixels,
        np.ones(2),
        np.ones((2, 3)),
        np.array([True, False]),
    )
    result = RelocalizationResult(keyframe_matches=(matches,))
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture = draw_best_keyframe(black, result, {100: keyframe_of(0)}).astype(int)
    for row, is_green in ((10, True), (30, False)):
        # Beside the left image and a gap of 4 px comes the right one.
        red, green, _ = picture[row, [10, WIDTH + 4 + 50]].T
        assert (green > red).tolist() == 2 * [is_green]
        assert not picture[row, [5, WIDTH + 4 + 57]].any()
