from __future__ import annotations

from dataclasses import replace
import threading

from coam_ros.mapping.keyframe_map import KeyframeMap
from map_samples import encode, make_image, make_keyframe
import numpy as np


def test_keyframes_keep_the_order_in_which_they_came():
    keyframe_map = KeyframeMap([make_keyframe(id=i) for i in (5, 3, 9)])
    assert [keyframe.id for keyframe in keyframe_map] == [5, 3, 9]
    assert len(keyframe_map) == 3
    assert 3 in keyframe_map
    assert keyframe_map.get(4) is None


def test_new_keyframe_takes_the_place_of_the_one_with_its_id():
    keyframe_map = KeyframeMap([make_keyframe(id=1), make_keyframe(id=2)])
    moved = replace(make_keyframe(id=1), stamp_s=99.0)
    assert keyframe_map.add(moved)
    assert keyframe_map.get(1) is moved
    assert [keyframe.id for keyframe in keyframe_map] == [1, 2]


def test_keyframe_sent_twice_changes_nothing():
    keyframe_map = KeyframeMap([make_keyframe()])
    revision = keyframe_map.revision
    assert not keyframe_map.add(make_keyframe())
    assert keyframe_map.revision == revision


def test_any_changed_field_counts_as_a_change():
    T_moved = np.eye(4)
    T_moved[0, 3] = 1
    changes = [
        {'T_map_camera': T_moved},
        {'image': encode(make_image(1), '.jpg')},
        {'depth': None},
        {'global_descriptor': np.array([1.0, 0.0])},
        {'landmark_pixels': [[1, 1]], 'landmark_points_map': [[1, 1, 1]]},
    ]
    for change in changes:
        keyframe_map = KeyframeMap([make_keyframe()])
        assert keyframe_map.add(make_keyframe(**change)), change


def test_removed_keyframe_is_gone_and_a_second_removal_says_so():
    keyframe_map = KeyframeMap([make_keyframe(id=1)])
    assert keyframe_map.remove(1)
    assert not keyframe_map.remove(1)
    assert len(keyframe_map) == 0


def test_maps_get_different_ids_and_keep_a_given_one():
    assert KeyframeMap().map_id != KeyframeMap().map_id
    assert KeyframeMap(map_id='lab').map_id == 'lab'


def test_iteration_survives_changes_by_other_threads():
    keyframe_map = KeyframeMap([make_keyframe(id=i) for i in range(50)])
    keyframes = list(keyframe_map)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for keyframe in keyframes:
                keyframe_map.remove(keyframe.id)
                keyframe_map.add(keyframe)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            assert 49 <= len([keyframe.id for keyframe in keyframe_map]) <= 50
    finally:
        stop.set()
        thread.join()


DESCRIPTOR = np.array([1.0, 0.0], np.float32)


def test_exchange_and_discard_are_of_this_very_keyframe():
    first = make_keyframe(id=1)
    keyframe_map = KeyframeMap([first])
    described = first.with_descriptor(DESCRIPTOR)
    moved = replace(first, stamp_s=99.0)
    keyframe_map.add(moved)
    revision = keyframe_map.revision
    assert not keyframe_map.exchange(first, described)
    assert not keyframe_map.discard(first)
    assert keyframe_map.get(1) is moved
    assert keyframe_map.revision == revision
    assert keyframe_map.exchange(moved, moved.with_descriptor(DESCRIPTOR))
    assert keyframe_map.revision > revision
    assert not keyframe_map.discard(moved)
    revision = keyframe_map.revision
    assert keyframe_map.discard(keyframe_map.get(1))
    assert keyframe_map.revision > revision
    assert not keyframe_map.exchange(moved, moved)
    assert len(keyframe_map) == 0


def test_moved_keyframe_keeps_its_descriptor_and_one_with_a_new_image_does_not():
    keyframe_map = KeyframeMap([make_keyframe(id=1, global_descriptor=DESCRIPTOR)])
    keyframe_map.use_descriptors_of('model')
    keyframe_map.add(make_keyframe(id=1, global_descriptor=DESCRIPTOR))
    T_moved = np.eye(4)
    T_moved[0, 3] = 1.0
    # A SLAM system that computes none says so with an empty name.
    assert keyframe_map.add(make_keyframe(id=1, T_map_camera=T_moved), descriptor_model_id='')
    np.testing.assert_array_equal(keyframe_map.get(1).T_map_camera, T_moved)
    np.testing.assert_array_equal(keyframe_map.get(1).global_descriptor, DESCRIPTOR)
    assert not keyframe_map.add(make_keyframe(id=1, T_map_camera=T_moved), '')
    keyframe_map.add(make_keyframe(id=1, image=encode(make_image(1), '.jpg')), '')
    assert keyframe_map.get(1).global_descriptor is None


def test_descriptors_of_two_models_never_mix():
    described = make_keyframe(id=1, global_descriptor=DESCRIPTOR)
    keyframe_map = KeyframeMap()
    keyframe_map.add(described, 'old')
    assert keyframe_map.descriptor_model_id == 'old'
    revision = keyframe_map.revision
    assert keyframe_map.use_descriptors_of('new') == 'old'
    assert keyframe_map.revision > revision
    assert keyframe_map.get(1).global_descriptor is None
    # Nothing was left to drop.
    assert keyframe_map.use_descriptors_of('newest') == ''
    longer = np.array([0.0, 1.0, 0.0], np.float32)
    keyframe_map.add(make_keyframe(id=2, global_descriptor=DESCRIPTOR), 'old')
    keyframe_map.add(make_keyframe(id=3, global_descriptor=longer), 'newest')
    assert [k.global_descriptor is None for k in keyframe_map] == [True, True, False]
    assert keyframe_map.use_descriptors_of('newest') == ''
    assert keyframe_map.get(3).global_descriptor is not None


def test_descriptor_of_another_length_is_left_out_and_computed_again():
    keyframe_map = KeyframeMap([make_keyframe(id=1, global_descriptor=DESCRIPTOR)])
    longer = np.array([0.0, 1.0, 0.0], np.float32)
    keyframe_map.add(make_keyframe(id=2, global_descriptor=longer))
    assert keyframe_map.get(2).global_descriptor is None
    assert keyframe_map.get(1).global_descriptor is not None
    # An empty map has no length to keep to.
    keyframe_map.remove(1)
    keyframe_map.remove(2)
    keyframe_map.add(make_keyframe(id=2, global_descriptor=longer))
    assert keyframe_map.get(2).global_descriptor is not None


def test_computed_descriptor_drops_those_of_another_length():
    keyframe_map = KeyframeMap([make_keyframe(id=1, global_descriptor=DESCRIPTOR)])
    bare = make_keyframe(id=2)
    keyframe_map.add(bare)
    computed = bare.with_descriptor(np.array([0.0, 1.0, 0.0], np.float32))
    assert keyframe_map.exchange(bare, computed)
    assert keyframe_map.get(1).global_descriptor is None
    assert keyframe_map.get(2) is computed
