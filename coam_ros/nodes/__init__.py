"""ROS 2 nodes around the core; beside the demo's player all that imports rclpy and messages."""
