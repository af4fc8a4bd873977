"""Lists and tables as people write them."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text.

    Args:
        path: UTF-8, with or without the mark that Windows begins a file with; what else is in it,
            a comment of former days, is read as the sign for that.

    Raises:
        OSError: it cannot be read.
    """
    return path.read_text(encoding='utf-8-sig', errors='replace').splitlines()
