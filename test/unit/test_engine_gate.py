"""The gate lets a backend pass that finds the reference's matches, and no other."""

from __future__ import annotations

import itertools

from coam_ros.inference.gate import compare_backends, GatePair, NothingToCompareError
from coam_ros.inference.gate_pairs import fixed_pairs
from coam_ros.inference.model import CoamModel, RawMatches
import numpy as np
import pytest

NUM_MATCHES = 200
IMAGE = np.zeros((2048, 2048, 3), np.uint8)


class ScriptedModel:
    """Finds matches along the diagonal of each image pair, spoilt on demand."""

    backend_name = 'scripted'

    def __init__(
        self, num_moved=0, moved_px=0.0, num_lost=0, spoil=None, descriptor=(1, 0), end='query'
    ):
        # Of the first image; those of the others are right.
        self.descriptors = itertools.chain([descriptor], itertools.repeat((1, 0)))
        points = np.repeat(10.0 * np.arange(NUM_MATCHES, dtype=np.float32)[:, None], 2, 1)
        self.points = {'query': points, 'keyframe': points.copy()}
        self.points[end][:num_moved, 0] += moved_px
        self.scores = np.full(NUM_MATCHES, 0.9, np.float32)
        self.scores[:num_lost] = 0.0
        if spoil is not None:
            self.scores[:] = spoil

    def encode(self, image):
        return {}, np.array(next(self.descriptors), np.float32)

    def match(self, query, query_size, keyframes, keyframe_sizes):
        assert query_size == (2048, 2048)
        found = (*self.points.values(), self.scores, self.scores, self.scores)
        # Nothing in the keyframes before the last one.
        others = len(keyframes) - 1
        return RawMatches(*(np.stack([*[np.zeros_like(x)] * others, x]) for x in found))


def distance(query_points, keyframe_points):
    return np.linalg.norm(query_points - keyframe_points, axis=1)


PAIRS = [GatePair('first', IMAGE, IMAGE, distance), GatePair('second', IMAGE, IMAGE, distance)]


def test_the_reference_passes_its_own_gate():
    report = compare_backends(ScriptedModel(), ScriptedModel(), PAIRS)
    assert report.is_accepted
    assert report.retention == 1.0
    assert report.candidate_precision == (1.0, 1.0, 1.0)
    assert report.num_pairs == 2
    assert report.num_candidate_matches == 2 * NUM_MATCHES


@pytest.mark.parametrize(('num_lost', 'is_accepted'), [(4, True), (5, False)])
def test_two_percent_of_the_matches_may_be_missing(num_lost, is_accepted):
    report = compare_backends(ScriptedModel(), ScriptedModel(num_lost=num_lost), PAIRS)
    assert report.retention == 1 - num_lost / NUM_MATCHES
    assert report.is_accepted == is_accepted
    if not is_accepted:
        assert report.failures == ['97.5% of the matches retained, wanted 98%']


def test_a_match_that_moved_less_than_a_pixel_is_retained_but_counts_as_less_precise():
    report = compare_backends(
        ScriptedModel(num_moved=100, moved_px=0.5),
        ScriptedModel(num_moved=100, moved_px=1.25),
        PAIRS,
    )
    assert report.retention == 1.0
    assert report.reference_precision == (1.0, 1.0, 1.0)
    assert report.candidate_precision == (0.5, 1.0, 1.0)
    assert report.failures == ['50.0% of the matches right to 1 px, wanted 99.0% or more']


@pytest.mark.parametrize('end', ['query', 'keyframe'])
@pytest.mark.parametrize(('moved_px', 'right_to_3_px'), [(1.5, 1.0), (4.0, 0.5)])
def test_a_match_elsewhere_is_not_retained(end, moved_px, right_to_3_px):
    moved = ScriptedModel(num_moved=100, moved_px=moved_px, end=end)
    report = compare_backends(ScriptedModel(), moved, PAIRS)
    assert report.retention == 0.5
    assert report.candidate_precision == (0.5, right_to_3_px, 1.0)
    assert len(report.failures) == (2 if right_to_3_px == 1 else 3)


@pytest.mark.parametrize('spoil', [0.0, np.nan], ids=['no score', 'not a number'])
def test_pairs_that_lose_all_their_matches_are_named(spoil):
    report = compare_backends(ScriptedModel(), ScriptedModel(spoil=spoil), PAIRS)
    assert report.num_candidate_matches == 0
    assert report.retention == 0.0
    assert report.emptied_pairs == ('first', 'second')
    assert 'no match left in first, second' in report.failures


@pytest.mark.parametrize('end', ['query', 'keyframe'])
@pytest.mark.parametrize('moved_px', [-20.0, 4000.0, np.nan])
def test_a_match_outside_the_image_is_refused(moved_px, end):
    report = compare_backends(
        ScriptedModel(), ScriptedModel(num_moved=1, moved_px=moved_px, end=end), PAIRS
    )
    assert report.failures == ['2 matches outside the images, wanted none']


@pytest.mark.parametrize('descriptor', [(0.98, 0.199), (np.nan, 0.0)])
def test_other_global_descriptors_are_refused(descriptor):
    report = compare_backends(ScriptedModel(), ScriptedModel(descriptor=descriptor), PAIRS)
    assert [words[:18] for words in report.failures] == ['global descriptors']


def test_padding_and_batches_are_asked_for():
    width, height = 640, 480
    padded, batch = itertools.islice(fixed_pairs((width, height)), 2)
    assert padded.query_size < (width, height)
    asked = []

    class Watched(ScriptedModel):
        def match(self, query, query_size, keyframes, keyframe_sizes):
            asked.append((query_size, len(keyframes), len(keyframe_sizes)))
            return super().match(query, (2048, 2048), keyframes, keyframe_sizes)

    for pair in (padded, batch):
        compare_backends(Watched(), Watched(), [pair])
    assert asked[0] == (padded.query_size, 1, 1)
    assert asked[2] == ((width, height), 3, 3)


@pytest.mark.parametrize('pairs', [[], PAIRS])
def test_a_gate_without_matches_decides_nothing(pairs):
    with pytest.raises(NothingToCompareError, match='finds no match in'):
        compare_backends(ScriptedModel(spoil=0.0), ScriptedModel(), pairs)


def test_the_fixed_pairs_are_matched_and_their_truth_is_true():
    pair = next(fixed_pairs((640, 480)))
    again = next(fixed_pairs((640, 480)))
    np.testing.assert_array_equal(pair.query, again.query)
    model = CoamModel.load(backend='onnxruntime')
    report = compare_backends(model, model, [pair])
    assert report.num_reference_matches > 500
    assert report.reference_precision[2] > 0.95
    assert report.is_accepted
