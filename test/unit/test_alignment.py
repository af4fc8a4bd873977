"""Alignment of matches with known truth: photos under homographies."""

from __future__ import annotations

from itertools import combinations

from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.matching import CoamMatcher, Correspondences
from coam_ros.matching.alignment import align, align_matches, ENOUGH_ALIGNED, weigh_evidence
import cv2
import numpy as np
import pytest
from skimage import data

# From the keyframe to the query: a turn of 10 degrees, a shrink and perspective.
HOMOGRAPHY = np.array([[0.85, -0.15, 50.0], [0.15, 0.85, -10.0], [1e-4, 5e-5, 1.0]])


@pytest.fixture(scope='module')
def keyframe():
    return cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope='module')
def query(keyframe):
    height, width = keyframe.shape
    return cv2.warpPerspective(keyframe, HOMOGRAPHY, (width, height))


def to_query(points):
    return cv2.perspectiveTransform(points[:, None].astype(np.float64), HOMOGRAPHY)[:, 0]


def rough_matches(keyframe, rng, noise_px=1.5):
    """Middles of blocks that the query shows, and where a network might find them."""
    height, width = keyframe.shape
    rows, columns = np.mgrid[: height // BLOCK_PX, : width // BLOCK_PX]
    blocks = np.stack([columns.ravel(), rows.ravel()], axis=1)
    points = ((blocks + 0.5) * BLOCK_PX - 0.5).astype(np.float32)
    found = to_query(points)
    points = points[((found > 10) & (found < [width - 10, height - 10])).all(axis=1)]
    return points, (to_query(points) + rng.normal(0, noise_px, points.shape)).astype(np.float32)


def errors_px(aligned):
    errors = np.linalg.norm(to_query(aligned.keyframe_points) - aligned.query_points, axis=1)
    return errors[aligned.is_aligned]


@pytest.mark.parametrize('light', ['same', 'darker', 'gamma'])
def test_matches_become_exact_whatever_the_light(keyframe, query, light):
    changed = {
        'same': query,
        'darker': (query * 0.5).astype(np.uint8),
        'gamma': (255 * (query / 255) ** 1.6).astype(np.uint8),
    }[light]
    points, found = rough_matches(keyframe, np.random.default_rng(0))
    aligned = align(changed, keyframe, found, points, np.full(len(points), 0.8, np.float32))
    errors = errors_px(aligned)
    # The noise alone has a median of 1.8 px.
    assert np.median(errors) < 0.25
    assert (errors < 1).sum() > 0.7 * len(points)


def test_keyframe_points_stay_in_their_blocks(keyframe, query):
    points, found = rough_matches(keyframe, np.random.default_rng(0))
    aligned = align(query, keyframe, found, points, np.ones(len(points), np.float32))
    np.testing.assert_array_equal(
        (aligned.keyframe_points + 0.5) // BLOCK_PX, (points + 0.5) // BLOCK_PX
    )
    # Those that were not aligned are as they were.
    left = ~aligned.is_aligned
    np.testing.assert_array_equal(aligned.keyframe_points[left], points[left])
    np.testing.assert_array_equal(aligned.query_points[left], found[left])


def test_wrong_matches_show(keyframe, query):
    rng = np.random.default_rng(1)
    points, found = rough_matches(keyframe, rng)
    is_wrong = rng.random(len(points)) < 0.4
    found[is_wrong] = rng.uniform(0, 512, (is_wrong.sum(), 2))
    aligned = align(query, keyframe, found, points, np.full(len(points), 0.5, np.float32))
    assert aligned.is_aligned[is_wrong].mean() < 0.15
    assert aligned.is_aligned[~is_wrong].mean() > 0.7
    assert np.median(errors_px(aligned)) < 0.3


def test_both_ways_adds_the_corners_of_the_query(keyframe, query):
    points, found = rough_matches(keyframe, np.random.default_rng(0))
    matches = Correspondences(found, points, np.full(len(points), 0.8, np.float32))
    one_way, both = (align_matches(query, keyframe, matches, both_ways=x) for x in (False, True))
    np.testing.assert_array_equal(both.points0[: len(one_way)], one_way.points0)
    added = both.select(np.arange(len(one_way), len(both)))
    # The query shows the keyframe smaller, so that several matches share a block of it.
    assert len(added) > 0.5 * len(one_way)
    assert len(np.unique((added.points0 + 0.5) // BLOCK_PX, axis=0)) == len(added)
    errors = np.linalg.norm(to_query(added.points1) - added.points0, axis=1)
    assert np.median(errors) < 0.25
    assert both.is_aligned.all()


def test_others_stay_where_few_align(keyframe, query):
    points, found = rough_matches(keyframe, np.random.default_rng(0))
    some = slice(None, ENOUGH_ALIGNED - 1)
    matches = Correspondences(found[some], points[some], np.full(some.stop, 0.8, np.float32))
    one_way, both = (align_matches(query, keyframe, matches, both_ways=x) for x in (False, True))
    # The other way adds what aligned alone.
    assert both.num_aligned > one_way.num_aligned
    assert len(both) - both.num_aligned == len(one_way) - one_way.num_aligned > 0
    for kept in (one_way, both):
        # It speaks for those that did, and against the others.
        assert kept.scores[kept.is_aligned].min() > 0.8 > kept.scores[~kept.is_aligned].max()


def test_a_few_matches_that_all_align_prove_less_than_many(keyframe):
    points, _ = rough_matches(keyframe, np.random.default_rng(0))
    structured = align(keyframe, keyframe, points, points, np.ones(len(points), np.float32))
    points = points[structured.is_aligned]
    few, many = (
        align_matches(
            keyframe,
            keyframe,
            Correspondences(points[:n], points[:n], np.full(n, 0.5, np.float32)),
            both_ways=False,
        )
        for n in (3, 1000)
    )
    assert few.is_aligned.all()
    assert few.scores.max() < 0.5 < 0.9 < many.scores.min()


def test_images_without_structure_give_finite_points():
    flat = np.full((120, 160), 90, np.uint8)
    points = np.array([[3.5, 3.5], [83.5, 43.5], [155.5, 115.5]], np.float32)
    aligned = align(flat, flat, points, points, np.ones(3, np.float32))
    assert np.isfinite(aligned.query_points).all()
    assert (np.abs(aligned.query_points - points) < 8).all()


def test_no_matches_give_none(keyframe):
    nothing = np.empty((0, 2), np.float32)
    aligned = align(keyframe, keyframe, nothing, nothing, np.empty(0, np.float32))
    assert [len(part) for part in aligned] == [0, 0, 0]


def test_nothing_aligns_where_the_night_is_black():
    def by_night(image):
        return np.clip(2 * image.astype(int) - 200, 0, 255).astype(np.uint8)

    photo = cv2.cvtColor(data.rocket(), cv2.COLOR_RGB2GRAY)
    keyframe = by_night(photo)
    points, found = rough_matches(keyframe, np.random.default_rng(0))
    query = by_night(cv2.warpPerspective(photo, HOMOGRAPHY, photo.shape[::-1]))
    aligned = align(query, keyframe, found, points, np.full(len(points), 0.8, np.float32))
    # Black as far around as the window of contrast and the patch of the flow reach.
    around = cv2.dilate(keyframe, np.ones((65, 65), np.uint8))
    is_black = around[tuple(points.astype(int)[:, ::-1].T)] == 0
    assert is_black.sum() > 500
    assert not aligned.is_aligned[is_black].any()
    assert aligned.is_aligned[~is_black].mean() > 0.5


def test_what_flow_moves_out_of_the_image_is_not_aligned(keyframe):
    # The last rows of the keyframe lie below what the query shows.
    query = keyframe[:-12]
    height, width = keyframe.shape
    rows, columns = np.mgrid[: height // BLOCK_PX, : width // BLOCK_PX]
    points = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * BLOCK_PX - 0.5
    points = points.astype(np.float32)
    aligned = align(query, keyframe, points, points, np.full(len(points), 0.8, np.float32))
    assert aligned.is_aligned.sum() > 3000
    found = aligned.query_points[aligned.is_aligned]
    assert (found >= 0).all()
    assert (found <= (width - 1, len(query) - 1)).all()


def test_an_image_whose_size_is_no_multiple_of_the_blocks(keyframe):
    image = keyframe[:101, :157]
    # In the last, cut, block of both sides.
    points = np.array([[155.5, 99.5], [75.5, 51.5]], np.float32)
    aligned = align(image, image, points, points, np.ones(2, np.float32))
    assert (aligned.keyframe_points <= [156, 100]).all()
    assert np.isfinite(aligned.query_points).all()


def test_evidence_moves_probabilities_but_not_certainty():
    scores = np.array([0.0, 0.3, 0.3, 1.0], np.float32)
    is_aligned = np.array([True, True, False, False])
    updated = weigh_evidence(scores, is_aligned, 0.9)
    assert updated[0] == 0
    assert updated[1] > 0.5
    assert updated[2] < 0.3
    assert updated[3] == 1
    # Where hardly anything aligned, what did is chance.
    assert weigh_evidence(scores, is_aligned, 0.1)[1] < 0.1


def test_images_of_different_places_match_with_scores_that_say_so():
    matcher = CoamMatcher.load(searches_views=False)
    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    scores = np.concatenate(
        [matcher.match(photos[i], photos[j]).scores for i, j in combinations(range(4), 2)]
    )
    matcher.close()
    # None is right. Before the evidence of all matches together it was a third.
    assert scores.mean() < 0.1
