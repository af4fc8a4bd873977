"""From one camera frame to one attempt: the judgement is the core's, here is what surrounds it.

Checks of the messages, transforms to the base, the state over time. All of it runs in the
worker's thread, but for frames that never came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import threading
import time

from builtin_interfaces.msg import Time
from coam_msgs.msg import RelocalizationStatus
from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.geometry.transforms import invert, move_covariance
from coam_ros.localization import (
    LocalizationState,
    LocalizationTracker,
    PosePrior,
    RelocalizationResult,
    Relocalizer,
)
from coam_ros.mapping.descriptors import compute_descriptors
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import CoamMatcher
from coam_ros.nodes.conversions import camera_from_info, seconds_from_stamp, transform_from_pose
from coam_ros.nodes.images import check_stamp, decode_image, ImageError
from coam_ros.nodes.parameters import MatcherParameters
from coam_ros.nodes.tf import TransformError, Transforms
from geometry_msgs.msg import PoseWithCovarianceStamped
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

# Longest pause of localization for keyframes that came without a descriptor, an image at a time.
_DESCRIBE_BUDGET_S = 1.0

_NO_MAP = 'The map has no keyframes. Set map_path, call load_map or send keyframes.'


class _NoCameraInfoError(ValueError):
    """The calibration has not arrived."""


_REFUSALS = {
    _NoCameraInfoError: RelocalizationStatus.NO_CAMERA_INFO,
    ImageError: RelocalizationStatus.BAD_IMAGE,
    CalibrationError: RelocalizationStatus.BAD_CALIBRATION,
    TransformError: RelocalizationStatus.NO_TRANSFORM,
}


@dataclass(frozen=True, eq=False)
class Frame:
    """What the callbacks leave for the worker.

    Attributes:
        image: newest image.
        info: newest calibration, None before the first.
        received_s: time.monotonic() at which the image came [s].
    """

    image: Image | CompressedImage
    info: CameraInfo | None
    received_s: float


@dataclass(frozen=True, eq=False)
class Prior:
    """A pose that someone gave, of the frame whose pose the node publishes.

    Attributes:
        T_map_frame: (4, 4) float64.
        radius_m: how far the camera may be from it [m].
    """

    T_map_frame: NDArray[np.float64]
    radius_m: float


@dataclass(frozen=True, eq=False)
class Attempt:
    """The outcome for one frame, be it localized, failed or refused, or for one that never came.

    Attributes:
        header: stamp of the image, optical frame of the camera; without an image the time alone.
        state: after it.
        reason: a constant of RelocalizationStatus; NONE exactly when there is a pose.
        message: the reason in words.
        engine_id: model in use.
        keyframe_map: in use.
        num_keyframes: of the map, then.
        result: of the core; empty for a refused frame.
        image: (H, W[, 3]) uint8, None when it could not be read.
        keyframes: those matched that are still in the map, by id.
        T_map_frame: pose to publish: (4, 4) of the base or the camera, or None.
        covariance: (6, 6) of it, order x y z rx ry rz in the map frame [m, rad], or None.
        T_map_odom: (4, 4) where TF is published, or None.
    """

    header: Header
    state: LocalizationState
    reason: int
    message: str
    engine_id: str
    keyframe_map: KeyframeMap
    num_keyframes: int
    result: RelocalizationResult = field(default_factory=RelocalizationResult)
    image: NDArray[np.uint8] | None = None
    keyframes: dict[int, Keyframe] = field(default_factory=dict)
    T_map_frame: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    T_map_odom: NDArray[np.float64] | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the frame never reached the core, or broke it."""
        return self.reason >= RelocalizationStatus.NO_CAMERA_INFO


@dataclass(frozen=True, eq=False)
class _Session:
    """What belongs to one map; exchanged as a whole."""

    keyframe_map: KeyframeMap
    relocalizer: Relocalizer
    tracker: LocalizationTracker


class FrameLocalizer:
    """Makes attempts, in one thread; `use_map`, `miss` and `parameters` may be used from any.

    Attributes:
        parameters: in force from the next frame on.
    """

    def __init__(
        self,
        matcher: CoamMatcher,
        keyframe_map: KeyframeMap,
        parameters: MatcherParameters,
        transforms: Transforms | None,
    ) -> None:
        """Prepare.

        Args:
            matcher: stays the caller's.
            keyframe_map: to begin with.
            parameters: of the node.
            transforms: needed with base_frame or publish_tf.
        """
        self.parameters = parameters
        self._matcher = matcher
        self._transforms = transforms
        # Images, and their absence, come from two threads.
        self._tracker_lock = threading.Lock()
        self.use_map(keyframe_map)

    @property
    def keyframe_map(self) -> KeyframeMap:
        """The one in use."""
        return self._session.keyframe_map

    def use_map(self, keyframe_map: KeyframeMap) -> None:
        """Localize in another map, from the next frame on, and forget the poses in the old one."""
        parameters = self.parameters
        relocalizer = Relocalizer(
            self._matcher,
            keyframe_map,
            parameters.localization,
            feature_cache_bytes=parameters.feature_cache_mb * 2**20,
        )
        self._session = _Session(
            keyframe_map, relocalizer, LocalizationTracker(parameters.tracking)
        )

    def localize(self, frame: Frame, prior: Prior | None) -> Attempt:
        """Make one attempt."""
        session = self._session
        session.relocalizer.config = self.parameters.localization
        session.tracker.config = self.parameters.tracking
        try:
            start_s = time.perf_counter()
            image, camera = self._read(frame)
            decode_s = time.perf_counter() - start_s
            if not len(session.keyframe_map):
                return self._refuse(session, frame, RelocalizationStatus.NO_MAP, _NO_MAP)
            compute_descriptors(
                session.keyframe_map,
                self._matcher,
                budget_s=_DESCRIBE_BUDGET_S,
                removes_damaged=True,
            )
            result = session.relocalizer.relocalize(
                image, camera, None if prior is None else self._camera_prior(prior, frame)
            )
            durations = {'decode': decode_s, **result.stage_durations_s}
            return self._judge(session, frame, image, replace(result, stage_durations_s=durations))
        except tuple(_REFUSALS) as error:
            return self._refuse(session, frame, _REFUSALS[type(error)], str(error))

    def fail(self, frame: Frame, error: Exception) -> Attempt:
        """Make the attempt of a frame on which the program failed."""
        message = f'{type(error).__name__}: {error}'
        return self._refuse(self._session, frame, RelocalizationStatus.ENGINE_ERROR, message)

    def miss(self, stamp: Time, message: str) -> Attempt:
        """Make the attempt of a frame that never came: a robot that was localized is lost."""
        session = self._session
        with self._tracker_lock:
            session.tracker.lose()
        state, reason = session.tracker.state, RelocalizationStatus.NO_IMAGE
        return self._attempt(session, Header(stamp=stamp), state, reason, message)

    def forget_poses(self) -> None:
        """Begin anew as after a start; features that were computed stay."""
        self._session = replace(
            self._session, tracker=LocalizationTracker(self.parameters.tracking)
        )

    def describe(self) -> dict[str, str]:
        """Tell what is in use, for people."""
        keyframe_map, cache = self._session.keyframe_map, self._session.relocalizer.feature_cache
        map_bytes = sum(keyframe.num_bytes for keyframe in keyframe_map)
        return {
            'engine': self._matcher.model_id,
            'backend': self._matcher.backend_name,
            'map': keyframe_map.map_id,
            'keyframes': str(len(keyframe_map)),
            'map memory [MiB]': f'{map_bytes / 2**20:.1f}',
            'feature cache [MiB]': f'{cache.num_bytes / 2**20:.1f}',
            'feature cache bound [MiB]': f'{cache.max_bytes / 2**20:.0f}',
            'feature cache hits': str(cache.hits),
            'feature cache misses': str(cache.misses),
            'feature cache evictions': str(cache.evictions),
        }

    def _read(self, frame: Frame) -> tuple[NDArray[np.uint8], PinholeCamera]:
        check_stamp(frame.image.header.stamp)
        image = decode_image(frame.image)
        if frame.info is None:
            raise _NoCameraInfoError(
                'No camera_info has arrived, so the image cannot be used. Publish it beside the '
                'image topic, or remap camera_info.'
            )
        camera = camera_from_info(frame.info, is_rectified=self.parameters.is_rectified)
        if image.shape[:2] != (camera.height, camera.width):
            raise CalibrationError(
                f'Image of {image.shape[1]} x {image.shape[0]} px with a camera_info of '
                f'{camera.width} x {camera.height} px; wanted equal sizes. Give the driver the '
                'calibration of this image size, without binning or region of interest.'
            )
        return image, camera

    def _judge(
        self,
        session: _Session,
        frame: Frame,
        image: NDArray[np.uint8],
        result: RelocalizationResult,
    ) -> Attempt:
        header = self._header(frame)
        # Before the tracker: it must not count a pose as published that TF then holds back.
        pose = self._pose(header, result)
        with self._tracker_lock:
            update = session.tracker.update(result, seconds_from_stamp(header.stamp))
        reason, message = RelocalizationStatus.NONE, ''
        if result.failure is not None:
            reason, message = getattr(RelocalizationStatus, result.failure.name), result.message
        elif not update.is_published:
            reason = RelocalizationStatus.NOT_CONFIRMED
            message = (
                'No pose shortly before confirms this one, which has inliers in '
                f'{result.num_inlier_blocks} places of the image, fewer than the '
                f'{session.tracker.config.confirmation_inliers} of a sure one; it waits for the '
                'next image.'
            )
        attempt = self._attempt(session, header, update.state, reason, message)
        found = {i: session.keyframe_map.get(i) for i in result.keyframe_ids}
        keyframes = {i: keyframe for i, keyframe in found.items() if keyframe is not None}
        attempt = replace(attempt, result=result, image=image, keyframes=keyframes)
        return replace(attempt, **pose) if update.is_published else attempt

    def _pose(
        self, header: Header, result: RelocalizationResult
    ) -> dict[str, NDArray[np.float64]]:
        """Give the fields of the attempt that say where the base is and odometry was wrong."""
        if result.T_map_camera is None:
            return {}
        parameters = self.parameters
        T_map_frame, covariance = result.T_map_camera, result.covariance
        if parameters.base_frame:
            T_camera_base = self._lookup(header.frame_id, parameters.base_frame, header.stamp)
            lever_map = T_map_frame[:3, :3] @ T_camera_base[:3, 3]
            covariance = move_covariance(covariance, lever_map)
            T_map_frame = T_map_frame @ T_camera_base
        pose = {'T_map_frame': T_map_frame, 'covariance': covariance}
        if parameters.publish_tf:
            frame_id = parameters.base_frame or header.frame_id
            T_odom_frame = self._lookup(parameters.odom_frame, frame_id, header.stamp)
            # Where the map has the frame, and where odometry believes it.
            pose['T_map_odom'] = T_map_frame @ invert(T_odom_frame)
        return pose

    def _camera_prior(self, prior: Prior, frame: Frame) -> PosePrior:
        T_map_camera = prior.T_map_frame
        if self.parameters.base_frame:
            # The newest transform will do: a prior is rough.
            camera_frame = self._header(frame).frame_id
            T_map_camera = T_map_camera @ self._lookup(
                self.parameters.base_frame, camera_frame, Time()
            )
        return PosePrior(T_map_camera[:3, 3], prior.radius_m)

    def _lookup(self, target: str, source: str, stamp: Time) -> NDArray[np.float64]:
        return self._transforms.lookup(target, source, stamp, self.parameters.tf_timeout_s)

    def _header(self, frame: Frame) -> Header:
        header = frame.image.header
        return Header(stamp=header.stamp, frame_id=self.parameters.camera_frame or header.frame_id)

    def _refuse(self, session: _Session, frame: Frame, reason: int, message: str) -> Attempt:
        header = self._header(frame)
        state, stamp_s = session.tracker.state, seconds_from_stamp(header.stamp)
        if stamp_s > 0:
            # No pose in it, but time goes on: without images that can be used the robot gets lost.
            with self._tracker_lock:
                state = session.tracker.update(RelocalizationResult(), stamp_s).state
        return self._attempt(session, header, state, reason, message)

    def _attempt(
        self,
        session: _Session,
        header: Header,
        state: LocalizationState,
        reason: int,
        message: str,
    ) -> Attempt:
        return Attempt(
            header=header,
            state=state,
            reason=reason,
            message=message,
            engine_id=self._matcher.model_id,
            keyframe_map=session.keyframe_map,
            num_keyframes=len(session.keyframe_map),
        )


def prior_from_message(
    message: PoseWithCovarianceStamped, map_frame: str, radius_m: float
) -> Prior:
    """Read a prior pose.

    Args:
        message: pose in the map; a covariance of zeros means that it was not filled in.
        map_frame: what its frame_id must be.
        radius_m: that a certain pose gets; 3 standard deviations are added [m].

    Raises:
        ValueError: another frame, or numbers that are no pose.
    """
    if message.header.frame_id != map_frame:
        raise ValueError(
            f'Prior pose in frame {message.header.frame_id!r}; wanted {map_frame!r}. '
            'Give it in the map frame (Fixed Frame in RViz).'
        )
    covariance = np.reshape(message.pose.covariance, (6, 6))[:3, :3]
    if not np.isfinite(covariance).all():
        raise ValueError(
            'Prior pose with a covariance that is not finite; wanted m^2, or zeros for unknown. '
            'Correct the publisher.'
        )
    variance = max(float(np.linalg.eigvalsh(covariance)[-1]), 0.0)
    return Prior(transform_from_pose(message.pose.pose), radius_m + 3.0 * variance**0.5)
