"""Files and folders that are whole under their name: written aside, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
import shutil


def expand_home(path: str | Path) -> Path:
    """Follow the `~` of a path.

    Raises:
        FileNotFoundError: the home that it names is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f'No folder {path}: {error} Check the path.') from error


def write_aside(path: Path, content: bytes | memoryview) -> None:
    """Write a file under another name, and rename it when it is on the disk.

    Raises:
        OSError: it cannot be written; the former file is untouched.
    """
    aside = path.with_name(f'{path.name}.tmp')
    try:
        with aside.open('wb') as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise OSError(
            error.errno,
            f'{path} could not be written ({error.strerror}; {len(content) / 1e6:.1f} MB); the '
            'former one, if there was one, is untouched. Make room, or choose another place, and '
            'run the same command again',
        ) from error


def replace_folder(target: Path, aside: Path) -> None:
    """Put a new folder in the place of an old one by renaming.

    Raises:
        OSError: it cannot; the old one is where it was.
    """
    old = target.with_name(f'.{target.name}-old')
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        aside.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
