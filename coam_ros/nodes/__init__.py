"""ROS 2 nodes around the core; but for the player of the demo all that imports rclpy, tf2_ros and messages."""
