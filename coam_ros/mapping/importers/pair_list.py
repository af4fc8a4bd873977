"""Lists of image pairs with relative poses, in the format of SuperGlue's evaluation.

A pair a line: name0 name1 0 0 K0 (9 numbers) K1 (9) T_1_0 (16), row by row, in pixels of the files
as they are. The two numbers after the names, by which SuperGlue turns images before it matches
them, are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.mapping.importers.text import read_lines
import numpy as np
from numpy.typing import NDArray

_NUM_NUMBERS = 2 + 9 + 9 + 16


class PairListError(ValueError):
    """A list with a line that cannot be used; the message names the file and the line."""


@dataclass(frozen=True, eq=False)
class ListedPair:
    """A line of a list.

    Attributes:
        names: of both images, relative to the list's folder.
        intrinsics: (3, 3) float64 of both images [px].
        T_1_0: (4, 4) float64, camera 0 to camera 1, as it stands there: perhaps not rigid.
        place: file and line, for messages.
    """

    names: tuple[str, str]
    intrinsics: tuple[NDArray[np.float64], NDArray[np.float64]]
    T_1_0: NDArray[np.float64]
    place: str


def read_pair_list(path: Path) -> list[ListedPair]:
    """Read a list, which may be empty.

    Raises:
        FileNotFoundError: there is none.
        PairListError: a line is not as wanted, or has intrinsics of no camera.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'No pair list {path}; give a folder with images and a pairs.txt of the format of '
            'SuperGlue.'
        )
    return [
        _parse(line.split(), f'{path}, line {number}')
        for number, line in enumerate(read_lines(path), start=1)
        if line.strip()
    ]


def _parse(words: list[str], place: str) -> ListedPair:
    try:
        numbers = np.array(words[2:], np.float64)
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != _NUM_NUMBERS or not np.isfinite(numbers).all():
        raise PairListError(
            f'{place}: {len(words[2:])} words after the names, wanted {_NUM_NUMBERS} finite '
            'numbers (0 0 K0 K1 T_1_0); correct the line.'
        )
    intrinsics0, intrinsics1 = numbers[2:20].reshape(2, 3, 3)
    for K in (intrinsics0, intrinsics1):
        try:
            PinholeCamera.from_K(K, 1, 1)
        except CalibrationError as error:
            raise PairListError(f'{place}: K: {error}') from error
    T_1_0 = numbers[20:].reshape(4, 4)
    return ListedPair((words[0], words[1]), (intrinsics0, intrinsics1), T_1_0, place)
