"""The directory in which a map lies: found, locked and replaced whole, whatever happens.

A new map is written beside the old one and renamed into its place. A kill may leave beside MAP:

    .MAP.former     the old map, which is the map while MAP is not there
    .MAP.saving-*   an unfinished new one
    .MAP.lock       held by whoever saves; it ends with the process
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import glob
import logging
import os
from pathlib import Path
import shutil
import time
import uuid

from coam_ros.mapping.map_files import is_map, PARTS

_log = logging.getLogger(__name__)

# Whoever saves waits this long for another one; who called a service waits as long.
_LOCK_TIMEOUT_S = 5.0
_LOCK_PERIOD_S = 0.02


def _former(target: Path) -> Path:
    return target.with_name(f'.{target.name}.former')


def find_map(target: Path) -> Path:
    """Find the map: a kill between the two renames of `put_in_place` leaves it as the former."""
    former = _former(target)
    return former if _is_vacant(target) and is_map(former) else target


def _is_vacant(directory: Path) -> bool:
    try:
        return not any(directory.iterdir())
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def identify(directory: Path) -> tuple[int, int] | None:
    """Give numbers that tell a folder from the one that takes its place."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def staging_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Make a folder beside a target to write its new map in; meanwhile nobody else saves there.

    Args:
        target: of the map; parents are made.
        overwrite: whether a map that is there already may be replaced.

    Raises:
        FileExistsError: something else is there, or a map that may not be replaced.
        TimeoutError: another process or thread is saving a map there.
        OSError: nothing can be written there, it is a mount point, or the block raised one.
    """
    prefix = f'.{target.name}.saving-'
    try:
        if target.is_mount():
            raise OSError(
                f'{target} is a mount point, in whose place no map can be put; nothing was '
                f'written. Mount its parent {target.parent} instead, or choose a directory inside '
                f'{target}.'
            )
        with _parents_of(target), _locked(target):
            _check_contents(target, overwrite=overwrite)
            # Left by killed processes: we have the lock, so nobody is writing them.
            for leftover in target.parent.glob(f'{glob.escape(prefix)}*'):
                shutil.rmtree(leftover, ignore_errors=True)
            staging = target.with_name(f'{prefix}{uuid.uuid4().hex}')
            staging.mkdir()
            try:
                yield staging
            finally:
                # Gone already when it was put in place.
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        if error.errno is None:  # raised by this module, with an explanation
            raise
        where = f' ({error.filename})' if error.filename else ''
        raise OSError(
            error.errno,
            f'No map can be saved to {target}: {error.strerror}{where}. What was there before is '
            'untouched. Make room or choose another directory, and save again.',
        ) from error


@contextlib.contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Make the folders around a target, and remove those that are empty in the end."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let one saver at a time write to a target."""
    path = target.with_name(f'.{target.name}.lock')
    end_s = time.monotonic() + _LOCK_TIMEOUT_S
    while (descriptor := _lock(path)) is None:
        if time.monotonic() >= end_s:
            raise TimeoutError(
                f'Another process or thread is saving a map to {target}, since more than '
                f'{_LOCK_TIMEOUT_S:g} s; nothing was written. Wait until it is done, or choose '
                'another directory.'
            )
        time.sleep(_LOCK_PERIOD_S)
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Open a file and lock it, where the disk knows locks; None while somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it may have removed it since it was opened.
        is_held = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_held = False
    except OSError as error:
        _log.warning('maps are saved without a lock: %s', error)
        is_held = True
    if is_held:
        return descriptor
    os.close(descriptor)
    return None


def _check_contents(target: Path, *, overwrite: bool) -> None:
    source = find_map(target)
    if not is_map(source):
        if _is_vacant(target):
            return
        raise FileExistsError(
            f'{target} exists and is not a map (no map.json in it); it was left alone. Choose '
            'another directory.'
        )
    if not overwrite:
        raise FileExistsError(
            f'{target} holds a map already; it was left alone. Allow overwriting (overwrite, '
            'on the command line --overwrite), or choose another directory.'
        )
    others = sorted({path.name for path in source.iterdir()} - PARTS)
    if others:
        raise FileExistsError(
            f'{target} holds what is no part of a map and would be lost: {", ".join(others[:5])}; '
            'it was left alone. Move that somewhere else.'
        )


def put_in_place(staging: Path, target: Path) -> None:
    """Put the map of a staging folder in the place of the one at a target."""
    # Only now: the disk has had time to take most files since they were written.
    for path in [*staging.rglob('*'), staging]:
        _sync(path)
    former = _former(target)
    holds_current_folder = _holds_current_folder(target)
    # Where there is nothing to move aside, a former one is the map until the new one is there.
    if not _is_vacant(target):
        shutil.rmtree(former, ignore_errors=True)
        target.rename(former)
    try:
        staging.rename(target)
    except OSError:
        if former.exists():
            former.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(former, ignore_errors=True)
    if holds_current_folder:
        _log.warning('%s was replaced, and the current folder with it: `cd` to it again', target)


def _holds_current_folder(directory: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(directory)
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
