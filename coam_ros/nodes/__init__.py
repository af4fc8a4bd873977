"""ROS 2 nodes around the core; the only package that imports rclpy, tf2_ros and messages."""
