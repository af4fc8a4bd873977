"""Reading of training images: what is usable, decoded small where that is enough, and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
import logging
import os
from pathlib import Path
from typing import cast, Protocol, TypeVar

from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.image_header import ImageHeader, read_image_header
from coam_ros.matching.image_files import decode_rgb, REDUCTIONS

_LOGGER = logging.getLogger(__name__)
_SUFFIXES = {'.jpg', '.jpeg', '.png'}
_MIN_SIDE_PX = 96
# Standard deviation in grey levels; below it nothing can be matched (a mask, a dark 16-bit file).
_MIN_CONTRAST = 4.0
_NUM_NAMED = 20


def check_image(path: Path) -> ImageHeader:
    """Check that an image is there and whole, without decoding it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is cut short or no JPEG or PNG.
    """
    return read_image_header(path.read_bytes())


def list_photos(directory: Path) -> dict[Path, tuple[int, int]]:
    """Find the usable photos of a folder and its sub-folders; decodes every one, small.

    Left out, with one warning that names and counts them: files that are cut short or damaged,
    smaller than 96 px, or with next to no contrast. Grey and 16-bit photos are used.

    Args:
        directory: where to look.

    Returns:
        (width, height) [px] by path, in order.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no usable photo.
    """
    if not directory.is_dir():
        raise FileNotFoundError(
            f'No folder of photos at {directory}, wanted one that holds .jpg or .png files; '
            'correct the path.'
        )
    paths = [path for path in files_below(directory) if path.suffix.lower() in _SUFFIXES]
    with ThreadPoolExecutor() as pool:
        found = dict(zip(paths, pool.map(_examine, paths), strict=True))
    skipped = {path: problem for path, problem in found.items() if isinstance(problem, str)}
    warn_of_skipped(directory, 'photos', skipped, len(paths))
    usable = {path: size for path, size in found.items() if isinstance(size, tuple)}
    if not usable:
        raise ValueError(
            f'No training photos: {directory} holds {len(paths)} .jpg and .png files, '
            f'{len(skipped)} of them unusable; wanted at least one photo.'
        )
    return usable


def files_below(directory: Path) -> list[Path]:
    """List the files of a folder and of its sub-folders, links to folders too, in order."""
    found, entered = [], set()
    for folder, subfolders, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            # A link back to a folder around it.
            subfolders.clear()
            continue
        entered.add(real)
        found += [Path(folder, name) for name in names]
    return sorted(found)


def warn_of_skipped(source: Path, kind: str, skipped: Mapping[object, str], total: int) -> None:
    """Say once what a source leaves out and why; nothing where it leaves out nothing.

    Args:
        source: folder or file of the source.
        kind: of what, in plural.
        skipped: reason by what was left out.
        total: how many there were.
    """
    if not skipped:
        return
    named = [f'  {path}: {reason}' for path, reason in list(skipped.items())[:_NUM_NAMED]]
    if len(skipped) > _NUM_NAMED:
        named.append(f'  and {len(skipped) - _NUM_NAMED} more')
    _LOGGER.warning(
        '%s: %d of %d %s are not used:\n%s', source, len(skipped), total, kind, '\n'.join(named)
    )


def largest_reduction(size: tuple[int, int], wanted: tuple[float, float]) -> int:
    """Choose the reduction of `read_image` that leaves at least the size wanted.

    Args:
        size: (width, height) of the file [px].
        wanted: (width, height) that the read image needs, 1 where the file itself is smaller.
    """
    return max(
        (r for r in REDUCTIONS if size[0] >= r * wanted[0] and size[1] >= r * wanted[1]), default=1
    )


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_Value = TypeVar('_Value', bound=_Sized)


class ArrayCache:
    """Decoded images by key, up to a number of bytes; the least recently used go first."""

    def __init__(self, max_mb: int) -> None:
        """Make an empty cache; each process that gets a copy fills its own."""
        self._max_bytes = max_mb * 1_000_000
        self._values: OrderedDict[object, _Sized] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: object, read: Callable[[], _Value]) -> _Value:
        """Return what is kept under `key`, or read and keep it."""
        if key in self._values:
            self._values.move_to_end(key)
            return cast(_Value, self._values[key])
        value = read()
        self._values[key] = value
        self._num_bytes += value.nbytes
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= self._values.popitem(last=False)[1].nbytes
        return value


def _examine(path: Path) -> tuple[int, int] | str:
    """Give the size of a photo, or say why it cannot be used."""
    try:
        data = path.read_bytes()
        header = read_image_header(data)
        if min(header.width, header.height) < _MIN_SIDE_PX:
            return f'{header.width} x {header.height} px, wanted at least {_MIN_SIDE_PX}'
    except (MapFormatError, OSError) as error:
        return str(error)
    image = decode_rgb(data, 8)
    if image is None:
        return 'it cannot be decoded'
    contrast = image.mean(axis=2).std()
    if contrast < _MIN_CONTRAST:
        return f'contrast of {contrast:.1f} grey levels, wanted at least {_MIN_CONTRAST:g}'
    return header.width, header.height
