"""Where a figure comes from: commit, content of files, machine."""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
from datetime import datetime, timezone
import hashlib
from importlib.metadata import PackageNotFoundError, version
import os
from pathlib import Path
import platform
import subprocess

_ROOT = Path(__file__).parents[2]
# Enough against chance; short enough for a table.
_DIGITS = 16


def describe_run() -> dict[str, object]:
    """Say which code ran when, and on what; for the header of a report."""
    return {
        'commit': _source_commit(),
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'machine': f'{platform.machine()}, {os.cpu_count()} cores',
        'python': platform.python_version(),
    }


def _source_commit() -> str:
    """Return the commit of this code, with a remark when files differ from it.

    Without a checkout: the version of the installed package.
    """
    # Its hash, whatever tags there are. Without a `.git` of its own the folder is installed, maybe
    # in a workspace that is somebody's repository.
    describe = ['describe', '--always', '--exclude=*', '--abbrev=40', '--dirty= with changes']
    command = ['git', '-C', str(_ROOT), *describe]
    if (_ROOT / '.git').exists():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            return found.stdout.strip()
    try:
        return f'coam_ros {version("coam_ros")}'
    except PackageNotFoundError:
        return 'unknown'


def hash_bytes(parts: Iterable[bytes]) -> str:
    """Return a hash of byte strings and of where each of them ends."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, 'little'))
        digest.update(part)
    return digest.hexdigest()[:_DIGITS]


def hash_files(paths: Iterable[Path], relative_to: Path) -> str:
    """Return a hash of the names and the content of files, whatever their order.

    Args:
        paths: of the files; of a folder all Python files under it.
        relative_to: folder that their names start from, so that a copy elsewhere is the same.

    Raises:
        OSError: a file cannot be read.
    """
    files: set[Path] = set()
    for path in paths:
        files.update(path.rglob('*.py') if path.is_dir() else [path])
    # relpath: a list may name images outside its folder.
    named = sorted((os.path.relpath(path, relative_to), path) for path in files)
    return hash_bytes(part for name, path in named for part in (name.encode(), path.read_bytes()))


def require_distinct_names(directories: Iterable[Path]) -> None:
    """Refuse folders whose results could not be told apart.

    Raises:
        ValueError: two have the same name.
    """
    names = [directory.resolve().name for directory in directories]
    if len(set(names)) < len(names):
        raise ValueError(f'Data sets of equal names: got {names}; measure them in two calls.')
