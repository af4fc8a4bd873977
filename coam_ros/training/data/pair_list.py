"""Lists of image pairs with relative poses, in the format of SuperGlue's evaluation.

A pair a line: name0 name1 0 0 K0(9) K1(9) T_1_0(16), row by row, pixels of the files as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_WANTED = 'name0 name1 0 0, then 9 + 9 + 16 numbers: K0, K1, T_1_0'


@dataclass(frozen=True, eq=False)
class PosedPair:
    """A line of the list.

    Attributes:
        name0, name1: of the images, relative to the list's folder.
        K0, K1: (3, 3) intrinsics.
        T_1_0: (4, 4), camera 0 to camera 1, as it stands there: perhaps not rigid.
    """

    name0: str
    name1: str
    K0: NDArray[np.float64]
    K1: NDArray[np.float64]
    T_1_0: NDArray[np.float64]


def read_pair_list(path: Path) -> list[PosedPair]:
    """Read a list.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a line is not as wanted; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f'No {path}, wanted a list of pairs, one a line: {_WANTED}.')
    return [
        _parse(path, number, line.split())
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if line.strip()
    ]


def _parse(path: Path, number: int, words: list[str]) -> PosedPair:
    try:
        rotations, values = [int(word) for word in words[2:4]], np.array(words[4:], np.float64)
    except ValueError:
        rotations, values = [], np.empty(0)
    if rotations != [0, 0] or len(values) != 34:
        raise ValueError(
            f'{path}, line {number}: got {" ".join(words)!r}, wanted {_WANTED}; correct the line '
            '(images that a list turns by EXIF have to be turned on disk).'
        )
    K0, K1, T_1_0 = np.split(values, (9, 18))
    return PosedPair(words[0], words[1], K0.reshape(3, 3), K1.reshape(3, 3), T_1_0.reshape(4, 4))
