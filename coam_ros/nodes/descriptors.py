"""Global descriptors for keyframes that arrive without one, or with another model's."""

from __future__ import annotations

from dataclasses import replace
import logging
import time

from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import CoamMatcher

_log = logging.getLogger(__name__)


def describe_keyframes(keyframe_map: KeyframeMap, matcher: CoamMatcher, budget_s: float) -> int:
    """Compute missing descriptors for some time, so that a large map holds nothing up for long.

    A keyframe whose image does not decode is removed from the map, and the log says so. Only the
    thread that owns the matcher may call this.

    Args:
        keyframe_map: is changed in place; works with the keyframes described so far meanwhile.
        matcher: that is used with the map.
        budget_s: time after which no further keyframe is begun [s]; one is always done.

    Returns:
        The number of keyframes that still lack a descriptor.
    """
    if keyframe_map.descriptor_model_id != matcher.descriptor_model_id:
        _forget_descriptors(keyframe_map)
        keyframe_map.descriptor_model_id = matcher.descriptor_model_id
    missing = [keyframe for keyframe in keyframe_map if keyframe.global_descriptor is None]
    end_s = time.monotonic() + budget_s
    for num_done, keyframe in enumerate(missing, start=1):
        try:
            descriptor = matcher.encode(keyframe.decode_image()).global_descriptor
        except MapFormatError as error:
            _log.warning('removed from the map: %s', error)
            keyframe_map.remove(keyframe.id)
        else:
            # It may have been changed or removed meanwhile.
            if keyframe_map.get(keyframe.id) is keyframe:
                keyframe_map.add(replace(keyframe, global_descriptor=descriptor))
        if time.monotonic() >= end_s or num_done == len(missing):
            _log.info('described %d keyframes, %d to go', num_done, len(missing) - num_done)
            return len(missing) - num_done
    return 0


def _forget_descriptors(keyframe_map: KeyframeMap) -> None:
    stale = [keyframe for keyframe in keyframe_map if keyframe.global_descriptor is not None]
    if stale:
        _log.warning(
            'the descriptors of map %s are of model %r, not of this one; computing them again',
            keyframe_map.map_id,
            keyframe_map.descriptor_model_id,
        )
    for keyframe in stale:
        if keyframe_map.get(keyframe.id) is keyframe:
            keyframe_map.add(replace(keyframe, global_descriptor=None))
