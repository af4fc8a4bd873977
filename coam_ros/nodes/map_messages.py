"""A keyframe map as a series of messages, and the map that such messages make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import logging

from builtin_interfaces.msg import Time
from coam_msgs.msg import KeyframeArray
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.nodes.conversions import keyframe_from_message, keyframe_to_message

_log = logging.getLogger(__name__)


def split_map(keyframe_map: KeyframeMap, max_bytes: int) -> list[list[Keyframe]]:
    """Divide a map into parts of bounded size.

    Args:
        keyframe_map: to divide.
        max_bytes: of a part; a keyframe that alone is larger makes a part of its own.

    Returns:
        The parts, in the order of the map; one empty part for an empty map.
    """
    parts: list[list[Keyframe]] = [[]]
    size = 0
    for keyframe in keyframe_map:
        if parts[-1] and size + keyframe.num_bytes > max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(keyframe)
        size += keyframe.num_bytes
    return parts


def map_to_messages(
    keyframe_map: KeyframeMap,
    parts: list[list[Keyframe]],
    stamp: Time,
    removed_ids: Iterable[int] = (),
) -> Iterator[KeyframeArray]:
    """Make the messages of a map one by one, so that only one copy is held at a time.

    Args:
        keyframe_map: for its names.
        parts: of `split_map`.
        stamp: when the messages are sent.
        removed_ids: keyframes that the map had in former messages.
    """
    for index, keyframes in enumerate(parts):
        message = KeyframeArray(
            map_id=keyframe_map.map_id,
            descriptor_model_id=keyframe_map.descriptor_model_id,
            part=index,
            num_parts=len(parts),
            keyframes=[keyframe_to_message(keyframe) for keyframe in keyframes],
            removed_ids=[] if index else sorted(removed_ids),
        )
        message.header.stamp = stamp
        message.header.frame_id = keyframe_map.frame_id
        yield message


class MapReceiver:
    """Merges the messages of a map server or a SLAM system into a map.

    Messages with the map_id of the map in use change it at once. Another map_id begins a new
    map, which replaces the one in use when all of its parts are there, or at once when there is
    nothing to lose.

    Attributes:
        keyframe_map: in use.
        num_refused: keyframes that could not be used.
    """

    def __init__(self, keyframe_map: KeyframeMap | None = None) -> None:
        """Begin with a map, or with none."""
        self.keyframe_map = KeyframeMap() if keyframe_map is None else keyframe_map
        self.num_refused = 0
        self._incoming: KeyframeMap | None = None
        self._parts_seen: set[int] = set()

    def receive(self, message: KeyframeArray) -> bool:
        """Take in one message; keyframes that are broken are logged and left out.

        Returns:
            True when `keyframe_map` is another map than before.
        """
        target = self._target(message)
        for keyframe_id in message.removed_ids:
            target.remove(keyframe_id)
        for keyframe in self._keyframes(message):
            # Of another model it is not comparable with the others; the matcher computes it again.
            target.add(keyframe, message.descriptor_model_id)
        if target is self.keyframe_map:
            return False
        self._parts_seen.add(message.part)
        if len(self.keyframe_map) and len(self._parts_seen) < message.num_parts:
            return False
        former = f', instead of {self.keyframe_map.map_id}' if len(self.keyframe_map) else ''
        _log.info('map %s is in use now%s', target.map_id, former)
        self.keyframe_map, self._incoming = target, None
        return True

    def _target(self, message: KeyframeArray) -> KeyframeMap:
        if message.map_id in ('', self.keyframe_map.map_id):
            return self.keyframe_map
        if self._incoming is None or self._incoming.map_id != message.map_id:
            self._parts_seen = set()
            self._incoming = KeyframeMap(
                map_id=message.map_id,
                frame_id=message.header.frame_id or self.keyframe_map.frame_id,
                descriptor_model_id=message.descriptor_model_id,
            )
        return self._incoming

    def _keyframes(self, message: KeyframeArray) -> Iterator[Keyframe]:
        for keyframe in message.keyframes:
            try:
                yield keyframe_from_message(keyframe)
            except MapFormatError as error:
                self.num_refused += 1
                _log.warning('a keyframe of map %s was left out: %s', message.map_id, error)
