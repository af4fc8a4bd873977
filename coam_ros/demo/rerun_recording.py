"""The run as a recording for the Rerun viewer: `rerun FILE.rrd`."""

from __future__ import annotations

from pathlib import Path

from coam_ros.demo.recording import Answer, Recording
from coam_ros.demo.scenario import LiveFrame, Scenario
from coam_ros.demo.scoring import Score
from coam_ros.evaluation.metrics.localization import QueryOutcome
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.image_header import read_image_header
from coam_ros.mapping.point_cloud import make_point_cloud
import numpy as np
from numpy.typing import NDArray
import rerun as rr
import rerun.blueprint as rrb

_POINT_STEP_PX = 16
_TRUE, _ESTIMATED, _KEYFRAME = (224, 123, 26), (47, 158, 68), (154, 154, 154)
_TIMELINE = 'time'
_CAMERA_PLANE_M = 0.35


def write_rerun(path: Path, scenario: Scenario, recording: Recording, score: Score) -> None:
    """Write map, images, poses, inliers, errors and latencies over time."""
    stream = rr.RecordingStream('coam_ros_demo')
    stream.save(str(path), default_blueprint=_blueprint())
    if scenario.is_exact:
        stream.log('map', rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    _log_map(stream, scenario)
    rows = zip(
        recording.sent_s, scenario.live_frames, recording.answers, score.outcomes, strict=True
    )
    for sent_s, frame, answer, outcome in rows:
        stream.set_time(_TIMELINE, duration=sent_s)
        _log_frame(stream, scenario.camera, frame, answer)
        if answer is not None:
            _log_answer(stream, answer, outcome)
    stream.flush()
    stream.disconnect()


def _blueprint() -> rrb.Blueprint:
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(origin='map', name='Map'),
            rrb.Vertical(
                rrb.Spatial2DView(origin='camera', name='Live image'),
                rrb.TimeSeriesView(origin='errors', name='Errors [cm, deg]'),
                rrb.TimeSeriesView(origin='latency_ms', name='Latency [ms]'),
                rrb.TextLogView(origin='status', name='Status'),
                row_shares=[3, 2, 2, 1],
            ),
            column_shares=[3, 2],
        ),
        collapse_panels=True,
    )


def _log_map(stream: rr.RecordingStream, scenario: Scenario) -> None:
    poses = np.array([keyframe.T_map_camera for keyframe in scenario.map_frames])
    arrows = rr.Arrows3D(
        origins=poses[:, :3, 3], vectors=0.15 * poses[:, :3, 2], colors=[_KEYFRAME], radii=0.008
    )
    stream.log('map/keyframes', arrows, static=True)
    clouds = [make_point_cloud(keyframe, _POINT_STEP_PX) for keyframe in scenario.map_frames]
    points, colours = (np.concatenate(parts) for parts in zip(*clouds, strict=True))
    cloud = rr.Points3D(points, colors=colours, radii=0.01)
    stream.log('map/points', cloud, static=True)


def _log_frame(
    stream: rr.RecordingStream, camera: PinholeCamera, frame: LiveFrame, answer: Answer | None
) -> None:
    media_type = f'image/{read_image_header(frame.image).format}'
    stream.log('camera', rr.EncodedImage(contents=frame.image, media_type=media_type))
    _log_camera(stream, 'map/true_camera', camera, frame.T_map_camera, _TRUE)
    if answer is not None:
        _log_camera(stream, 'map/camera', camera, answer.result.T_map_camera, _ESTIMATED)


def _log_camera(
    stream: rr.RecordingStream,
    entity: str,
    camera: PinholeCamera,
    T_map_camera: NDArray[np.float64] | None,
    colour: tuple[int, int, int],
) -> None:
    if T_map_camera is None:
        stream.log(entity, rr.Clear(recursive=True))
        return
    transform = rr.Transform3D(translation=T_map_camera[:3, 3], mat3x3=T_map_camera[:3, :3])
    pinhole = rr.Pinhole(
        image_from_camera=camera.K,
        resolution=[camera.width, camera.height],
        image_plane_distance=_CAMERA_PLANE_M,
        color=colour,
    )
    stream.log(entity, transform, pinhole)


def _log_answer(stream: rr.RecordingStream, answer: Answer, outcome: QueryOutcome | None) -> None:
    result = answer.result
    inliers = [m.points_map[m.inlier_mask] for m in result.keyframe_matches]
    points = np.concatenate([*inliers, np.empty((0, 3))])
    stream.log('map/inliers', rr.Points3D(points, colors=[_ESTIMATED], radii=0.015))
    level = rr.TextLogLevel.INFO if result.is_localized else rr.TextLogLevel.WARN
    text = f'{answer.state}, {result.num_inliers} inliers. {answer.message}'
    stream.log('status', rr.TextLog(text, level=level))
    for stage, duration_s in result.stage_durations_s.items():
        stream.log(f'latency_ms/{stage}', rr.Scalars(1000 * duration_s))
    stream.log('latency_ms/end_to_end', rr.Scalars(1000 * answer.latency_s))
    if outcome is not None and outcome.is_localized:
        stream.log('errors/position_cm', rr.Scalars(100 * outcome.translation_error_m))
        stream.log('errors/rotation_deg', rr.Scalars(outcome.rotation_error_deg))
