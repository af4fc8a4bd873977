"""Forwards what the core logs through Python's logging to the log of a node."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger


class LoggingBridge(logging.Handler):
    """A handler on the package's logger for as long as a node lives.

    With several nodes in one process the first one speaks for all, so nothing is said twice.
    """

    def __init__(self, node_logger: RcutilsLogger) -> None:
        """Start forwarding to `node_logger`."""
        super().__init__()
        self._node_logger = node_logger
        logger = logging.getLogger('coam_ros')
        if not any(isinstance(handler, LoggingBridge) for handler in logger.handlers):
            logger.addHandler(self)
            # What is too fine is for ROS to leave out, by the level of the node.
            self._former_level = logger.level
            logger.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record at the nearest level of ROS."""
        message = self.format(record)
        # rclpy allows one severity for each calling line, hence a line for each.
        if record.levelno >= logging.ERROR:
            self._node_logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._node_logger.warning(message)
        elif record.levelno >= logging.INFO:
            self._node_logger.info(message)
        else:
            self._node_logger.debug(message)

    def close(self) -> None:
        """Stop forwarding."""
        logger = logging.getLogger('coam_ros')
        if self in logger.handlers:
            logger.removeHandler(self)
            logger.setLevel(self._former_level)
        super().close()
