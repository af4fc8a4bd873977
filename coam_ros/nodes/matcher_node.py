"""The matcher: camera images and a keyframe map in, matches and poses out."""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
from typing import Any

from coam_msgs.msg import KeyframeArray, RelocalizationStatus
from coam_msgs.srv import LoadMap, Relocalize, SaveMap
from coam_ros.inference import DeviceLostError, EngineIncompatibleError
from coam_ros.localization import LocalizationState
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import load_map, resolve_folder, save_map
from coam_ros.matching import CoamMatcher
from coam_ros.nodes import interfaces
from coam_ros.nodes.attempt import Attempt, Frame, FrameLocalizer, Prior, prior_from_message
from coam_ros.nodes.conversions import seconds_from_stamp
from coam_ros.nodes.diagnostics import DiagnosticsCollector, NodeFacts
from coam_ros.nodes.engine_loading import EngineLoading, plan_engines
from coam_ros.nodes.managed_node import ManagedNode, run
from coam_ros.nodes.map_messages import MapReceiver
from coam_ros.nodes.parameters import MatcherParameters
from coam_ros.nodes.publishing import (
    building_message,
    Outputs,
    pose_message,
    status_message,
    unanswered_message,
)
from coam_ros.nodes.tf import Transforms
from coam_ros.nodes.worker import AttemptWorker
from geometry_msgs.msg import PoseWithCovarianceStamped
import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

_LOG_PERIOD_S = 5.0
_SILENCE_LOG_S = 30.0
_DIAGNOSTICS_PERIOD_S = 1.0
_CHECK_CAMERA_PERIOD_S = 1.0
_SHOW_MAP_PERIOD_S = 1.0
_TF_PERIOD_S = 0.05
_LOADING_PERIOD_S = 0.1
# Longest wait of a call to relocalize; a timer takes no more than 290 years.
_MAX_TIMEOUT_S = 600.0


class MatcherNode(ManagedNode[MatcherParameters]):
    """Localizes the newest camera image, again and again.

    Callbacks store and return; the worker's thread makes the attempts and publishes them.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Declare parameters and interfaces; everything heavy waits for `configure`."""
        super().__init__('matcher', MatcherParameters, **kwargs)
        self._matcher: CoamMatcher | None = None
        self._loading: EngineLoading | None = None
        self._loading_timer: Timer | None = None
        self._localizer: FrameLocalizer | None = None
        self._worker: AttemptWorker | None = None
        self._transforms: Transforms | None = None
        self._map_receiver = MapReceiver()
        # Held where the map is replaced, and where what was found in it is published.
        self._map_lock = threading.Lock()
        self._camera_info: CameraInfo | None = None
        # When the last image came, or was done with, by the clock of ROS: one that is paused, or
        # slow, makes no camera silent.
        self._last_image_s = self._now_s()
        # Since the activation; the worker's mailbox is there only once the engine is.
        self._num_images = 0
        self._T_map_odom: NDArray[np.float64] | None = None
        self._state = LocalizationState.SEARCHING
        self._camera_subscriptions: list[Subscription] = []
        self._keyframes_subscription: Subscription | None = None
        self._tf_timer: Timer | None = None
        is_raw = self.parameters.image_transport == 'raw'
        self._image_topic = interfaces.IMAGE if is_raw else interfaces.COMPRESSED_IMAGE
        self._diagnostics = DiagnosticsCollector(self.get_fully_qualified_name().lstrip('/'))

        self._outputs = Outputs(self)
        diagnostics = interfaces.DIAGNOSTICS
        self._diagnostics_publisher = self.create_publisher(
            diagnostics.type, diagnostics.name, diagnostics.profile()
        )
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._report, clock=self.steady_clock)
        self.create_timer(_CHECK_CAMERA_PERIOD_S, self._check_camera, clock=self.steady_clock)
        self.create_timer(_SHOW_MAP_PERIOD_S, self._show_map, clock=self.steady_clock)

        # They await what takes a while; meanwhile all other callbacks go on.
        group = ReentrantCallbackGroup()
        for service, callback in (
            (interfaces.RELOCALIZE, self._on_relocalize),
            (interfaces.LOAD_MAP, self._on_load_map),
            (interfaces.SAVE_MAP, self._on_save_map),
        ):
            self.create_service(service.type, service.name, callback, callback_group=group)

    # ---- life cycle

    def configure(self) -> None:
        """Load the model and the map, and begin to receive keyframes.

        TensorRT engines take their time: they are loaded, and built, in the background.
        """
        parameters = self.parameters
        if parameters.base_frame or parameters.publish_tf:
            self._transforms = Transforms(self, broadcasts=parameters.publish_tf)
        plan = plan_engines(parameters)
        if plan is None:
            # Said already: not auto, which would look for TensorRT once more.
            backend = 'cpu' if parameters.backend == 'auto' else parameters.backend
            self._use_matcher(self._load_matcher(backend))
            return
        self._loading = EngineLoading(
            plan, self.pool, self.get_logger(), must_build=parameters.force_engine_update
        )
        self._loading_timer = self.create_timer(
            _LOADING_PERIOD_S, self._check_loading, clock=self.steady_clock
        )

    def _load_matcher(self, backend: str) -> CoamMatcher:
        parameters = self.parameters
        return CoamMatcher.load(
            parameters.model_file_path or None,
            backend=backend,
            image_area_px=parameters.image_area_px or None,
            num_threads=parameters.num_threads or None,
        )

    def _use_matcher(self, matcher: CoamMatcher) -> None:
        parameters = self.parameters
        self._matcher = matcher
        self.get_logger().info(
            f'engine={self._matcher.model_id} backend={self._matcher.backend_name}'
        )
        keyframe_map = (
            self._load_map(parameters.map_path)
            if parameters.map_path
            else KeyframeMap(frame_id=parameters.map_frame)
        )
        self._localizer = FrameLocalizer(self._matcher, keyframe_map, parameters, self._transforms)
        self._use_map(MapReceiver(keyframe_map))
        self._keyframes_subscription = self._subscribe(interfaces.KEYFRAMES, self._on_keyframes)

    def _check_loading(self) -> None:
        """Take over the engines once they are there; without them do what the node can."""
        loading = self._loading
        if not loading.is_done:
            return
        self._end_loading()
        try:
            self._use_matcher(self._matcher_of(loading))
            if self.lifecycle_label == 'active':
                self._start_work()
        except Exception as error:  # noqa: BLE001 - else it ends the executor, and the node with it
            self.report_error('configure', error)
            if isinstance(error, DeviceLostError):
                self.give_up()
                return
            if self.lifecycle_label == 'active':
                self.trigger_deactivate()
            self.trigger_cleanup()

    def _matcher_of(self, loading: EngineLoading) -> CoamMatcher:
        try:
            return CoamMatcher(loading.result())
        except EngineIncompatibleError as error:
            if self.parameters.backend == 'tensorrt':
                raise
            self.get_logger().warning(f'No TensorRT: {error} The CPU runs the model instead.')
            return self._load_matcher('cpu')

    def _end_loading(self) -> None:
        self.destroy_timer(self._loading_timer)
        self._loading = self._loading_timer = None

    def activate(self) -> None:
        """Subscribe to the camera and start the worker."""
        if self._localizer is not None:
            self._start_work()
        options = QoSOverridingOptions.with_default_policies()
        self._camera_subscriptions = [
            self._subscribe(interfaces.CAMERA_INFO, self._on_camera_info, options),
            self._subscribe(self._image_topic, self._on_image, options),
            self._subscribe(interfaces.INITIAL_POSE, self._on_initial_pose),
        ]
        if self.parameters.publish_tf:
            self._tf_timer = self.create_timer(
                _TF_PERIOD_S, self._send_transform, clock=self.steady_clock
            )

    def _start_work(self) -> None:
        self._localizer.forget_poses()
        self._worker = AttemptWorker(
            self._localizer, self._publish, self.get_logger(), give_up=self.give_up
        )

    def deactivate(self) -> None:
        """Unsubscribe from the camera and end the worker."""
        for subscription in self._camera_subscriptions:
            self.destroy_subscription(subscription)
        self._camera_subscriptions = []
        if self._tf_timer is not None:
            self.destroy_timer(self._tf_timer)
            self._tf_timer = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        self._outputs.forget_pose()
        self._camera_info = self._T_map_odom = None
        self._num_images = 0
        self._state = LocalizationState.SEARCHING

    def cleanup(self) -> None:
        """Free the model and the map."""
        if self._loading is not None:
            self._loading.cancel()
            self._end_loading()
        if self._keyframes_subscription is not None:
            self.destroy_subscription(self._keyframes_subscription)
            self._keyframes_subscription = None
        self._localizer = None
        self._map_receiver = MapReceiver()
        if self._matcher is not None:
            self._matcher.close()
            self._matcher = None
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    def use_parameters(self) -> None:
        """Take over parameters that changed."""
        if self._localizer is not None:
            self._localizer.parameters = self.parameters
        if self._worker is not None:
            # Else the image that a slow max_rate_hz holds back would be the first to go by them.
            self._worker.mailbox.hurry()

    # ---- in

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image_s = self._now_s()
        self._num_images += 1
        if self._worker is not None:
            self._worker.mailbox.put(Frame(message, self._camera_info, time.monotonic()))
        elif self._loading is not None:
            status = building_message(message.header, self._loading.progress)
            self._outputs.status.publish(status)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_initial_pose(self, message: PoseWithCovarianceStamped) -> None:
        if self._worker is None:
            self.get_logger().warning('initialpose is ignored: the engine is not ready.')
            return
        try:
            self._worker.use_prior(self._read_prior(message))
        except ValueError as error:
            self.get_logger().warning(f'initialpose is ignored: {error}')

    def _on_keyframes(self, message: KeyframeArray) -> None:
        try:
            self._check_frame(message.header.frame_id)
        except ValueError as error:
            self.get_logger().error(str(error), throttle_duration_sec=_LOG_PERIOD_S)
            return
        receiver = self._map_receiver
        if receiver.receive(message):
            self._use_map(receiver)
        elif message.part + 1 == message.num_parts:
            self._log_map()

    def _read_prior(self, message: PoseWithCovarianceStamped) -> Prior:
        parameters = self.parameters
        return prior_from_message(message, parameters.map_frame, parameters.prior_radius_m)

    # ---- services; coroutines, so that they hold up nothing while they wait

    async def _on_relocalize(
        self, request: Relocalize.Request, response: Relocalize.Response
    ) -> Relocalize.Response:
        timeout_s = request.timeout_s or self.parameters.relocalize_timeout_s
        if not 0 < timeout_s <= _MAX_TIMEOUT_S:  # also for NaN
            message = f'timeout_s is {timeout_s}; wanted above 0 and at most {_MAX_TIMEOUT_S} s.'
            return self._unanswered(response, RelocalizationStatus.BAD_REQUEST, message)
        if self._loading is not None:
            response.status = building_message(Header(), self._loading.progress)
            return response
        if self._worker is None:
            message = 'The matcher is not active. Configure and activate it.'
            return self._unanswered(response, RelocalizationStatus.NOT_ACTIVE, message)
        try:
            prior = self._read_prior(request.prior) if request.use_prior else None
        except ValueError as error:
            return self._unanswered(response, RelocalizationStatus.BAD_REQUEST, str(error))
        worker = self._worker
        caller = worker.request(self.executor, prior)
        timer = self.create_timer(timeout_s, lambda: caller.answer(None), clock=self.steady_clock)
        attempt = await caller.future
        self.destroy_timer(timer)
        worker.discard(caller)
        if attempt is None and worker is not self._worker:
            message = 'The matcher was deactivated meanwhile. Activate it and ask again.'
            return self._unanswered(response, RelocalizationStatus.NOT_ACTIVE, message)
        if attempt is None:
            topic = self.resolve_topic_name(self._image_topic.name)
            message = f'No image on {topic} was worked on within {timeout_s:.1f} s.'
            return self._unanswered(response, RelocalizationStatus.NO_IMAGE, message)
        response.status = self._status_of(attempt)
        pose = pose_message(attempt, self.parameters.map_frame)
        if pose is not None:
            response.success, response.pose = True, pose
        return response

    def _unanswered(
        self, response: Relocalize.Response, reason: int, message: str
    ) -> Relocalize.Response:
        response.status = unanswered_message(self._state, reason, message)
        return response

    async def _on_load_map(
        self, request: LoadMap.Request, response: LoadMap.Response
    ) -> LoadMap.Response:
        if self._localizer is None:
            response.message = self._why_no_map()
            return response
        job = await self.done_aside(self._load_map, request.path)
        try:
            receiver = MapReceiver(job.result())
        except (OSError, ValueError) as error:
            response.message = f'{error} The former map stays in use.'
            self.get_logger().error(response.message)
        else:
            if self._localizer is None:
                response.message = 'The matcher was cleaned up meanwhile. Configure it first.'
                return response
            self._use_map(receiver)
            response.success, response.message = True, f'Loaded {request.path}.'
        response.num_keyframes = len(self._map_receiver.keyframe_map)
        return response

    async def _on_save_map(
        self, request: SaveMap.Request, response: SaveMap.Response
    ) -> SaveMap.Response:
        if self._localizer is None:
            response.message = self._why_no_map()
            return response
        try:
            # Before: where the current folder is in the map, it is gone with the former one.
            folder = str(resolve_folder(request.path))
            keyframe_map = self._map_receiver.keyframe_map
            job = await self.done_aside(
                save_map, keyframe_map, folder, overwrite=request.overwrite
            )
            response.num_keyframes = job.result()
        except (OSError, ValueError) as error:
            response.message = str(error)
            self.get_logger().error(response.message)
        else:
            response.success, response.message = True, folder
        return response

    def _why_no_map(self) -> str:
        if self._loading is not None:
            return f'The engine is not ready: {self._loading.progress}.'
        return 'The matcher is not configured. Configure it first.'

    def _use_map(self, receiver: MapReceiver) -> None:
        if self._worker is not None and len(self._localizer.keyframe_map):
            # What was said of a place in the former map.
            self._worker.use_prior(None)
        with self._map_lock:
            self._map_receiver = receiver
            self._localizer.use_map(receiver.keyframe_map)
            self._outputs.forget_pose()
            self._T_map_odom = None
            self._state = LocalizationState.SEARCHING
        if len(receiver.keyframe_map):
            self._log_map()

    def _load_map(self, path: str) -> KeyframeMap:
        keyframe_map = load_map(path)
        self._check_frame(keyframe_map.frame_id)
        return keyframe_map

    def _check_frame(self, frame_id: str) -> None:
        """Refuse a map in another frame than that of the poses, which would be wrong there.

        Raises:
            ValueError: it is another one; an empty name stands for map_frame.
        """
        map_frame = self.parameters.map_frame
        if frame_id not in ('', map_frame):
            raise ValueError(
                f'The map is in frame {frame_id!r}, wanted {map_frame!r}, in which poses are '
                f'published. Set map_frame to {frame_id!r}, or send this map to another matcher.'
            )

    def _log_map(self) -> None:
        receiver = self._map_receiver
        self.get_logger().info(
            f'map={receiver.keyframe_map.map_id} keyframes={len(receiver.keyframe_map)} '
            f'refused_keyframes={receiver.num_refused}'
        )

    # ---- out; in the worker's thread, but for what no image brings about

    def _publish(self, attempt: Attempt) -> bool:
        """Publish an attempt; False where it holds no more: the map was replaced meanwhile."""
        if not self.context.ok():
            return True
        with self._map_lock:
            if attempt.keyframe_map is not self._map_receiver.keyframe_map:
                return False
            status = self._status_of(attempt)
            if attempt.T_map_odom is not None:
                self._T_map_odom = attempt.T_map_odom
            elif attempt.state == LocalizationState.SEARCHING:
                self._T_map_odom = None
                # After a time that was set back it would be of the future.
                self._outputs.forget_pose()
            self._outputs.publish(attempt, status, self.parameters.map_frame)
            self._log(attempt)
        self._last_image_s = self._now_s()
        # There is nothing to count where no image was.
        if attempt.reason != RelocalizationStatus.NO_IMAGE:
            self._diagnostics.record(attempt, status.latency_s)
        return True

    def _log(self, attempt: Attempt) -> None:
        """Keep the state after an attempt, and tell what is new about it."""
        logger, result = self.get_logger(), attempt.result
        if attempt.state == self._state:
            if attempt.is_refused:
                logger.warning(attempt.message, throttle_duration_sec=_LOG_PERIOD_S)
        else:
            text = (
                f'{self._state.value} -> {attempt.state.value} inliers={result.num_inliers} '
                f'places={result.num_inlier_blocks} '
                f'matches={result.num_matches} {attempt.message}'
            )
            if attempt.state == LocalizationState.LOST:
                logger.warning(text)
            else:
                logger.info(text)
            self._state = attempt.state

    def _status_of(self, attempt: Attempt) -> RelocalizationStatus:
        worker = self._worker
        return status_message(
            attempt,
            latency_s=self._now_s() - seconds_from_stamp(attempt.header.stamp),
            num_dropped=0 if worker is None else worker.mailbox.num_dropped,
        )

    def _now_s(self) -> float:
        return seconds_from_stamp(self.get_clock().now().to_msg())

    # ---- timers

    def _send_transform(self) -> None:
        T_map_odom = self._T_map_odom
        if T_map_odom is not None:
            parameters = self.parameters
            ahead = Duration(seconds=parameters.transform_tolerance_s)
            stamp = (self.get_clock().now() + ahead).to_msg()
            self._transforms.broadcast(
                T_map_odom, parameters.map_frame, parameters.odom_frame, stamp
            )

    def _check_camera(self) -> None:
        """Be lost when images stay away: the state, else only of images, would be of long ago."""
        now_s = self._now_s()
        # Of a clock that was set back, a bag that begins again, the silence counts from then on.
        self._last_image_s = min(self._last_image_s, now_s)
        silence_s = now_s - self._last_image_s
        lost_after_s = self.parameters.tracking.lost_after_s
        if self._state != LocalizationState.LOCALIZED or silence_s <= lost_after_s:
            return
        topic = self.resolve_topic_name(self._image_topic.name)
        message = (
            f'No image has come on {topic} for {silence_s:.1f} s. Look at the camera, and at what '
            'DDS loses (docs/robot.md).'
        )
        self._publish(self._localizer.miss(self.get_clock().now().to_msg(), message))

    def _report(self) -> None:
        worker, localizer = self._worker, self._localizer
        facts = NodeFacts(
            lifecycle=self.lifecycle_label,
            error=self.last_error,
            image_topic=self.resolve_topic_name(self._image_topic.name),
            num_received=self._num_images,
            num_dropped=0 if worker is None else worker.mailbox.num_dropped,
            engine={} if localizer is None else localizer.describe(),
            building='' if self._loading is None else self._loading.progress,
        )
        stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(self._diagnostics.report(facts, stamp))
        if self._diagnostics.silence:
            # A wrong topic would show nowhere else before the first image.
            self.get_logger().warning(
                f'{self._diagnostics.silence}. Look at the camera and at the name of its topic.',
                throttle_duration_sec=_SILENCE_LOG_S,
            )

    def _show_map(self) -> None:
        keyframe_map, stamp = self._map_receiver.keyframe_map, self.get_clock().now().to_msg()
        self._outputs.publish_keyframe_poses(keyframe_map, self.parameters.map_frame, stamp)

    # ---- wiring

    def _subscribe(
        self,
        topic: interfaces.Topic,
        callback: Callable[[Any], None],
        options: QoSOverridingOptions | None = None,
    ) -> Subscription:
        return self.create_subscription(
            topic.type, topic.name, callback, topic.profile(), qos_overriding_options=options
        )


def main(args: list[str] | None = None) -> None:
    """Run the node until the process is told to stop."""
    run(MatcherNode, args)
