"""Lists and tables as people write them."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text.

    Args:
        path: UTF-8, with or without a byte order mark; bytes that are not UTF-8, as in an old
            comment, become replacement characters.

    Raises:
        OSError: it cannot be read.
    """
    return path.read_text(encoding='utf-8-sig', errors='replace').splitlines()
