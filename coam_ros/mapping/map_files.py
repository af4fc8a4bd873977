"""The files of a map, in a directory that people can look into.

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

from collections.abc import Iterable
import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any
import zlib

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
import numpy as np

FORMAT_NAME = 'coam_ros keyframe map'
FORMAT_VERSION = 1
# All that the directory of a map holds.
PARTS = {'map.json', 'images', 'depth', 'landmarks', 'descriptors.npy'}

# A value of map.json that has not been checked yet.
_Json = Any
_EXTENSIONS = {'jpeg': 'jpg', 'png': 'png'}


def is_map(directory: Path) -> bool:
    """Tell whether a directory looks like a map (it has a map.json)."""
    return (directory / 'map.json').is_file()


# --- writing --------------------------------------------------------------------------------


def write_map(
    keyframe_map: KeyframeMap,
    descriptor_model_id: str,
    keyframes: Iterable[Keyframe],
    directory: Path,
    former: Path,
) -> None:
    """Write the files of a map; those that a former map has already become links to its own.

    Args:
        keyframe_map: for its names.
        descriptor_model_id: of the map, at the moment of its keyframes.
        keyframes: to write.
        directory: that is there, and empty.
        former: directory of the former map, which need not exist.
    """
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
        'cameras': [dataclasses.asdict(camera) for camera in cameras],
        'keyframes': entries,
    }
    (directory / 'map.json').write_text(_to_json(header), encoding='utf-8')


def _write_file(directory: Path, former: Path, name: str, data: bytes | None) -> dict | None:
    if data is None:
        return None
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    # A map that is saved now and then while it grows costs the disk only what is new.
    if not _link_equal(former / name, path, data):
        path.write_bytes(data)
    return {'file': name, 'num_bytes': len(data), 'crc32': zlib.crc32(data)}


def _link_equal(former: Path, path: Path, data: bytes) -> bool:
    """Link a file to a former one, where that holds the same and the disk has hard links."""
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


def _to_json(header: dict) -> str:
    """Write a line for each keyframe and camera: short to look at, easy to compare."""
    lines = []
    for key, value in header.items():
        if isinstance(value, list):
            rows = ',\n  '.join(json.dumps(entry) for entry in value)
            lines.append(f'{json.dumps(key)}: [\n  {rows}\n ]')
        else:
            lines.append(f'{json.dumps(key)}: {json.dumps(value)}')
    return '{\n ' + ',\n '.join(lines) + '\n}\n'


# --- reading --------------------------------------------------------------------------------


def read_map(directory: Path) -> KeyframeMap:
    """Read the files of a map and check all of them.

    Args:
        directory: resolved: links in it would lead out of the map.

    Raises:
        FileNotFoundError: there is no such directory.
        MapFormatError: it is not a map, of another version, empty, or damaged.
    """
    if not directory.is_dir():
        raise FileNotFoundError(
            f'No map at {directory}: wanted a directory with map.json. Check the path, or make a '
            'map with `coam map build`.'
        )
    if not is_map(directory):
        raise MapFormatError(
            f'{directory} is not a map: it has no map.json'
            + (' (it is empty)' if not any(directory.iterdir()) else '')
            + ', wanted a directory that `coam map build` wrote. Check the path.'
        )
    try:
        return _read_keyframes(directory, _read_header(directory / 'map.json'))
    except MapFormatError as error:
        raise MapFormatError(
            f'Map {directory} cannot be used: {error}. Copy the map again, or make it again with '
            '`coam map build`.'
        ) from error


def _read_header(path: Path) -> dict:
    try:
        header = json.loads(path.read_text(encoding='utf-8'))
    except (RecursionError, ValueError) as error:  # JSONDecodeError, UnicodeDecodeError
        raise MapFormatError(f'map.json is not JSON ({error})') from error
    if not isinstance(header, dict) or header.get('format') != FORMAT_NAME:
        raise MapFormatError(
            f'map.json does not say "format": "{FORMAT_NAME}", so it belongs to another program'
        )
    version = header.get('format_version')
    if version != FORMAT_VERSION:
        raise MapFormatError(
            f'it has format version {version!r}, this program reads version {FORMAT_VERSION}; use '
            'the coam_ros that wrote it'
        )
    _require(header, 'map.json', 'map_id', 'frame_id', 'descriptor_model_id')
    _require(header, 'map.json', 'descriptors', 'cameras', 'keyframes')
    if not isinstance(header['keyframes'], list) or not isinstance(header['cameras'], list):
        raise MapFormatError('map.json: cameras and keyframes are not lists, wanted lists')
    if not header['keyframes']:
        raise MapFormatError('it is empty: map.json lists 0 keyframes, wanted at least 1')
    return header


def _require(entry: _Json, where: str, *keys: str) -> None:
    if not isinstance(entry, dict):
        raise MapFormatError(f'{where} is {entry!r}, wanted an object')
    missing = [key for key in keys if key not in entry]
    if missing:
        raise MapFormatError(f'{where} lacks {", ".join(missing)}')


def _read_keyframes(directory: Path, header: dict) -> KeyframeMap:
    cameras = [_read_camera(place, entry) for place, entry in enumerate(header['cameras'])]
    data = _read_file(directory, 'descriptors', header['descriptors'])
    descriptors = np.empty((0, 0)) if data is None else _read_array('descriptors.npy', data)
    keyframe_map = KeyframeMap(
        map_id=str(header['map_id']),
        frame_id=str(header['frame_id']),
        descriptor_model_id=str(header['descriptor_model_id']),
    )
    for place, entry in enumerate(header['keyframes']):
        keyframe = _read_keyframe(directory, place, entry, cameras, descriptors)
        if keyframe.id in keyframe_map:
            raise MapFormatError(f'keyframe {keyframe.id} is listed twice, wanted every id once')
        keyframe_map.add(keyframe)
    return keyframe_map


def _read_camera(place: int, entry: _Json) -> PinholeCamera:
    where = f'map.json, camera {place}'
    _require(entry, where)
    try:
        return PinholeCamera(**entry)
    except (OverflowError, TypeError, ValueError) as error:  # CalibrationError is a ValueError
        raise MapFormatError(f'{where}: {error}') from error


def _read_array(name: str, data: bytes) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # whatever its parsers raise: TokenError, BadZipFile, MemoryError
        raise MapFormatError(f'{name} is not an array of numbers ({error})') from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != 'f':
        raise MapFormatError(f'{name} does not hold a matrix of floats')
    return array


def _read_file(directory: Path, where: str, entry: _Json) -> bytes | None:
    """Read a listed file, and compare its size and CRC with what map.json says."""
    if entry is None:
        return None
    _require(entry, f'map.json, {where}', 'file', 'num_bytes', 'crc32')
    name = str(entry['file'])
    try:
        path = (directory / name).resolve()
        data = path.read_bytes() if path.is_relative_to(directory) else None
    except OSError as error:
        raise MapFormatError(
            f'{where}: {name} cannot be read ({error.strerror or error})'
        ) from error
    except ValueError as error:  # for example a null character in it
        raise MapFormatError(f'{where} names {name!r}, wanted the name of a file') from error
    if data is None:
        raise MapFormatError(f'{where} names {name!r}, wanted a file inside the map')
    size, crc32 = entry['num_bytes'], entry['crc32']
    if len(data) != size:
        is_short = isinstance(size, int) and len(data) < size
        raise MapFormatError(
            f'{where}: {name} has {len(data)} bytes, wanted {size!r} '
            f'({"cut short" if is_short else "changed"} since it was saved)'
        )
    if zlib.crc32(data) != crc32:
        raise MapFormatError(
            f'{where}: {name} has CRC-32 {zlib.crc32(data)}, wanted {crc32!r} (changed since it '
            'was saved)'
        )
    return data


def _read_keyframe(
    directory: Path,
    place: int,
    entry: _Json,
    cameras: list[PinholeCamera],
    descriptors: np.ndarray,
) -> Keyframe:
    where = f'map.json, keyframe number {place + 1}'
    keys = ('id', 'stamp_s', 'camera', 'T_map_camera', 'image', 'depth', 'depth_scale_m')
    _require(entry, where, *keys, 'landmarks', 'descriptor_row')
    where = f'keyframe {entry["id"]}'
    image = _read_file(directory, f'{where}, image', entry['image'])
    if image is None:
        raise MapFormatError(f'{where} has no image, wanted one')
    landmarks = _read_file(directory, f'{where}, landmarks', entry['landmarks'])
    pixels = points = None
    if landmarks is not None:
        array = _read_array(f'{where}, landmarks', landmarks)
        if array.shape[1] != 5:
            raise MapFormatError(f'{where}: landmarks have shape {array.shape}, wanted (M, 5)')
        pixels, points = array[:, :2], array[:, 2:]
    row = entry['descriptor_row']
    return Keyframe(
        id=entry['id'],
        stamp_s=entry['stamp_s'],
        T_map_camera=entry['T_map_camera'],
        camera=_pick(f'{where}: camera', entry['camera'], cameras),
        image=image,
        depth=_read_file(directory, f'{where}, depth', entry['depth']),
        depth_scale_m=entry['depth_scale_m'],
        landmark_pixels=pixels,
        landmark_points_map=points,
        global_descriptor=(
            None if row is None else _pick(f'{where}: descriptor_row', row, descriptors)
        ),
    )


def _pick(where: str, index: _Json, values: _Json) -> _Json:
    if not isinstance(index, int) or not 0 <= index < len(values):
        raise MapFormatError(f'{where} is {index!r}, the map has {len(values)} of them')
    return values[index]
