"""Frames other than the camera's: where the base is, and map -> odom.

tf2_ros is imported only when a transform is needed; not every installation has it.
"""

from __future__ import annotations

from builtin_interfaces.msg import Time as Stamp
from coam_ros.geometry.transforms import (
    invert,
    make_transform,
    quaternion_xyzw_from_rotation,
    rotation_from_quaternion_xyzw,
    skew,
)
from geometry_msgs.msg import Transform, TransformStamped
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
        except self._tf2_ros.TransformException as error:
            raise TransformError(
                f'No transform from {source!r} to {target!r} at the stamp of the image within '
                f'{timeout_s} s: {error}. Publish it (robot_state_publisher, odometry) on the '
                'same clock as the images.'
            ) from error
        return matrix_from_transform(found.transform)

    def broadcast(
        self, T_parent_child: NDArray[np.float64], parent: str, child: str, stamp: Stamp
    ) -> None:
        """Send one transform."""
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        message.header.stamp = stamp
        message.transform = transform_from_matrix(T_parent_child)
        self._broadcaster.sendTransform(message)

    def close(self) -> None:
        """Stop to listen, and take back the service and the publisher that came with that."""
        self._listener.unregister()
        self._node.destroy_service(self._buffer.srv)
        if self._broadcaster is not None:
            self._node.destroy_publisher(self._broadcaster.pub_tf)


def matrix_from_transform(transform: Transform) -> NDArray[np.float64]:
    """Read T_parent_child, (4, 4) float64, from a message."""
    t, q = transform.translation, transform.rotation
    return make_transform(rotation_from_quaternion_xyzw([q.x, q.y, q.z, q.w]), [t.x, t.y, t.z])


def transform_from_matrix(T_parent_child: NDArray[np.float64]) -> Transform:
    """Make the message of T_parent_child, (4, 4) rigid."""
    transform = Transform()
    t, q = transform.translation, transform.rotation
    t.x, t.y, t.z = (float(value) for value in T_parent_child[:3, 3])
    q.x, q.y, q.z, q.w = (
        float(value) for value in quaternion_xyzw_from_rotation(T_parent_child[:3, :3])
    )
    return transform


def move_covariance(
    covariance: NDArray[np.float64],
    T_map_camera: NDArray[np.float64],
    T_camera_base: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Take the covariance of the camera's pose to the pose of the base.

    A wrong orientation of the camera moves a base that is away from it: to first order
    error_base = error_camera + rotation_error x (base - camera), all in the map frame.

    Args:
        covariance: (6, 6), order x y z rx ry rz in the map frame [m, rad].
        T_map_camera: (4, 4).
        T_camera_base: (4, 4).

    Returns:
        (6, 6) float64 in the same order and frame.
    """
    lever_map = T_map_camera[:3, :3] @ T_camera_base[:3, 3]
    jacobian = np.eye(6)
    jacobian[:3, 3:] = -skew(lever_map)
    return jacobian @ covariance @ jacobian.T


def correct_odometry(
    T_map_frame: NDArray[np.float64], T_odom_frame: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute map -> odom from where a frame is in the map and where odometry believes it.

    Returns:
        T_map_odom, (4, 4) float64.
    """
    return T_map_frame @ invert(T_odom_frame)
