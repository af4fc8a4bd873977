"""Messages for people to look at, in RViz: matches, keyframes, landmarks in colour."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
import sys

from builtin_interfaces.msg import Time
from coam_ros.localization.drawing import draw_best_keyframe
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.nodes.attempt import Attempt
from coam_ros.nodes.conversions import pose_from_transform
from coam_ros.nodes.images import encode_image
from geometry_msgs.msg import PoseArray
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

# As RViz and PCL have it: the bytes of the colour are those of the number 0x00RRGGBB.
_POINT = np.dtype([('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('rgb', 'u4')])


def debug_image_message(attempt: Attempt) -> Image | None:
    """Draw the keyframe with the most inliers, or None when nothing was matched."""
    picture = draw_best_keyframe(attempt.image, attempt.result, attempt.keyframes)
    return None if picture is None else encode_image(picture, attempt.header)


def keyframe_poses_message(
    keyframes: Iterable[Keyframe], map_frame: str, stamp: Time
) -> PoseArray:
    """Make the poses of the keyframes' optical frames: z looks ahead, x to the right."""
    return PoseArray(
        header=Header(stamp=stamp, frame_id=map_frame),
        poses=[pose_from_transform(keyframe.T_map_camera) for keyframe in keyframes],
    )


def landmarks_message(attempt: Attempt, map_frame: str) -> PointCloud2 | None:
    """Make the landmarks that a pose rests on, coloured as the image shows them.

    Returns:
        None where there is no pose. A landmark that several keyframes see is there as often.
    """
    if attempt.T_map_frame is None:
        return None
    found = attempt.result.keyframe_matches
    inliers = [matches.inlier_mask for matches in found]
    points = np.concatenate([m.points_map[mask] for m, mask in zip(found, inliers, strict=True)])
    pixels = np.concatenate([m.query_pixels[mask] for m, mask in zip(found, inliers, strict=True)])
    cloud = np.empty(len(points), _POINT)
    cloud['x'], cloud['y'], cloud['z'] = points.T
    cloud['rgb'] = _colours(attempt.image, pixels)
    return PointCloud2(
        header=Header(stamp=attempt.header.stamp, frame_id=map_frame),
        height=1,
        width=len(cloud),
        fields=[
            PointField(
                name=name, offset=_POINT.fields[name][1], datatype=PointField.FLOAT32, count=1
            )
            for name in _POINT.names
        ],
        is_bigendian=sys.byteorder == 'big',
        point_step=_POINT.itemsize,
        row_step=cloud.nbytes,
        data=array('B', cloud.tobytes()),
        is_dense=True,
    )


def _colours(image: NDArray[np.uint8], pixels: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return 0x00RRGGBB of an image, (H, W) or (H, W, 3) uint8, at (N, 2) pixels."""
    height, width = image.shape[:2]
    columns, rows = np.clip(pixels.round().astype(int), 0, (width - 1, height - 1)).T
    colours = image[rows, columns].astype(np.uint32)
    red, green, blue = colours.T if colours.ndim > 1 else (colours,) * 3
    return red << 16 | green << 8 | blue
