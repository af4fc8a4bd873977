"""Matches are kept by the content of what made them, and failures are those of one pair."""

from __future__ import annotations

from dataclasses import fields, replace
import time

from bench_samples import correspondences, KnownMatcher
from coam_ros.evaluation.matchers.cached import CachedMatcher, MatchCache
from coam_ros.evaluation.matchers.matcher import MatcherError, OpenCvMatcher
import numpy as np
import pytest

IMAGE = np.zeros((4, 6, 3), np.uint8)
OTHER = np.ones((4, 6, 3), np.uint8)


def answer(number: int):
    points = np.full((3, 2), number)
    return correspondences(points, points + 1)


def first_points(matcher: CachedMatcher, *images: np.ndarray) -> float:
    return float(matcher.match(*images).points0[0, 0])


def test_a_pair_is_matched_once_and_takes_time_once(tmp_path):
    cache = MatchCache(tmp_path)
    first = CachedMatcher(KnownMatcher([answer(1), answer(2)]), ['code'], cache)
    assert first_points(first, IMAGE, OTHER) == 1
    assert first.duration_s > 0
    assert first_points(first, OTHER, IMAGE) == 2  # the order of the images counts
    again = CachedMatcher(KnownMatcher([]), ['code'], cache)
    assert first_points(again, IMAGE, OTHER) == 1
    # Who knows on which machine that was.
    assert again.duration_s is None
    assert (first.num_kept, again.num_kept) == (0, 1)
    assert first_points(first, IMAGE, OTHER) == 1
    assert first.duration_s is None


def test_time_is_that_of_the_matcher_in_seconds():
    matcher = CachedMatcher(OpenCvMatcher('sift'))
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    begun_s = time.perf_counter()
    matcher.match(image, image)
    whole_s = time.perf_counter() - begun_s
    assert 0.5 * whole_s < matcher.duration_s <= whole_s


def test_all_columns_come_back_and_absent_ones_stay_absent(tmp_path):
    bare = answer(1)
    whole = replace(bare, similarities=2 * bare.scores, distinctiveness=np.eye(3, 2))
    matcher = CachedMatcher(KnownMatcher([bare, whole]), cache=MatchCache(tmp_path))
    for found, images in ((bare, (IMAGE, OTHER)), (whole, (OTHER, IMAGE))):
        matcher.match(*images)
        kept = matcher.match(*images)
        for column in fields(found):
            value, wanted = (getattr(x, column.name) for x in (kept, found))
            np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize(
    'images',
    [(IMAGE, IMAGE), (OTHER, OTHER), (IMAGE.reshape(6, 4, 3), OTHER.reshape(6, 4, 3))],
)
def test_other_images_are_matched_anew(tmp_path, images):
    matcher = CachedMatcher(KnownMatcher([answer(1), answer(2)]), cache=MatchCache(tmp_path))
    matcher.match(IMAGE, OTHER)
    assert first_points(matcher, *images) == 2


def test_another_matcher_is_not_given_these_matches(tmp_path):
    cache = MatchCache(tmp_path)
    CachedMatcher(KnownMatcher([answer(1)]), ['code'], cache).match(IMAGE, OTHER)
    changed = CachedMatcher(KnownMatcher([answer(2)]), ['new code'], cache)
    assert first_points(changed, IMAGE, OTHER) == 2


def test_a_damaged_file_is_made_anew(tmp_path):
    cache = MatchCache(tmp_path)
    CachedMatcher(KnownMatcher([answer(1)]), cache=cache).match(IMAGE, OTHER)
    (path,) = tmp_path.rglob('*.npz')
    for content in (b'', b'nothing', path.read_bytes()[:-40]):
        path.write_bytes(content)
        again = CachedMatcher(KnownMatcher([answer(2)]), cache=cache)
        assert first_points(again, IMAGE, OTHER) == 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    matcher = CachedMatcher(KnownMatcher([answer(1)]), cache=MatchCache(tmp_path / 'file'))
    with pytest.raises(OSError, match=r'file.*give another folder with --cache'):
        matcher.match(IMAGE, OTHER)


class BrokenMatcher(KnownMatcher):
    def match(self, image0, image1):
        raise IndexError('no such level')


def test_whatever_a_matcher_raises_is_a_failure_of_this_pair_and_is_not_kept(tmp_path):
    matcher = CachedMatcher(BrokenMatcher([]), cache=MatchCache(tmp_path))
    with pytest.raises(MatcherError, match='IndexError: no such level'):
        matcher.match(IMAGE, OTHER)
    assert not list(tmp_path.rglob('*.npz'))
    assert matcher.duration_s > 0
