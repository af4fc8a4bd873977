"""The error that every reader and check of map data raises."""

from __future__ import annotations


class MapFormatError(ValueError):
    """Map data that cannot be used: a keyframe, a map directory or a file of one.

    The message says what was wrong, the value got, the value wanted and what to do.
    """
