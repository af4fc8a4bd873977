"""What `coam bench sfm` measures; apart from `sfm`, which needs COLMAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coam_ros.mapping.shared_keypoints import MERGE_RADIUS_PX
import numpy as np

POSE_AUC_DEG = (1, 3, 5)
SFM_PROTOCOL = (
    'Matches of all pairs, images at an area of 640 x 480 px; points of an image within '
    f'{MERGE_RADIUS_PX} px (or --merge-radius) become one key point. Geometric verification and '
    'incremental mapping of COLMAP, defaults, seed 0; intrinsics of a pair list are fixed, others '
    'refined. Of the largest model: reprojection error in pixels of the images as they are. AUC: '
    'of the larger of the errors of rotation and translation direction of the pairs of a list '
    'with poses; a pair with a missing image counts as lost.'
)


def summarise_scene(outcomes: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Give the figures of a scene (means, should there be several)."""
    return {
        name: float(np.mean([outcome['figures'][name] for outcome in outcomes]))
        for name in outcomes[0]['figures']
    }
