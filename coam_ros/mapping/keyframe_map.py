"""The set of keyframes that a robot localizes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import threading
import uuid

from coam_ros.mapping.keyframe import Keyframe
import numpy as np


class KeyframeMap:
    """Keyframes by id, in the order in which they came; safe to use from several threads.

    Keyframes themselves never change: a new one with the same id takes the place of the old one.

    Attributes:
        map_id: tells maps apart; kept when a map is saved and loaded.
        frame_id: name of the map frame, for example 'map'.
        descriptor_model_id: model that made the global descriptors; '' while there are none.
    """

    def __init__(
        self,
        keyframes: Iterable[Keyframe] = (),
        *,
        map_id: str | None = None,
        frame_id: str = 'map',
        descriptor_model_id: str = '',
    ) -> None:
        """Make a map.

        Args:
            keyframes: to begin with; of two with one id the later one stays.
            map_id: None makes a new one.
            frame_id: name of the map frame.
            descriptor_model_id: model that made the keyframes' global descriptors.
        """
        self.map_id = map_id or uuid.uuid4().hex
        self.frame_id = frame_id
        self.descriptor_model_id = descriptor_model_id
        self._lock = threading.Lock()
        self._keyframes: dict[int, Keyframe] = {}
        self._revision = 0
        for keyframe in keyframes:
            self.add(keyframe)

    @property
    def revision(self) -> int:
        """Grows with every change; equal revisions of one map mean equal contents."""
        with self._lock:
            return self._revision

    def add(self, keyframe: Keyframe) -> bool:
        """Add a keyframe, or put it in the place of the one with its id.

        Returns:
            False when the map already held the very same keyframe, and nothing changed.
        """
        with self._lock:
            known = self._keyframes.get(keyframe.id)
            if known is not None and _is_same(known, keyframe):
                return False
            self._keyframes[keyframe.id] = keyframe
            self._revision += 1
            return True

    def remove(self, keyframe_id: int) -> bool:
        """Remove a keyframe.

        Returns:
            False when the map had none with this id.
        """
        with self._lock:
            if self._keyframes.pop(keyframe_id, None) is None:
                return False
            self._revision += 1
            return True

    def get(self, keyframe_id: int) -> Keyframe | None:
        """Return the keyframe with this id, or None."""
        with self._lock:
            return self._keyframes.get(keyframe_id)

    def snapshot(self) -> tuple[int, str, tuple[Keyframe, ...]]:
        """Return the revision, the model of the descriptors, and the keyframes that go with both.

        Who changes the model while others read takes the former descriptors out before it and
        puts new ones in after it, so under the lock they belong together.
        """
        with self._lock:
            return self._revision, self.descriptor_model_id, tuple(self._keyframes.values())

    def __len__(self) -> int:
        """Return the number of keyframes."""
        with self._lock:
            return len(self._keyframes)

    def __iter__(self) -> Iterator[Keyframe]:
        """Iterate over the keyframes that the map holds now; changes meanwhile do not disturb."""
        return iter(self.snapshot()[2])

    def __contains__(self, keyframe_id: int) -> bool:
        """Tell whether the map has a keyframe with this id."""
        return self.get(keyframe_id) is not None


def _is_same(a: Keyframe, b: Keyframe) -> bool:
    if a is b:
        return True
    if (a.stamp_s, a.camera, a.image, a.depth, a.depth_scale_m) != (
        b.stamp_s,
        b.camera,
        b.image,
        b.depth,
        b.depth_scale_m,
    ):
        return False
    names = ('T_map_camera', 'landmark_pixels', 'landmark_points_map', 'global_descriptor')
    return all(_is_equal_array(getattr(a, name), getattr(b, name)) for name in names)


def _is_equal_array(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b)
