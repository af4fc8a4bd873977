"""A keyframe map as a directory that people can look into.

    MAP/
      map.json              version, frame, cameras and, for each keyframe, pose and files
      images/00000012.jpg   the images as they were given
      depth/00000012.png    16-bit depth images
      landmarks/00000012.npy  (M, 5) float64: x, y [px], X, Y, Z [m, map frame]
      descriptors.npy       (N, D) float32, one row a keyframe that has a global descriptor

Every file is listed in map.json with its size and CRC-32, so a truncated or damaged one is found
at load without decoding a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
import fcntl
import functools
import glob
import io
import json
import logging
import os
from pathlib import Path
import shutil
import time
from typing import Any
import uuid
import zlib

from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
import numpy as np

_log = logging.getLogger(__name__)

FORMAT_NAME = 'coam_ros keyframe map'
FORMAT_VERSION = 1

# A value of map.json, or a row of what it refers to, that nothing is known of yet.
_Json = Any
_EXTENSIONS = {'jpeg': 'jpg', 'png': 'png'}
# All that a folder of a map holds.
_PARTS = {'map.json', 'images', 'depth', 'landmarks', 'descriptors.npy'}
# Whoever saves waits this long for another one; who called a service waits as long.
_LOCK_TIMEOUT_S = 5.0
_LOCK_PERIOD_S = 0.02


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
    with _staging_beside(target, overwrite=overwrite) as staging:
        _write(keyframe_map, descriptor_model_id, keyframes, staging, _source(target))
        _put_in_place(staging, target)
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
        source = _source(target)
        state = _state(source)
        try:
            return _read_map(source)
        except (MapFormatError, OSError):
            # A save took away what was being read; it takes longer than a load, so this ends.
            if _source(target) == source and _state(source) == state:
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
    with _staging_beside(resolve_folder(directory), overwrite=overwrite):
        pass


def is_map(directory: str | Path) -> bool:
    """Tell whether a directory looks like a map (it has a map.json)."""
    return (Path(directory) / 'map.json').is_file()


# --- places on disk -------------------------------------------------------------------------


def resolve_folder(directory: str | Path) -> Path:
    """Give a folder the one name by which it is known here, `~` and links followed.

    Raises:
        FileNotFoundError: the home that it names is not known.
    """
    try:
        return Path(directory).expanduser().resolve()
    except RuntimeError as error:  # no home directory
        raise FileNotFoundError(f'No folder {directory}: {error} Check the path.') from error


def _former(target: Path) -> Path:
    return target.with_name(f'.{target.name}.former')


def _source(target: Path) -> Path:
    """Find the map: a kill between the two renames of _put_in_place leaves it as the former."""
    former = _former(target)
    return former if _is_vacant(target) and is_map(former) else target


def _is_vacant(directory: Path) -> bool:
    try:
        return not any(directory.iterdir())
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _state(directory: Path) -> tuple[int, int] | None:
    """Give numbers that differ between a folder and the one that takes its place."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def _staging_beside(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Make a folder to write a map in, for as long as it takes; nobody else saves there then.

    Raises:
        FileExistsError, TimeoutError, OSError: as of `check_target`; or of what is done with the
            folder, explained.
    """
    prefix = f'.{target.name}.saving-'
    try:
        if target.is_mount():
            raise OSError(
                f'{target} is a mount point, in whose place no map can be put; nothing was '
                f'written. Mount its parent {target.parent} instead, or choose a directory inside '
                f'{target}.'
            )
        with _parents_of(target), _alone_at(target):
            _check_contents(target, overwrite=overwrite)
            # Of killed processes: whoever lives has the lock.
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
        if error.errno is None:  # of this module, explained already
            raise
        where = f' ({error.filename})' if error.filename else ''
        raise OSError(
            error.errno,
            f'No map can be saved to {target}: {error.strerror}{where}. What was there before is '
            'untouched. Make room or choose another directory, and save again.',
        ) from error


@contextlib.contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Make the folders around a target; those into which nothing came do not stay."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _alone_at(target: Path) -> Iterator[None]:
    """Let one saver at a time write to a target; a lock ends with the process that holds it."""
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
    source = _source(target)
    if not is_map(source):
        if _is_vacant(target):
            return
        raise FileExistsError(
            f'{target} exists and is not a map (no map.json in it); it was left alone. Choose '
            'another directory.'
        )
    if not overwrite:
        raise FileExistsError(
            f'{target} holds a map already; it was left alone. Allow overwriting (--overwrite), '
            'or choose another directory.'
        )
    others = sorted({path.name for path in source.iterdir()} - _PARTS)
    if others:
        raise FileExistsError(
            f'{target} holds what is no part of a map and would be lost: {", ".join(others[:5])}; '
            'it was left alone. Move that somewhere else.'
        )


def _put_in_place(staging: Path, target: Path) -> None:
    former = _former(target)
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- writing --------------------------------------------------------------------------------


def _write(
    keyframe_map: KeyframeMap,
    descriptor_model_id: str,
    keyframes: Iterable[Keyframe],
    directory: Path,
    former: Path,
) -> None:
    """Write all files of a map, but for those that the former map has already."""
    write = functools.partial(_write_file, directory, former)
    cameras: dict[PinholeCamera, int] = {}
    rows: list[np.ndarray] = []
    entries = []
    for keyframe in keyframes:
        name = f'{keyframe.id:08d}'
        extension = _EXTENSIONS[keyframe.image_format]
        descriptor = keyframe.global_descriptor
        entries.append(
            {
                'id': int(keyframe.id),
                'stamp_s': float(keyframe.stamp_s),
                'camera': cameras.setdefault(keyframe.camera, len(cameras)),
                'T_map_camera': keyframe.T_map_camera.tolist(),
                'image': write(f'images/{name}.{extension}', keyframe.image),
                'depth': write(f'depth/{name}.png', keyframe.depth),
                'depth_scale_m': float(keyframe.depth_scale_m),
                'landmarks': write(f'landmarks/{name}.npy', _landmark_bytes(keyframe)),
                'descriptor_row': None if descriptor is None else len(rows),
            }
        )
        if descriptor is not None:
            rows.append(descriptor)
    header = {
        'format': FORMAT_NAME,
        'format_version': FORMAT_VERSION,
        'map_id': keyframe_map.map_id,
        'frame_id': keyframe_map.frame_id,
        'descriptor_model_id': descriptor_model_id,
        'descriptors': write('descriptors.npy', _array_bytes(np.stack(rows)) if rows else None),
        'cameras': [_camera_entry(camera) for camera in cameras],
        'keyframes': entries,
    }
    (directory / 'map.json').write_text(_to_json(header), encoding='utf-8')
    # After all writes: the disk has had time to take most of them by now.
    for path in [*directory.rglob('*'), directory]:
        _sync(path)


def _write_file(directory: Path, former: Path, name: str, data: bytes | None) -> dict | None:
    if data is None:
        return None
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    # A map that is saved now and then while it grows wears the disk by what is new alone.
    if not _link_equal(former / name, path, data):
        path.write_bytes(data)
    return {'file': name, 'num_bytes': len(data), 'crc32': zlib.crc32(data)}


def _link_equal(former: Path, path: Path, data: bytes) -> bool:
    """Make a file another name of a former one, where that holds the same and the disk can."""
    try:
        if former.stat().st_size != len(data) or former.read_bytes() != data:
            return False
        path.hardlink_to(former)
    except OSError:
        return False
    return True


def _array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _landmark_bytes(keyframe: Keyframe) -> bytes | None:
    pixels, points_map = keyframe.landmark_pixels, keyframe.landmark_points_map
    if pixels is None or points_map is None:
        return None
    return _array_bytes(np.hstack([pixels.astype(np.float64), points_map]))


def _camera_entry(camera: PinholeCamera) -> dict:
    return {
        'width': camera.width,
        'height': camera.height,
        'fx': camera.fx,
        'fy': camera.fy,
        'cx': camera.cx,
        'cy': camera.cy,
        'distortion_model': camera.distortion_model,
        'distortion': list(camera.distortion),
    }


def _to_json(header: dict) -> str:
    """Write one line a keyframe and a camera: short enough to look at, easy to compare."""
    lines = []
    for key, value in header.items():
        if isinstance(value, list):
            rows = ',\n  '.join(json.dumps(entry) for entry in value)
            lines.append(f'{json.dumps(key)}: [\n  {rows}\n ]')
        else:
            lines.append(f'{json.dumps(key)}: {json.dumps(value)}')
    return '{\n ' + ',\n '.join(lines) + '\n}\n'


# --- reading --------------------------------------------------------------------------------


def _broken(directory: Path, problem: str) -> MapFormatError:
    return MapFormatError(
        f'Map {directory} cannot be used: {problem}. Copy the map again, or make it again with '
        '`coam map build`.'
    )


def _read_map(directory: Path) -> KeyframeMap:
    if not directory.is_dir():
        raise FileNotFoundError(
            f'No map at {directory}: wanted a directory with map.json. Check the path, or make a '
            'map with `coam map build`.'
        )
    header = _read_header(directory)
    cameras = _read_cameras(directory, header)
    descriptors = _read_descriptors(directory, header)
    keyframe_map = KeyframeMap(
        map_id=str(header['map_id']),
        frame_id=str(header['frame_id']),
        descriptor_model_id=str(header['descriptor_model_id']),
    )
    for position, entry in enumerate(header['keyframes']):
        keyframe = _read_keyframe(directory, position, entry, cameras, descriptors)
        if keyframe.id in keyframe_map:
            raise _broken(
                directory, f'keyframe {keyframe.id} is listed twice, wanted every id once'
            )
        keyframe_map.add(keyframe)
    return keyframe_map


def _read_header(directory: Path) -> dict:
    path = directory / 'map.json'
    if not path.is_file():
        raise MapFormatError(
            f'{directory} is not a map: it has no map.json'
            + (' (it is empty)' if not any(directory.iterdir()) else '')
            + ', wanted a directory that `coam map build` wrote. Check the path.'
        )
    try:
        header = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are
        raise _broken(directory, f'map.json is not JSON ({error})') from error
    if not isinstance(header, dict) or header.get('format') != FORMAT_NAME:
        raise _broken(
            directory,
            f'map.json does not say "format": "{FORMAT_NAME}", so it belongs to another program',
        )
    version = header.get('format_version')
    if version != FORMAT_VERSION:
        raise MapFormatError(
            f'Map {directory} has format version {version!r}, this program reads version '
            f'{FORMAT_VERSION}. Use the coam_ros that wrote it, or make the map again with '
            '`coam map build`.'
        )
    _require(directory, header, 'map.json', 'map_id', 'frame_id', 'descriptor_model_id')
    _require(directory, header, 'map.json', 'descriptors', 'cameras', 'keyframes')
    if not isinstance(header['keyframes'], list) or not isinstance(header['cameras'], list):
        raise _broken(directory, 'map.json: cameras and keyframes are not lists, wanted lists')
    if not header['keyframes']:
        raise MapFormatError(
            f'Map {directory} is empty: map.json lists 0 keyframes, wanted at least 1. Make the '
            'map again with `coam map build`.'
        )
    return header


def _require(directory: Path, entry: _Json, where: str, *keys: str) -> None:
    if not isinstance(entry, dict):
        raise _broken(directory, f'{where} is {entry!r}, wanted an object')
    missing = [key for key in keys if key not in entry]
    if missing:
        raise _broken(directory, f'{where} lacks {", ".join(missing)}')


def _read_cameras(directory: Path, header: dict) -> list[PinholeCamera]:
    cameras = []
    for position, entry in enumerate(header['cameras']):
        where = f'map.json, camera {position}'
        _require(directory, entry, where)
        try:
            cameras.append(PinholeCamera(**entry))
        except (CalibrationError, TypeError, ValueError) as error:
            raise _broken(directory, f'{where}: {error}') from error
    return cameras


def _read_descriptors(directory: Path, header: dict) -> np.ndarray | None:
    data = _read_file(directory, 'descriptors', header['descriptors'])
    return None if data is None else _read_array(directory, 'descriptors.npy', data)


def _read_array(directory: Path, name: str, data: bytes) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # whatever its parsers raise: TokenError, BadZipFile, MemoryError
        raise _broken(directory, f'{name} is not an array of numbers ({error})') from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != 'f':
        raise _broken(directory, f'{name} does not hold a matrix of floats')
    return array


def _read_file(directory: Path, where: str, entry: _Json) -> bytes | None:
    """Read a listed file, and compare its size and CRC with what map.json says."""
    if entry is None:
        return None
    _require(directory, entry, f'map.json, {where}', 'file', 'num_bytes', 'crc32')
    name = str(entry['file'])
    if '\0' in name:
        raise _broken(directory, f'{where} names {name!r}, wanted the name of a file')
    path = directory / name
    if not path.resolve().is_relative_to(directory):
        raise _broken(directory, f'{where} names {name!r}, wanted a file inside the map')
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _broken(
            directory, f'{where}: {name} cannot be read ({error.strerror or error})'
        ) from error
    size = entry['num_bytes']
    if len(data) != size:
        is_short = isinstance(size, int) and len(data) < size
        raise _broken(
            directory,
            f'{where}: {name} has {len(data)} bytes, wanted {size!r} '
            f'({"cut short" if is_short else "changed"} since it was saved)',
        )
    if zlib.crc32(data) != entry['crc32']:
        raise _broken(
            directory,
            f'{where}: {name} has CRC-32 {zlib.crc32(data)}, wanted {entry["crc32"]} (changed '
            'since it was saved)',
        )
    return data


def _read_keyframe(
    directory: Path,
    position: int,
    entry: _Json,
    cameras: list[PinholeCamera],
    descriptors: np.ndarray | None,
) -> Keyframe:
    where = f'map.json, keyframe number {position + 1}'
    keys = ('id', 'stamp_s', 'camera', 'T_map_camera', 'image', 'depth', 'depth_scale_m')
    _require(directory, entry, where, *keys, 'landmarks', 'descriptor_row')
    where = f'keyframe {entry["id"]}'
    image = _read_file(directory, f'{where}, image', entry['image'])
    if image is None:
        raise _broken(directory, f'{where} has no image, wanted one')
    landmarks = _read_file(directory, f'{where}, landmarks', entry['landmarks'])
    pixels = points = None
    if landmarks is not None:
        array = _read_array(directory, f'{where}, landmarks', landmarks)
        if array.shape[1] != 5:
            raise _broken(directory, f'{where}: landmarks have shape {array.shape}, wanted (M, 5)')
        pixels, points = array[:, :2], array[:, 2:]
    row = entry['descriptor_row']
    fields: dict[str, Any] = {
        'id': entry['id'],
        'stamp_s': entry['stamp_s'],
        'T_map_camera': entry['T_map_camera'],
        'camera': _pick(directory, f'{where}: camera', entry['camera'], cameras),
        'image': image,
        'depth': _read_file(directory, f'{where}, depth', entry['depth']),
        'depth_scale_m': entry['depth_scale_m'],
        'landmark_pixels': pixels,
        'landmark_points_map': points,
    }
    if row is not None:
        fields['global_descriptor'] = _pick(
            directory, f'{where}: descriptor_row', row, [] if descriptors is None else descriptors
        )
    try:
        return Keyframe(**fields)
    except MapFormatError as error:
        raise _broken(directory, str(error)) from error


def _pick(directory: Path, where: str, index: _Json, values: _Json) -> _Json:
    if not isinstance(index, int) or not 0 <= index < len(values):
        raise _broken(directory, f'{where} is {index!r}, the map has {len(values)} of them')
    return values[index]
