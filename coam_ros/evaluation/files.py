"""Files of a report: whole or not at all, JSON without what JSON has no word for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import json
from pathlib import Path

from coam_ros.inference.files import write_aside
import numpy as np


def write_file(path: Path, content: bytes) -> None:
    """Write a file and its folder; a former file stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, content)


def output_folder(text: str) -> Path:
    """Read the name of a folder to write to, of the command line: before the work, not after it.

    Raises:
        argparse.ArgumentTypeError: a file has this name.
    """
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f'{path} is a file, wanted a folder; choose another name')
    return path


def write_json(path: Path, value: object, indent: int | None = 1) -> None:
    """Write what `to_json_values` makes of a value; see `write_file`. No indent: in one line."""
    text = json.dumps(to_json_values(value), indent=indent, allow_nan=False)
    write_file(path, text.encode() + b'\n')


def to_json_values(value: object) -> object:
    """Make a value JSON-ready: arrays become lists, numbers that are not finite null."""
    if isinstance(value, Mapping):
        return {str(key): to_json_values(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_json_values(value.tolist())
    if isinstance(value, list | tuple):
        return [to_json_values(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
