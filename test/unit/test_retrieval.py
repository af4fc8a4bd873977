from __future__ import annotations

from dataclasses import replace

from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.retrieval import KeyframeRetriever
from map_samples import make_keyframe
import numpy as np
import pytest


def unit_vectors(num: int, length: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(num, length))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_map(descriptors: np.ndarray) -> KeyframeMap:
    """Keyframes 0, 10, 20 ... at x = 0, 1, 2 ... m."""
    keyframe_map = KeyframeMap()
    for i, descriptor in enumerate(descriptors):
        T_map_camera = np.eye(4)
        T_map_camera[0, 3] = i
        keyframe_map.add(
            make_keyframe(id=10 * i, T_map_camera=T_map_camera, global_descriptor=descriptor)
        )
    return keyframe_map


def test_finds_exactly_the_most_similar_keyframes():
    descriptors = unit_vectors(30)
    retriever = KeyframeRetriever(make_map(descriptors))
    query = unit_vectors(31)[30]
    similarity = descriptors @ query
    best = np.argsort(-similarity)[:5]
    found = retriever.retrieve(query, 5)
    assert [keyframe_id for keyframe_id, _ in found] == (10 * best).tolist()
    np.testing.assert_allclose([s for _, s in found], similarity[best], atol=1e-6)


def test_order_of_the_keyframes_does_not_change_the_answer():
    keyframes = list(make_map(unit_vectors(20)))
    query = unit_vectors(21)[20]
    answers = [
        KeyframeRetriever(KeyframeMap(order)).retrieve(query, 4)
        for order in (keyframes, keyframes[::-1])
    ]
    assert [i for i, _ in answers[0]] == [i for i, _ in answers[1]]


def test_map_smaller_than_k_empty_map_and_keyframes_without_descriptor():
    descriptors = unit_vectors(2)
    keyframe_map = make_map(descriptors)
    keyframe_map.add(make_keyframe(id=5))
    retriever = KeyframeRetriever(keyframe_map)
    assert [i for i, _ in retriever.retrieve(descriptors[1], 9)] == [10, 0]
    assert KeyframeRetriever(KeyframeMap()).retrieve(descriptors[0], 3) == []
    assert KeyframeRetriever(KeyframeMap([make_keyframe()])).retrieve(descriptors[0], 3) == []


def test_follows_added_changed_and_removed_keyframes():
    descriptors = unit_vectors(3)
    keyframe_map = make_map(descriptors[:2])
    retriever = KeyframeRetriever(keyframe_map)
    assert retriever.retrieve(descriptors[0], 1)[0][0] == 0
    keyframe_map.remove(0)
    assert [i for i, _ in retriever.retrieve(descriptors[0], 2)] == [10]
    keyframe_map.add(make_keyframe(id=77, global_descriptor=descriptors[0]))
    assert retriever.retrieve(descriptors[0], 1)[0][0] == 77
    keyframe_map.add(replace(keyframe_map.get(77), global_descriptor=descriptors[2]))
    assert retriever.retrieve(descriptors[2], 1)[0][0] == 77
    for keyframe_id in (10, 77):
        keyframe_map.remove(keyframe_id)
    assert retriever.retrieve(descriptors[0], 1) == []


def test_prior_restricts_the_search_to_its_radius():
    descriptors = unit_vectors(10)
    retriever = KeyframeRetriever(make_map(descriptors))
    found = retriever.retrieve(descriptors[0], 10, prior_position_map=[5, 0, 0], radius_m=1.5)
    assert sorted(i for i, _ in found) == [40, 50, 60]
    found = retriever.retrieve(descriptors[0], 10, [5, 0.9, 0.9], radius_m=1.5)
    assert [i for i, _ in found] == [50]
    assert retriever.retrieve(descriptors[0], 3, prior_position_map=[50, 0, 0], radius_m=1.0) == []


def test_descriptors_of_another_length_are_refused_with_what_to_do():
    retriever = KeyframeRetriever(make_map(unit_vectors(3, 8)))
    with pytest.raises(MapFormatError, match=r'length 8.*16.*coam map build'):
        retriever.retrieve(unit_vectors(1, 16)[0], 1)


def test_descriptor_of_another_length_does_not_keep_the_others_from_being_found():
    descriptors = unit_vectors(3, 8)
    keyframe_map = make_map(descriptors)
    keyframe_map.add(make_keyframe(id=99, global_descriptor=unit_vectors(1, 4)[0]))
    found = KeyframeRetriever(keyframe_map).retrieve(descriptors[1], 9)
    assert sorted(i for i, _ in found) == [0, 10, 20]


def test_bad_arguments_are_refused():
    retriever = KeyframeRetriever(KeyframeMap())
    with pytest.raises(ValueError, match='k=0'):
        retriever.retrieve(unit_vectors(1)[0], 0)
    with pytest.raises(ValueError, match='radius_m=None'):
        retriever.retrieve(unit_vectors(1)[0], 1, prior_position_map=[0, 0, 0])
