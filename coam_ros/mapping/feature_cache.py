"""Encoder features of keyframes: computed once, kept under a memory bound."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
import threading
from typing import Any

from coam_ros.mapping.keyframe import Keyframe
from coam_ros.matching.image_matcher import ImageMatcher
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CachedKeyframe:
    """What matching needs of a keyframe, decoded and encoded.

    Attributes:
        encoded: its image as the matcher encoded it, an `Encoded`.
        depth_m: (H, W) float32 depth [m], NaN where there is none; None without a depth image.
    """

    encoded: Any
    depth_m: NDArray[np.float32] | None

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return self.encoded.num_bytes + (0 if self.depth_m is None else self.depth_m.nbytes)


class KeyframeFeatureCache:
    """Keeps the features of the keyframes used last, however large the map is.

    A keyframe whose pose changed keeps its features; one whose image or depth changed is encoded
    again. The counters may be used from any thread, `get` from the thread of the matcher.

    Attributes:
        max_bytes: bound of the memory; features larger than it are computed but not kept.
        hits: calls answered from memory.
        misses: calls that had to compute.
        evictions: entries given up for newer ones.
    """

    def __init__(self, matcher: ImageMatcher, max_bytes: int) -> None:
        """Prepare an empty cache.

        Args:
            matcher: encodes the images.
            max_bytes: of all entries together, at least 0.

        Raises:
            ValueError: a negative bound.
        """
        if max_bytes < 0:
            raise ValueError(
                f'Feature cache of {max_bytes} bytes, wanted at least 0; give a bound that holds '
                'at least the keyframes of one query'
            )
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._matcher = matcher
        self._lock = threading.Lock()
        self._num_bytes = 0
        # By id, the one used last at the end; with the keyframe that it was made from.
        self._entries: OrderedDict[int, tuple[Keyframe, CachedKeyframe]] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        """Memory that the entries take, at most `max_bytes`."""
        with self._lock:
            return self._num_bytes

    def __len__(self) -> int:
        """Return the number of keyframes in memory."""
        with self._lock:
            return len(self._entries)

    def get(self, keyframe: Keyframe) -> CachedKeyframe:
        """Return the features of a keyframe; computes them when they are not in memory.

        Raises:
            MapFormatError: the image or the depth does not decode.
        """
        with self._lock:
            entry = self._entries.get(keyframe.id)
            if entry is not None and _has_same_pixels(entry[0], keyframe):
                self._entries.move_to_end(keyframe.id)
                self.hits += 1
                return entry[1]
            self.misses += 1
        cached = CachedKeyframe(
            self._matcher.encode(keyframe.decode_image()), keyframe.decode_depth_m()
        )
        with self._lock:
            self._drop(keyframe.id)
            if cached.num_bytes <= self.max_bytes:
                while self._num_bytes + cached.num_bytes > self.max_bytes:
                    self._drop(next(iter(self._entries)))
                    self.evictions += 1
                self._entries[keyframe.id] = (keyframe, cached)
                self._num_bytes += cached.num_bytes
        return cached

    def _drop(self, keyframe_id: int) -> None:
        _, cached = self._entries.pop(keyframe_id, (None, None))
        if cached is not None:
            self._num_bytes -= cached.num_bytes


def _has_same_pixels(a: Keyframe, b: Keyframe) -> bool:
    return a is b or (
        a.depth_scale_m == b.depth_scale_m and a.image == b.image and a.depth == b.depth
    )
