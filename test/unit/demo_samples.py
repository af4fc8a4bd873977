"""A small scenario with answers made by hand, for the tests of the demo's score and report."""

from __future__ import annotations

from coam_ros.demo.recording import Answer, Recording
from coam_ros.demo.scenario import LiveFrame, Scenario
from coam_ros.geometry.transforms import make_transform
from coam_ros.localization import FailureReason, KeyframeMatches, RelocalizationResult
from coam_ros.mapping.keyframe import Keyframe
from map_samples import CAMERA, encode, make_image, make_keyframe
import numpy as np

RATE_HZ = 2.0
STD_M = 0.01
COVARIANCE = np.diag([STD_M**2] * 3 + [0.01**2] * 3)
LATENCY_S = 0.25


def true_pose(index: int) -> np.ndarray:
    return make_transform(np.eye(3), (0.1 * index, 0.0, 1.0))


def make_scenario(num_frames: int, unmapped: set[int], kidnappings: tuple[int, ...]) -> Scenario:
    image = encode(make_image(), '.jpg')
    return Scenario(
        title='made by hand',
        camera=CAMERA,
        map_frames=[make_keyframe(id=i, T_map_camera=true_pose(i)) for i in range(3)],
        live_frames=[
            LiveFrame(image, None if i in unmapped else true_pose(i)) for i in range(num_frames)
        ],
        rate_hz=RATE_HZ,
        is_exact=True,
        kidnappings=kidnappings,
        outlines_map=(np.array([(-1.0, -1.0), (3.0, -1.0), (3.0, 1.0), (-1.0, 1.0)]),),
    )


def pose_answer(index: int, offset_m: float = 0.0) -> Answer:
    """An answer with a pose that is off along y."""
    T_map_camera = true_pose(index)
    T_map_camera[1, 3] += offset_m
    pixels = np.array([(10.0, 12.0), (30.0, 20.0), (50.0, 40.0)], np.float32)
    matches = KeyframeMatches(
        1, pixels, pixels, np.ones(3, np.float32), np.ones((3, 3)), np.array([True, True, False])
    )
    result = RelocalizationResult(
        T_map_camera,
        COVARIANCE,
        num_matches=3,
        num_inliers=2,
        keyframe_ids=(1,),
        keyframe_matches=(matches,),
        stage_durations_s={'encode': 0.1, 'match': 0.3},
    )
    return Answer('localized', 'none', '', LATENCY_S, result)


def failed_answer() -> Answer:
    result = RelocalizationResult(
        failure=FailureReason.TOO_FEW_INLIERS, stage_durations_s={'encode': 0.1}
    )
    return Answer('lost', 'too_few_inliers', '3 inliers, wanted 40', LATENCY_S, result)


def make_recording(answers: list[Answer | None]) -> Recording:
    return Recording(
        sent_s=[i / RATE_HZ for i in range(len(answers))],
        answers=answers,
        startup_s=3.5,
        engine_id='engine-1234',
        num_keyframes=3,
        num_dropped_by_matcher=sum(answer is None for answer in answers),
        matcher_memory_bytes=100 * 2**20,
    )


def seven_scenes_frame(directory: object, keyframe: Keyframe) -> str:
    """Write a keyframe as a frame of a recording; return its name."""
    name = f'frame-{keyframe.id:06d}'
    (directory / f'{name}.color.jpg').write_bytes(keyframe.image)
    (directory / f'{name}.depth.png').write_bytes(keyframe.depth)
    np.savetxt(directory / f'{name}.pose.txt', keyframe.T_map_camera)
    return name
