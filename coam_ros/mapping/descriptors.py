"""Global descriptors for the keyframes of a map that have none, or another model's."""

from __future__ import annotations

from collections.abc import Callable
import logging
import math
import time

from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching.image_matcher import ImageMatcher

_log = logging.getLogger(__name__)


def compute_descriptors(
    keyframe_map: KeyframeMap,
    matcher: ImageMatcher,
    *,
    budget_s: float = math.inf,
    removes_damaged: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Compute the global descriptors that a map lacks for a matcher.

    Those of another model are dropped first. The map can be used meanwhile; a keyframe that is
    changed or removed then is left as it is.

    Args:
        keyframe_map: is changed in place.
        matcher: that is used with the map; only the thread that owns it may call this.
        budget_s: time after which no further keyframe is begun [s]; one is always done.
        removes_damaged: whether a keyframe whose image does not decode leaves the map, with a
            line in the log, instead of ending this.
        progress: is called with (keyframes done, keyframes to do).

    Returns:
        The number of descriptors computed; 0 when the map fits already.

    Raises:
        MapFormatError: a keyframe that does not decode; those before it are described.
    """
    former = keyframe_map.use_descriptors_of(matcher.descriptor_model_id)
    if former:
        _log.warning(
            'the descriptors of map %s were of model %r, not of this one; computing them again',
            keyframe_map.map_id,
            former,
        )
    missing = [keyframe for keyframe in keyframe_map if keyframe.global_descriptor is None]
    end_s = time.monotonic() + budget_s
    num_computed = 0
    for num_done, keyframe in enumerate(missing, start=1):
        try:
            descriptor = matcher.encode(keyframe.decode_image()).global_descriptor
        except MapFormatError as error:
            if not removes_damaged:
                raise
            _log.warning('removed from the map: %s', error)
            keyframe_map.discard(keyframe)
        else:
            num_computed += keyframe_map.exchange(keyframe, keyframe.with_descriptor(descriptor))
        if progress:
            progress(num_done, len(missing))
        if time.monotonic() >= end_s or num_done == len(missing):
            _log.info('described %d keyframes, %d to go', num_done, len(missing) - num_done)
            break
    return num_computed
