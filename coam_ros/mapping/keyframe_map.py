"""The set of keyframes that a robot localizes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
import threading
import uuid

from coam_ros.mapping.keyframe import Keyframe
import numpy as np


class KeyframeMap:
    """Keyframes by id, in the order in which they came; safe to use from several threads.

    Keyframes themselves never change: a new one with the same id takes the place of the old one.
    The global descriptors are all of one model and of one length.

    Attributes:
        map_id: tells maps apart; kept when a map is saved and loaded.
        frame_id: name of the map frame, for example 'map'.
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
        self._descriptor_model_id = descriptor_model_id
        self._descriptor_length = 0  # not known yet
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

    @property
    def descriptor_model_id(self) -> str:
        """Model that made the global descriptors; '' while there are none."""
        with self._lock:
            return self._descriptor_model_id

    def use_descriptors_of(self, model_id: str) -> str:
        """Say that the global descriptors are of a model from now on; drop those of another.

        Returns:
            The other model whose descriptors were dropped; '' where there were none.
        """
        with self._lock:
            former, self._descriptor_model_id = self._descriptor_model_id, model_id
            if former == model_id:
                return ''
            is_dropped = self._drop_descriptors()
            self._revision += 1
            return former if is_dropped else ''

    def add(self, keyframe: Keyframe, descriptor_model_id: str | None = None) -> bool:
        """Add a keyframe, or put it in the place of the one with its id.

        One that comes without a descriptor keeps that of the former one if it has its image: a
        loop closure moves keyframes and changes nothing that they show.

        Args:
            keyframe: to add.
            descriptor_model_id: model that made its descriptor, which is left out where the map
                has those of another, or of another length; an empty map takes both over. None:
                the map's model.

        Returns:
            False when the map already held the very same keyframe, and nothing changed.
        """
        with self._lock:
            if not self._keyframes:
                self._descriptor_length = 0
                if descriptor_model_id is not None:
                    self._descriptor_model_id = descriptor_model_id
            elif descriptor_model_id not in (None, self._descriptor_model_id):
                keyframe = keyframe.with_descriptor(None)
            length = _descriptor_length(keyframe)
            if length and self._descriptor_length not in (0, length):
                keyframe = keyframe.with_descriptor(None)
            elif length:
                self._descriptor_length = length
            known = self._keyframes.get(keyframe.id)
            if known is not None:
                descriptor = known.global_descriptor
                if (
                    descriptor is not None
                    and keyframe.global_descriptor is None
                    and keyframe.image == known.image
                ):
                    keyframe = keyframe.with_descriptor(descriptor)
                if _is_same(known, keyframe):
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

    def exchange(self, old: Keyframe, new: Keyframe) -> bool:
        """Put a keyframe in the place of another one of its id, which it was made of.

        The length of its descriptor, which was computed just now, is that of the map from now on.

        Returns:
            False when the map does not hold the old one any more, and nothing changed.
        """
        with self._lock:
            if self._keyframes.get(new.id) is not old:
                return False
            length = _descriptor_length(new)
            if length and length != self._descriptor_length:
                self._drop_descriptors()
                self._descriptor_length = length
            self._keyframes[new.id] = new
            self._revision += 1
            return True

    def discard(self, keyframe: Keyframe) -> bool:
        """Remove this very keyframe, and not a newer one of its id.

        Returns:
            False when the map does not hold it any more.
        """
        with self._lock:
            if self._keyframes.get(keyframe.id) is not keyframe:
                return False
            del self._keyframes[keyframe.id]
            self._revision += 1
            return True

    def get(self, keyframe_id: int) -> Keyframe | None:
        """Return the keyframe with this id, or None."""
        with self._lock:
            return self._keyframes.get(keyframe_id)

    def snapshot(self) -> tuple[int, str, tuple[Keyframe, ...]]:
        """Return the revision, the model of the descriptors and the keyframes of one moment."""
        with self._lock:
            return self._revision, self._descriptor_model_id, tuple(self._keyframes.values())

    def _drop_descriptors(self) -> bool:
        """Drop all descriptors; tells whether there were any."""
        described = [k for k in self._keyframes.values() if k.global_descriptor is not None]
        for keyframe in described:
            self._keyframes[keyframe.id] = keyframe.with_descriptor(None)
        self._descriptor_length = 0
        return bool(described)

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


def _descriptor_length(keyframe: Keyframe) -> int:
    return 0 if keyframe.global_descriptor is None else len(keyframe.global_descriptor)


def _is_same(a: Keyframe, b: Keyframe) -> bool:
    return a is b or all(
        _is_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Keyframe)
    )


def _is_equal(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)  # type: ignore[arg-type]
    return a == b
