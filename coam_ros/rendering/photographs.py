"""Photographs that the scikit-image wheel carries, read from disk without any download."""

from __future__ import annotations

from collections.abc import Sequence
import importlib.util
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# Real photographs among the files inside the wheel. Left out: drawings and patterns
# (chessboards, phantom, horse, colour wheel, logo), `motorcycle_right` (the same scene as
# `motorcycle_left`, so a repeated place) and pictures with next to no texture.
PHOTOGRAPHS: dict[str, str] = {
    'astronaut': 'astronaut.png',
    'brick': 'brick.png',
    'camera': 'camera.png',
    'chelsea': 'chelsea.png',
    'coffee': 'coffee.png',
    'coins': 'coins.png',
    'grass': 'grass.png',
    'gravel': 'gravel.png',
    'hubble': 'hubble_deep_field.jpg',
    'ihc': 'ihc.png',
    'moon': 'moon.png',
    'motorcycle': 'motorcycle_left.png',
    'retina': 'retina.jpg',
    'rocket': 'rocket.jpg',
    'text': 'text.png',
}


def load_photographs(names: Sequence[str] | None = None) -> dict[str, NDArray[np.uint8]]:
    """Read photographs by name.

    Args:
        names: keys of `PHOTOGRAPHS`; None for all of them.

    Returns:
        (H, W, 3) uint8 RGB images by name, in the order asked for.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: when scikit-image or one of its files is not installed.
    """
    names = tuple(PHOTOGRAPHS) if names is None else tuple(names)
    unknown = sorted(set(names) - set(PHOTOGRAPHS))
    if unknown:
        raise ValueError(
            f'Unknown photographs {unknown}, wanted names among {sorted(PHOTOGRAPHS)}; '
            'correct the names.'
        )
    directory = _data_directory()
    return {name: _read(directory / PHOTOGRAPHS[name]) for name in names}


def _data_directory() -> Path:
    # find_spec does not run the package: importing skimage.data takes most of a second.
    spec = importlib.util.find_spec('skimage')
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            'No scikit-image in this Python, wanted its photographs; '
            'install it with `pip install scikit-image`.'
        )
    return Path(spec.origin).parent / 'data'


def _read(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise FileNotFoundError(
            f'No photograph {path.name} in {path.parent}, wanted a scikit-image whose wheel '
            'carries it; install scikit-image 0.22 or newer.'
        )
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
