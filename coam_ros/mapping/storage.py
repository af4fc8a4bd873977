"""Keyframe maps on the disk: saved whole or not at all, and checked when they are loaded."""

from __future__ import annotations

from pathlib import Path

from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.map_files import read_map, write_map
from coam_ros.mapping.map_folder import find_map, identify, put_in_place, staging_folder


def save_map(keyframe_map: KeyframeMap, directory: str | Path, *, overwrite: bool = True) -> int:
    """Write a map, all of it or nothing.

    The new map is written beside the old one, flushed to the disk, and only then put in its
    place. Whatever happens meanwhile (kill, full disk, loss of power), `load_map` finds the
    former map or the new one, whole.

    Args:
        keyframe_map: with at least one keyframe.
        directory: of the map; parents are made.
        overwrite: whether a map that is there already may be replaced.

    Returns:
        The number of keyframes written.

    Raises:
        MapFormatError: the map is empty.
        FileExistsError: something else is there, or a map that may not be replaced.
        TimeoutError: another process or thread is saving a map there.
        OSError: the disk is full, not writable and the like; the former map is untouched.
    """
    target = resolve_folder(directory)
    _, descriptor_model_id, keyframes = keyframe_map.snapshot()
    if not keyframes:
        raise MapFormatError(
            f'Map {keyframe_map.map_id} has no keyframes, wanted at least 1 to save; nothing was '
            f'written to {target}. Add keyframes first.'
        )
    with staging_folder(target, overwrite=overwrite) as staging:
        write_map(keyframe_map, descriptor_model_id, keyframes, staging, find_map(target))
        put_in_place(staging, target)
    return len(keyframes)


def load_map(directory: str | Path) -> KeyframeMap:
    """Read a map and check all of it.

    Images stay encoded: the memory taken is the size of the files.

    Args:
        directory: what `save_map` wrote.

    Returns:
        The map, keyframes in the order in which they were saved.

    Raises:
        FileNotFoundError: there is no such directory.
        MapFormatError: it is not a map, of another version, empty, or damaged.
    """
    target = resolve_folder(directory)
    while True:
        source = find_map(target)
        identity = identify(source)
        try:
            return read_map(source)
        except (MapFormatError, OSError):
            # Where a save took away what was being read, read the new map. A save takes longer
            # than a load, so this ends.
            if find_map(target) == source and identify(source) == identity:
                raise


def check_target(directory: str | Path, *, overwrite: bool) -> None:
    """Check that a map can be saved to a directory, before the work of making one.

    Args:
        directory: does not exist, is empty, or holds a map.
        overwrite: whether a map that is there already may be replaced.

    Raises:
        FileExistsError: something else is there, or a map that may not be replaced.
        TimeoutError: another process or thread is saving a map there.
        OSError: nothing can be written there, or it is a mount point.
    """
    with staging_folder(resolve_folder(directory), overwrite=overwrite):
        pass


def resolve_folder(directory: str | Path) -> Path:
    """Follow `~` and links, so that a folder has one name.

    Raises:
        FileNotFoundError: it is empty, the home that it names is not known, or the current folder
            is gone.
    """
    if not str(directory):
        raise FileNotFoundError('The path is empty, wanted the folder of a map; name one.')
    try:
        return Path(directory).expanduser().resolve()
    except RuntimeError as error:  # no home directory
        raise FileNotFoundError(f'No folder {directory}: {error} Check the path.') from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'No folder {directory}: the current folder was removed or replaced; `cd` to it again.'
        ) from error
