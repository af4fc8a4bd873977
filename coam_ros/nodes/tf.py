"""Frames other than the camera's: where the base is, and map -> odom.

tf2_ros is imported only when a transform is needed; not every installation has it.
"""

from __future__ import annotations

from builtin_interfaces.msg import Time as Stamp
from coam_ros.nodes.conversions import tf_from_transform, transform_from_tf
from geometry_msgs.msg import TransformStamped
import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time


class TransformError(RuntimeError):
    """TF does not know a transform at the time asked for."""


class Transforms:
    """Looks transforms up and sends map -> odom."""

    def __init__(self, node: Node, *, broadcasts: bool) -> None:
        """Listen to TF.

        Args:
            node: whose clock and topics are used.
            broadcasts: whether `broadcast` will be called.

        Raises:
            ImportError: tf2_ros is not installed.
        """
        try:
            import tf2_ros
        except ImportError as error:
            raise ImportError(
                'tf2_ros is not installed; wanted it for base_frame, publish_tf, pose_source. '
                'Install it (apt: ros-$ROS_DISTRO-tf2-ros-py), or leave base_frame empty and '
                'publish_tf false to get the pose of the camera without TF; record with '
                'pose_source topic.'
            ) from error
        self._tf2_ros = tf2_ros
        self._node = node
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._broadcaster = tf2_ros.TransformBroadcaster(node) if broadcasts else None

    def lookup(
        self, target: str, source: str, stamp: Stamp, timeout_s: float
    ) -> NDArray[np.float64]:
        """Look a transform up; with a timeout from another thread than the executor's.

        Args:
            target: frame that coordinates are taken to.
            source: frame that they are taken from.
            stamp: when.
            timeout_s: how long to wait for it [s].

        Returns:
            T_target_source, (4, 4) float64.

        Raises:
            TransformError: it is not known.
        """
        try:
            found = self._buffer.lookup_transform(
                target, source, Time.from_msg(stamp), timeout=Duration(seconds=timeout_s)
            )
            return transform_from_tf(found.transform)
        except (self._tf2_ros.TransformException, ValueError) as error:
            raise TransformError(
                f'No transform from {source!r} to {target!r} at the stamp of the image within '
                f'{timeout_s} s: {error}. Publish it (robot_state_publisher, odometry) on the '
                'same clock as the images.'
            ) from error

    def broadcast(
        self, T_parent_child: NDArray[np.float64], parent: str, child: str, stamp: Stamp
    ) -> None:
        """Send the pose of child in parent, (4, 4), rigid."""
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        message.header.stamp = stamp
        message.transform = tf_from_transform(T_parent_child)
        self._broadcaster.sendTransform(message)

    def close(self) -> None:
        """Stop to listen, and take back the service and the publisher that came with that."""
        self._listener.unregister()
        # rclpy calls it at the next jump of time, whether it still is or not.
        self._buffer.jump_handle.unregister()
        self._node.destroy_service(self._buffer.srv)
        if self._broadcaster is not None:
            self._node.destroy_publisher(self._broadcaster.pub_tf)
