"""Quality of service of the topics: subscriptions as REP-2003 has it, publishers for everyone.

A reliable publisher serves subscribers of both kinds, a best-effort one only those that ask for
that; RViz and `create_subscription(..., 10)` do not.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def sensor_data(depth: int = 1) -> QoSProfile:
    """Best effort, the newest messages: for who takes images and what goes with them."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def events(depth: int = 10) -> QoSProfile:
    """Reliable, for whoever listens now: status, matches, pictures."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def latched(depth: int = 1) -> QoSProfile:
    """Reliable and kept for subscribers that come later: the last `depth` messages."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def every_latched() -> QoSProfile:
    """Reliable, with everything that the publisher keeps: a map in many messages.

    KEEP_ALL, because a reader of limited depth loses the parts of a map that arrive faster than
    its callback takes them.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_ALL,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
