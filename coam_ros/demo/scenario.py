"""What a demo plays: the frames of the map, the frames of the camera and the truth about both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.matching.image_files import decode_rgb
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """One image of the live camera.

    Attributes:
        image: encoded JPEG or PNG.
        T_map_camera: (4, 4) true pose; None where the camera sees nothing of the map.
    """

    image: bytes
    T_map_camera: NDArray[np.float64] | None

    @property
    def is_mapped(self) -> bool:
        """Whether the camera sees a mapped place."""
        return self.T_map_camera is not None

    def decode_image(self) -> NDArray[np.uint8]:
        """Decode to (H, W, 3) uint8 RGB."""
        return decode_rgb(self.image)


@dataclass(frozen=True, eq=False)
class Scenario:
    """A map in the making and a camera that will be played.

    Attributes:
        title: for the report.
        camera: of the live frames.
        map_frames: become the map, all of them.
        live_frames: in the order in which they are played.
        rate_hz: at which they are played.
        is_exact: the poses are exact, so that centimetres can be judged.
        kidnappings: indices of live frames that are the first at a new place.
        outlines_map: (N, 2) closed polygons of walls and furniture, seen from above, for plots.
    """

    title: str
    camera: PinholeCamera
    map_frames: Sequence[Keyframe]
    live_frames: Sequence[LiveFrame]
    rate_hz: float
    is_exact: bool
    kidnappings: tuple[int, ...] = ()
    outlines_map: tuple[NDArray[np.float64], ...] = ()

    @property
    def matcher_parameters(self) -> dict[str, float]:
        """Parameters of the matcher that differ from its defaults."""
        if not self.is_exact:
            return {}
        return {'keyframe_position_std_m': 0.0, 'keyframe_rotation_std_deg': 0.0}
