from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from coam_msgs.msg import KeyframeArray
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.nodes.conversions import keyframe_to_message
from coam_ros.nodes.map_messages import map_to_messages, MapReceiver, split_map
from map_samples import encode, make_image, make_keyframe
from rclpy.serialization import serialize_message

DESCRIPTOR = np.float32([0.6, 0.8])


def make_map(num_keyframes, map_id='a', **fields):
    keyframes = [
        make_keyframe(id=i, image=encode(make_image(i), '.jpg'), **fields)
        for i in range(num_keyframes)
    ]
    return KeyframeMap(keyframes, map_id=map_id, descriptor_model_id='model')


def messages_of(keyframe_map, max_bytes=10_000):
    return list(map_to_messages(keyframe_map, split_map(keyframe_map, max_bytes), Time(sec=5)))


def ids(keyframe_map):
    return [keyframe.id for keyframe in keyframe_map]


def test_parts_are_bounded_and_hold_every_keyframe_once():
    keyframe_map = make_map(20)
    messages = messages_of(keyframe_map)
    assert len(messages) > 2
    assert [message.part for message in messages] == list(range(len(messages)))
    assert {message.num_parts for message in messages} == {len(messages)}
    assert {message.header.stamp.sec for message in messages} == {5}
    assert [k.id for message in messages for k in message.keyframes] == list(range(20))
    sizes = [sum(k.num_bytes for k in part) for part in split_map(keyframe_map, 10_000)]
    assert max(sizes) <= 10_000
    assert min(sizes[:-1]) > 10_000 - max(k.num_bytes for k in keyframe_map)
    # Names, poses and intrinsics come on top of what is counted.
    assert all(len(serialize_message(m)) < 10_000 + 500 * len(m.keyframes) for m in messages)


def test_large_keyframe_goes_alone_and_an_empty_map_is_one_message():
    assert [len(part) for part in split_map(make_map(3), max_bytes=10)] == [1, 1, 1]
    assert split_map(KeyframeMap(), max_bytes=10) == [[]]


@pytest.mark.parametrize('order', [1, -1])
def test_parts_make_the_map_again_in_any_order(order):
    keyframe_map = make_map(20, global_descriptor=DESCRIPTOR)
    receiver = MapReceiver()
    for message in messages_of(keyframe_map)[::order]:
        receiver.receive(message)
    received = receiver.keyframe_map
    assert sorted(ids(received)) == list(range(20))
    assert (received.map_id, received.frame_id) == ('a', 'map')
    assert received.descriptor_model_id == 'model'
    np.testing.assert_array_equal(received.get(3).global_descriptor, DESCRIPTOR)


def test_keyframe_sent_twice_changes_nothing():
    messages = messages_of(make_map(5))
    receiver = MapReceiver()
    for message in messages:
        receiver.receive(message)
    revision = receiver.keyframe_map.revision
    assert [receiver.receive(message) for message in messages] == [False] * len(messages)
    assert receiver.keyframe_map.revision == revision


def test_removals_come_before_additions():
    receiver = MapReceiver(make_map(3))
    added = keyframe_to_message(make_keyframe(id=1, depth=None))
    receiver.receive(
        KeyframeArray(map_id='a', num_parts=1, removed_ids=[0, 1, 77], keyframes=[added])
    )
    assert ids(receiver.keyframe_map) == [2, 1]
    assert receiver.keyframe_map.get(1).depth is None


def test_message_without_map_id_is_about_the_map_in_use():
    receiver = MapReceiver(make_map(2))
    assert not receiver.receive(KeyframeArray(num_parts=1, removed_ids=[0]))
    assert ids(receiver.keyframe_map) == [1]


def test_another_map_replaces_the_one_in_use_only_when_it_is_whole():
    receiver = MapReceiver(make_map(2, 'old'))
    *first, last = messages_of(make_map(10, 'new'), max_bytes=5_000)
    assert first
    for message in first:
        assert not receiver.receive(message)
        assert receiver.keyframe_map.map_id == 'old'
    assert receiver.receive(last)
    assert receiver.keyframe_map.map_id == 'new'
    assert ids(receiver.keyframe_map) == list(range(10))


def test_what_came_of_an_unfinished_map_is_no_part_of_the_next():
    receiver = MapReceiver(make_map(2, 'old'))
    unfinished = messages_of(make_map(20, 'unfinished'), max_bytes=5_000)[-1]
    assert not receiver.receive(unfinished)
    *first, last = messages_of(make_map(10, 'new'), max_bytes=5_000)
    assert not any(receiver.receive(message) for message in first)
    assert receiver.receive(last)
    assert ids(receiver.keyframe_map) == list(range(10))


def test_first_map_is_used_from_its_first_part_on():
    receiver = MapReceiver(KeyframeMap(frame_id='world'))
    first, second, *_ = messages_of(make_map(10), max_bytes=5_000)
    first.header.frame_id = ''
    assert receiver.receive(first)
    assert receiver.keyframe_map.frame_id == 'world'
    assert len(receiver.keyframe_map) == len(first.keyframes)
    assert not receiver.receive(second)
    assert len(receiver.keyframe_map) == len(first.keyframes) + len(second.keyframes)


def test_broken_keyframe_is_left_out_and_the_rest_is_used():
    (message,) = messages_of(make_map(3), max_bytes=10**9)
    message.keyframes[1].pose.position.x = float('nan')
    receiver = MapReceiver()
    receiver.receive(message)
    assert ids(receiver.keyframe_map) == [0, 2]
    assert receiver.num_refused == 1


def test_descriptors_of_another_model_than_the_maps_are_dropped():
    receiver = MapReceiver(make_map(1, global_descriptor=DESCRIPTOR))
    foreign = keyframe_to_message(make_keyframe(id=9, global_descriptor=DESCRIPTOR))
    receiver.receive(KeyframeArray(map_id='a', descriptor_model_id='other', keyframes=[foreign]))
    assert receiver.keyframe_map.get(0).global_descriptor is not None
    assert receiver.keyframe_map.get(9).global_descriptor is None
