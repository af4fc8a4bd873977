"""Forwards what the core logs through Python's logging to the log of a node."""

from __future__ import annotations

import logging
from typing import ClassVar

from rclpy.impl.rcutils_logger import RcutilsLogger

_PACKAGE_LOGGER = logging.getLogger('coam_ros')


class LoggingBridge(logging.Handler):
    """A handler on the package's logger for as long as a node lives.

    With several nodes in one process the eldest one speaks for all, so nothing is said twice.
    """

    _former_level: ClassVar[int]

    def __init__(self, node_logger: RcutilsLogger) -> None:
        """Start forwarding to `node_logger`."""
        super().__init__()
        self._node_logger = node_logger
        if not _bridges():
            LoggingBridge._former_level = _PACKAGE_LOGGER.level
        _PACKAGE_LOGGER.addHandler(self)
        # What is too fine is for ROS to leave out, by the level of the node.
        _PACKAGE_LOGGER.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record at the nearest level of ROS."""
        if self in _bridges()[1:]:
            return
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
        if _bridges() == [self]:
            _PACKAGE_LOGGER.setLevel(self._former_level)
        _PACKAGE_LOGGER.removeHandler(self)
        super().close()


def _bridges() -> list[logging.Handler]:
    return [handler for handler in _PACKAGE_LOGGER.handlers if isinstance(handler, LoggingBridge)]
