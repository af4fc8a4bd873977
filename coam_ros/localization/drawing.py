"""Pictures of a result, for people."""

from __future__ import annotations

from collections.abc import Mapping

from coam_ros.localization.result import RelocalizationResult
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching.drawing import draw_matches
import numpy as np
from numpy.typing import NDArray


def draw_best_keyframe(
    image: NDArray[np.uint8],
    result: RelocalizationResult,
    keyframes: KeyframeMap | Mapping[int, Keyframe],
) -> NDArray[np.uint8] | None:
    """Draw a query beside the keyframe that supports its pose most, with their matches.

    Args:
        image: (H, W, 3) RGB or (H, W) grey uint8, the query.
        result: of the query.
        keyframes: that can be shown, by id.

    Returns:
        (H, W', 3) uint8 RGB; None when the query was matched with none of the keyframes.
    """
    matched = [(m, keyframes.get(m.keyframe_id)) for m in result.keyframe_matches]
    shown = [(m, keyframe) for m, keyframe in matched if keyframe is not None]
    if not shown:
        return None
    # Where no pose was found no match is an inlier: then their number decides.
    best, keyframe = max(shown, key=lambda x: (int(x[0].inlier_mask.sum()), len(x[0].scores)))
    return draw_matches(
        image,
        keyframe.decode_image(),
        best.query_pixels,
        best.keyframe_pixels,
        best.inlier_mask,
    )
