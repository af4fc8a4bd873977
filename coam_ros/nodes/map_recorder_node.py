"""The map recorder: posed camera images, live or of a bag that is played, become a map."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from shlex import quote
import time
import traceback
from typing import Any

from coam_msgs.srv import SaveMap
from coam_ros.geometry.camera import CalibrationError
from coam_ros.mapping.builder import is_covered
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.storage import check_target, resolve_folder
from coam_ros.nodes import interfaces, qos
from coam_ros.nodes.conversions import camera_from_info, seconds_from_stamp, transform_from_pose
from coam_ros.nodes.images import check_stamp, encode_depth, ImageError, stored_image
from coam_ros.nodes.managed_node import ManagedNode, run
from coam_ros.nodes.parameters import MapRecorderParameters
from coam_ros.nodes.recorded_map import RecordedMap
from coam_ros.nodes.tf import TransformError, Transforms
from geometry_msgs.msg import PoseStamped
import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

_WORK_PERIOD_S = 0.05
_LOG_PERIOD_S = 5.0
# Images that wait for their pose and depth; of a camera that sends more in max_wait_s some go.
_MAX_WAITING = 60
# Where a map goes that cannot be saved to map_path; what lies in the last one does not last.
_SPARE_FOLDERS = ('~/.ros', '/tmp')


class MapRecorderNode(ManagedNode[MapRecorderParameters]):
    """Keeps an image wherever the camera has moved, with the pose that it had and its depth.

    Callbacks store; a timer joins what belongs to one moment, because poses and depth come later
    than the image.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Declare parameters and the service."""
        super().__init__('map_recorder', MapRecorderParameters, **kwargs)
        self._map: RecordedMap | None = None
        self._spare_name = ''
        self._saving: Future | None = None
        self._last_save_s = 0.0
        self._num_left_out = 0
        self._kept_poses: list[NDArray[np.float64]] = []
        self._camera_info: CameraInfo | None = None
        self._transforms: Transforms | None = None
        self._images: deque[Image | CompressedImage] = deque(maxlen=_MAX_WAITING)
        self._depths: deque[Image] = deque(maxlen=2 * _MAX_WAITING)
        self._poses: deque[PoseStamped] = deque(maxlen=10 * _MAX_WAITING)
        self._subscriptions_made: list[Subscription] = []
        self._timer: Timer | None = None
        self._image_topic = ''
        self._last_image_s = 0.0
        save = interfaces.RECORDER_SAVE_MAP
        # It awaits the save; meanwhile all other callbacks go on.
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(save.type, save.name, self._on_save_map, callback_group=group)

    # ---- life cycle

    def configure(self) -> None:
        """Begin an empty map.

        Raises:
            ValueError: no path.
            OSError: a map is there already, or nothing can be written there.
            ImportError: poses shall come from TF, which is not installed.
        """
        parameters = self.parameters
        if not parameters.map_path:
            raise ValueError('map_path is empty; wanted the folder of the map. Set map_path.')
        check_target(parameters.map_path, overwrite=parameters.overwrite)
        if parameters.pose_source == 'tf':
            self._transforms = Transforms(self, broadcasts=False)
        self._map = RecordedMap(parameters.map_frame)
        # Of other recorders that begin in this second it differs by the id.
        begun = time.strftime('%Y%m%d_%H%M%S')
        self._spare_name = f'coam_map_{begun}_{self._map.map_id[:8]}'
        self._kept_poses = []
        self._num_left_out = 0

    def activate(self) -> None:
        """Subscribe."""
        parameters = self.parameters
        is_raw = parameters.image_transport == 'raw'
        image = interfaces.IMAGE if is_raw else interfaces.COMPRESSED_IMAGE
        wanted = [(image, self._on_image), (interfaces.CAMERA_INFO, self._on_camera_info)]
        if parameters.uses_depth:
            wanted.append((interfaces.DEPTH, self._on_depth))
        if parameters.pose_source == 'topic':
            wanted.append((interfaces.CAMERA_POSE, self._on_camera_pose))
        self._subscriptions_made = [
            self.create_subscription(
                topic.type,
                topic.name,
                callback,
                # Best effort as all images; but each of them may be one to keep.
                qos.sensor_data(_MAX_WAITING),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for topic, callback in wanted
        ]
        self._image_topic = self.resolve_topic_name(image.name)
        self._last_image_s = self._last_save_s = time.monotonic()
        self._timer = self.create_timer(_WORK_PERIOD_S, self._work, clock=self.steady_clock)

    def deactivate(self) -> None:
        """Stop to record, and save what there is."""
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made = []
        try:
            if self._timer is not None:
                self.destroy_timer(self._timer)
                self._timer = None
                self._work(is_last=True)
        finally:
            # Whatever is wrong with the last images: what was driven is not lost.
            for waiting in (self._images, self._depths, self._poses):
                waiting.clear()
            self._camera_info = None
            if self._map:
                self._save_last(self._map, self.parameters.map_path)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the map, unless nowhere was room for it."""
        if len(self._map) > self._map.num_saved():
            self.last_error = (
                f'Cannot clean up: {len(self._map)} keyframes are in memory only. Make room and '
                'call save_map with a path, or shut the node down to lose them.'
            )
            self.get_logger().error(self.last_error)
            return TransitionCallbackReturn.FAILURE
        return super().on_cleanup(state)

    def cleanup(self) -> None:
        """Forget the map."""
        self._map = None
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    # ---- in

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image_s = time.monotonic()
        try:
            check_stamp(message.header.stamp)
        except ImageError as error:
            self.get_logger().warning(
                f'An image cannot be used: {error}', throttle_duration_sec=_LOG_PERIOD_S
            )
            return
        if self._images and 0 <= _delay_s(self._images[-1], message) < self._spacing_s():
            return
        if len(self._images) == _MAX_WAITING:
            # The oldest has waited long enough.
            self._work()
        self._images.append(message)

    def _spacing_s(self) -> float:
        """Tell how far apart images are for which there is room as long as they may wait."""
        return self.parameters.max_wait_s / (_MAX_WAITING - 2)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_depth(self, message: Image) -> None:
        if len(self._depths) == self._depths.maxlen and self._images:
            # The others are of images that were too many.
            images_s, depths_s = _stamps_s(self._images), _stamps_s(self._depths)
            nearest = np.abs(depths_s - images_s[:, None]).argmin(axis=1)
            needed = {*nearest, *np.flatnonzero(depths_s > images_s.max())}
            kept = [self._depths[index] for index in sorted(needed)]
            self._depths.clear()
            self._depths.extend(kept)
        self._depths.append(message)

    def _on_camera_pose(self, message: PoseStamped) -> None:
        self._poses.append(message)

    def _work(self, *, is_last: bool = False) -> None:
        """Take up images whose pose and depth have come; drop those for which they never do.

        Args:
            is_last: nothing will come any more.
        """
        silence_s = time.monotonic() - self._last_image_s
        if silence_s > _LOG_PERIOD_S:
            self.get_logger().warning(
                f'No image has come on {self._image_topic} for {silence_s:.0f} s. Look at the '
                'camera and at the name of its topic.',
                throttle_duration_sec=_LOG_PERIOD_S,
            )
        if not is_last:
            self._save_meanwhile()
        while self._images:
            message = self._images[0]
            # Either sign: after a wrong stamp in the future, or a bag that begins again.
            waited_s = abs(_delay_s(message, self._images[-1]))
            is_final = is_last or waited_s >= self.parameters.max_wait_s
            try:
                info = self._info()
                T_map_camera = self._pose_at(message, is_final=is_final)
                depth = self._depth_at(message, is_final=is_final)
            except _NotYetError as missing:
                if not is_final:
                    return
                self._num_left_out += 1
                self.get_logger().warning(
                    f'An image is left out, of {self._num_left_out} so far: {missing}',
                    throttle_duration_sec=_LOG_PERIOD_S,
                )
                self._images.popleft()
                continue
            self._images.popleft()
            self._take(message, info, T_map_camera, depth)

    def _info(self) -> CameraInfo:
        if self._camera_info is None:
            topic = self.resolve_topic_name(interfaces.CAMERA_INFO.name)
            raise _NotYetError(f'no camera_info has come on {topic}.')
        return self._camera_info

    def _pose_at(self, message: Image | CompressedImage, *, is_final: bool) -> NDArray[np.float64]:
        parameters, stamp = self.parameters, message.header.stamp
        if self._transforms is not None:
            frame = parameters.camera_frame or message.header.frame_id
            try:
                return self._transforms.lookup(parameters.map_frame, frame, stamp, 0.0)
            except TransformError as error:
                raise _NotYetError(str(error)) from error
        stamp_s = seconds_from_stamp(stamp)
        found = _nearest(self._poses, stamp_s, parameters.max_delay_s, is_final=is_final)
        if found is None:
            topic = self.resolve_topic_name(interfaces.CAMERA_POSE.name)
            newest = _describe_newest(self._poses, stamp_s)
            raise _NotYetError(
                f'no pose stamped within {parameters.max_delay_s} s of it (max_delay_s) has come '
                f'on {topic}; {newest}.'
            )
        if found.header.frame_id != parameters.map_frame:
            raise _NotYetError(
                f'its pose is in frame {found.header.frame_id!r}, wanted map_frame '
                f'{parameters.map_frame!r}.'
            )
        try:
            return transform_from_pose(found.pose)
        except ValueError as error:
            raise _NotYetError(str(error)) from error

    def _depth_at(self, message: Image | CompressedImage, *, is_final: bool) -> Image | None:
        parameters = self.parameters
        if not parameters.uses_depth:
            return None
        stamp_s = seconds_from_stamp(message.header.stamp)
        found = _nearest(self._depths, stamp_s, parameters.max_delay_s, is_final=is_final)
        if found is None:
            topic = self.resolve_topic_name(interfaces.DEPTH.name)
            newest = _describe_newest(self._depths, stamp_s)
            raise _NotYetError(
                f'no depth stamped within {parameters.max_delay_s} s of it (max_delay_s) has come '
                f'on {topic}; {newest}. Set uses_depth to false where there is none.'
            )
        frame, depth_frame = message.header.frame_id, found.header.frame_id
        if frame and depth_frame and depth_frame not in (frame, parameters.camera_frame):
            raise _NotYetError(
                f'its depth is in frame {depth_frame!r}, wanted that of the image, {frame!r}. '
                'Register the depth to the image: depth_image_proc, or the align option of the '
                'driver.'
            )
        return found

    def _take(
        self,
        message: Image | CompressedImage,
        info: CameraInfo,
        T_map_camera: NDArray[np.float64],
        depth: Image | None,
    ) -> None:
        """Keep the image if no keyframe is near."""
        parameters = self.parameters
        if is_covered(
            T_map_camera, self._kept_poses, parameters.min_distance_m, parameters.min_angle_deg
        ):
            return
        try:
            camera = camera_from_info(info, is_rectified=parameters.is_rectified)
            keyframe = Keyframe(
                id=len(self._kept_poses),
                stamp_s=seconds_from_stamp(message.header.stamp),
                T_map_camera=T_map_camera,
                camera=camera,
                image=stored_image(message),
                depth=None if depth is None else encode_depth(depth),
            )
        except (CalibrationError, ImageError, MapFormatError) as error:
            self.get_logger().warning(
                f'An image cannot be used: {error}', throttle_duration_sec=_LOG_PERIOD_S
            )
            return
        self._map.add(keyframe)
        self._kept_poses.append(T_map_camera)
        self.get_logger().info(
            f'keyframes={len(self._map)} position={np.round(T_map_camera[:3, 3], 2).tolist()}',
            throttle_duration_sec=_LOG_PERIOD_S,
        )

    # ---- out

    async def _on_save_map(
        self, request: SaveMap.Request, response: SaveMap.Response
    ) -> SaveMap.Response:
        try:
            if self._map is None:
                raise ValueError('The map recorder is not configured. Configure it first.')
            if not self._map:
                raise ValueError('There is no keyframe to save yet; the log says what is missing.')
            # Before: where the current folder is in the map, it is gone with the former one.
            path = str(resolve_folder(request.path or self.parameters.map_path))
            job = await self.done_aside(self._map.save, path, overwrite=request.overwrite)
            response.num_keyframes = job.result()
        except (OSError, ValueError) as error:
            response.message = str(error)
            self.get_logger().error(response.message)
        else:
            response.success, response.message = True, path
            self._say_saved(response.num_keyframes, path)
        return response

    def _save_meanwhile(self) -> None:
        """Save aside from time to time: a robot that loses its power loses little."""
        period_s, now_s = self.parameters.save_period_s, time.monotonic()
        is_due = period_s > 0 and now_s >= self._last_save_s + period_s
        if not is_due or not (self._saving is None or self._saving.done()):
            return
        self._last_save_s = now_s
        self._saving = self.pool.submit(self._save_new, self._map, self.parameters.map_path)

    def _save_last(self, recorded: RecordedMap, path: str) -> None:
        """Save to a path, or else where there is room: what was driven is not lost."""
        for place in (path, *(f'{folder}/{self._spare_name}' for folder in _SPARE_FOLDERS)):
            if self._save_new(recorded, place):
                self._say_saved(len(recorded), place)
                return
        self.get_logger().fatal(
            f'{len(recorded)} keyframes are in memory only and end with this process. Make room '
            'and call save_map before it ends.'
        )

    def _save_new(self, recorded: RecordedMap, path: str) -> bool:
        """Save to a path what it lacks; tells whether all is there, and the log why not."""
        try:
            if recorded.num_saved(path) < len(recorded):
                recorded.save(path, overwrite=self.parameters.overwrite)
        except (OSError, ValueError) as error:
            self.get_logger().error(f'The map is not saved: {error}')
            return False
        except Exception:  # noqa: BLE001 - else the thread of the pool keeps it to itself
            self.get_logger().error(f'The map is not saved:\n{traceback.format_exc()}')
            return False
        return True

    def _say_saved(self, count: int, path: str) -> None:
        # Descriptors for retrieval, and with triangulate the 3D too.
        step = 'describe' if self.parameters.uses_depth else 'triangulate'
        self.get_logger().info(f'{count} keyframes in {path}. Next: coam map {step} {quote(path)}')


class _NotYetError(Exception):
    """Something that belongs to an image has not come; perhaps it never will."""


def _stamps_s(messages: Iterable[Any]) -> NDArray[np.float64]:
    return np.array([seconds_from_stamp(message.header.stamp) for message in messages])


def _delay_s(first: Any, then: Any) -> float:  # noqa: ANN401  (whatever has a header)
    return seconds_from_stamp(then.header.stamp) - seconds_from_stamp(first.header.stamp)


def _nearest(
    messages: deque[Any], stamp_s: float, max_delay_s: float, *, is_final: bool
) -> Any | None:  # noqa: ANN401
    """Find the message nearest to a time.

    Returns:
        None where none is near enough; and, before it is final, as long as a nearer one may come.
    """
    times_s = _stamps_s(messages)
    if not len(times_s) or (times_s.max() < stamp_s and not is_final):
        return None
    delays_s = np.abs(times_s - stamp_s)
    return messages[int(delays_s.argmin())] if delays_s.min() <= max_delay_s else None


def _describe_newest(messages: deque[Any], stamp_s: float) -> str:
    times_s = _stamps_s(messages)
    if not len(times_s):
        return 'none has come at all'
    return f'the newest one is {times_s.max() - stamp_s:+.3f} s from it'


def main(args: list[str] | None = None) -> None:
    """Run the node until the process is told to stop."""
    run(MapRecorderNode, args)
