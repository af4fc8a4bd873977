"""Settings of localization, each declared once: default, description and range."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _setting(default: float, description: str, minimum: float, maximum: float) -> Any:  # noqa: ANN401 - what dataclasses.field returns
    return field(
        default=default, metadata={'description': description, 'range': (minimum, maximum)}
    )


@dataclass(frozen=True)
class _Settings:
    def __post_init__(self) -> None:
        """Check every value against its range.

        Raises:
            ValueError: naming the field.
        """
        for setting in fields(self):
            value = getattr(self, setting.name)
            minimum, maximum = setting.metadata['range']
            if not minimum <= value <= maximum:  # also True for NaN
                raise ValueError(
                    f'{setting.name} is {value}; wanted {minimum} to {maximum}. '
                    f'{setting.metadata["description"]}'
                )


# The gates, measured at 640 x 480 with 3 keyframes: the 39 queries of redkitchen have from 153
# inliers, 29 % of the matches, 17 % of the image on, 242 images of two other rooms (livingroom,
# tum_fr1_rpy) in its map up to 50, 13 %, 10 % (`coam check-covariance redkitchen --elsewhere
# tum_fr1_rpy livingroom`). What one thing gives that is taken for an equal one elsewhere, and the
# coverage that it does not reach: docs/experiments.md.
@dataclass(frozen=True)
class LocalizationConfig(_Settings):
    """How an image is localized and when its pose is good enough; the fields describe themselves.

    Attributes are listed with description and range in the fields' metadata.
    """

    num_keyframes: int = _setting(3, 'Keyframes to retrieve and match for each image.', 1, 20)
    max_reprojection_error_px: float = _setting(
        12.0,
        'Largest reprojection error of an inlier, in pixels of a 640 x 480 image; scaled with '
        'the root of the area for other sizes.',
        1.0,
        50.0,
    )
    min_inliers: int = _setting(
        50,
        'Fewest inliers of a pose that is accepted; those in one block of the image (8 px at '
        '640 x 480), with whichever keyframes, count once.',
        6,
        4800,
    )
    min_inlier_ratio: float = _setting(
        0.05, 'Smallest share of inliers among the matches of an accepted pose.', 0.0, 1.0
    )
    min_coverage: float = _setting(
        0.15,
        'Smallest share of the image (of its cells, 8 along the longer side) in which an accepted '
        'pose has at least 5 inliers, counted as for min_inliers; guards against poses from a '
        'single object.',
        0.0,
        1.0,
    )
    max_position_std_m: float = _setting(
        0.10,
        'Largest standard deviation of an accepted position along its worst direction [m].',
        0.001,
        100.0,
    )
    max_rotation_std_deg: float = _setting(
        2.0,
        'Largest standard deviation of an accepted orientation about its worst axis [deg].',
        0.01,
        180.0,
    )
    keyframe_position_std_m: float = _setting(
        0.01,
        "Standard deviation of a keyframe's own error of position in the map, along each axis: "
        'counts where few keyframes bear a pose. About 0.01 of a map by SLAM in a room, 0 of an '
        'exact one [m].',
        0.0,
        10.0,
    )
    keyframe_rotation_std_deg: float = _setting(
        0.2, 'As keyframe_position_std_m, for the orientation [deg].', 0.0, 90.0
    )
    map_position_std_m: float = _setting(
        0.0,
        'Standard deviation of errors of position that all keyframes of a place share (drift of '
        'the map): no image shows it, so it is added to every pose [m].',
        0.0,
        10.0,
    )
    map_rotation_std_deg: float = _setting(
        0.0, 'As map_position_std_m, for the orientation [deg].', 0.0, 90.0
    )


@dataclass(frozen=True)
class TrackerConfig(_Settings):
    """How the poses of images make a state; as `LocalizationConfig`."""

    lost_after_s: float = _setting(
        3.0,
        'Time without an accepted pose, or without an image, after which the state is LOST; keep '
        'it above the time between two images [s].',
        0.1,
        3600.0,
    )
    max_speed_m_s: float = _setting(
        2.0, 'Fastest motion of the camera; more is a jump [m/s].', 0.01, 100.0
    )
    max_turn_rate_deg_s: float = _setting(
        120.0, 'Fastest turn of the camera; more is a jump [deg/s].', 1.0, 3600.0
    )
    confirmation_inliers: int = _setting(
        100,
        'A first pose or a jump with fewer inliers, counted as for min_inliers, is published only '
        'after the next pose confirms it.',
        0,
        100000,
    )
