"""Lists as people keep them: a line for each thing, words with spaces between."""

from __future__ import annotations

from pathlib import Path

from coam_ros.mapping.importers.text import read_lines


def read_rows(path: Path, wanted: str) -> list[tuple[str, list[str]]]:
    """Read a list without its empty lines and those that begin with #.

    Args:
        path: of the list.
        wanted: what a line holds, for the message.

    Returns:
        For each line its place (file and number), for messages, and its words.

    Raises:
        FileNotFoundError: no such list.
    """
    if not path.is_file():
        raise FileNotFoundError(f'No list {path}; wanted a text file, {wanted} a line.')
    lines = enumerate(read_lines(path), start=1)
    rows = [(f'{path}, line {number}', line.split()) for number, line in lines]
    return [(place, words) for place, words in rows if words and not words[0].startswith('#')]
