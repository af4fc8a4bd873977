"""A recording of real images in the 7-Scenes layout, played as if its camera were here."""

from __future__ import annotations

from pathlib import Path

from coam_ros.demo.scenario import LiveFrame, Scenario
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence


def read_scene_scenario(
    directory: Path, map_list: str, query_list: str, rate_hz: float
) -> Scenario:
    """Read the frames of the map and of the live camera.

    Args:
        directory: in the 7-Scenes layout.
        map_list: file with the names of the frames that make the map.
        query_list: file with the names of the frames to play, in this order.
        rate_hz: at which they are played, whatever the rate of the recording.

    Returns:
        The poses are those of the recording: good to centimetres at best.

    Raises:
        FileNotFoundError: no such directory or list.
        SevenScenesError: a file that cannot be read.
        ValueError: live frames of different cameras.
    """
    live = list(SevenScenesSequence(directory, query_list))
    camera = live[0].camera
    if any(frame.camera != camera for frame in live):
        raise ValueError(
            f'{directory}, {query_list}: frames of several sizes, wanted one camera; '
            'list frames of one size'
        )
    return Scenario(
        title=f'Recording {directory.resolve().name}, {len(live)} frames of {query_list}',
        camera=camera,
        map_frames=list(SevenScenesSequence(directory, map_list)),
        live_frames=[LiveFrame(frame.image, frame.T_map_camera) for frame in live],
        rate_hz=rate_hz,
        is_exact=False,
    )
