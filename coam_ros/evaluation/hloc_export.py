"""Matches in the HDF5 layout of hloc, so that its pipelines take them as their own.

features.h5   IMAGE/keypoints (N, 2), with the attribute uncertainty [px], and IMAGE/scores (N,)
matches.h5    IMAGE0/IMAGE1 with '/' in names as '-': matches0 (N0,), the key point of image 1 for
              each of image 0 or -1, and matching_scores0 (N0,)
pairs.txt     the names of each pair

Pixels of the images as they are; (0, 0) is the centre of the top-left one, as hloc has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coam_ros.mapping.shared_keypoints import SharedKeypoints
import h5py
import numpy as np

FEATURES, MATCHES, PAIRS = 'features.h5', 'matches.h5', 'pairs.txt'
# Of a key point, in pixels of the image; hloc scales the threshold of its verification by it.
_UNCERTAINTY_PX = 1.0


def check_names(names: Sequence[str]) -> None:
    """Refuse names that hloc's files cannot tell apart.

    Raises:
        ValueError: a name with a space, or two that are equal where '/' is '-'.
    """
    spaced = [name for name in names if len(name.split()) != 1]
    if spaced:
        raise ValueError(
            f'Image names with spaces, such as {spaced[0]!r}: lists of pairs separate names by '
            'them. Rename the images.'
        )
    flat = [name.replace('/', '-') for name in names]
    if len(set(flat)) < len(flat):
        twice = next(name for name in flat if flat.count(name) > 1)
        raise ValueError(
            f"Two images are called {twice!r} where '/' becomes '-', as hloc writes names. Rename "
            'one of them.'
        )


def write_hloc(folder: Path, shared: SharedKeypoints) -> None:
    """Write the three files; former ones stay whole until the new ones are.

    Args:
        folder: is made when it is not there.
        shared: key points and matches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = {name: folder / f'{name}.part' for name in (FEATURES, MATCHES, PAIRS)}
    with h5py.File(unfinished[FEATURES], 'w') as file:
        for name, keypoints in shared.keypoints.items():
            group = file.create_group(name)
            group['keypoints'] = keypoints
            group['keypoints'].attrs['uncertainty'] = _UNCERTAINTY_PX
            group['scores'] = shared.keypoint_scores[name]
    with h5py.File(unfinished[MATCHES], 'w') as file:
        for names, matches in shared.matches.items():
            num_keypoints = len(shared.keypoints[names[0]])
            matches0 = np.full(num_keypoints, -1, np.int32)
            scores0 = np.zeros(num_keypoints, np.float16)
            matches0[matches[:, 0]] = matches[:, 1]
            scores0[matches[:, 0]] = shared.match_scores[names]
            group = file.create_group('/'.join(name.replace('/', '-') for name in names))
            group['matches0'] = matches0
            group['matching_scores0'] = scores0
    lines = [f'{name0} {name1}\n' for name0, name1 in shared.matches]
    unfinished[PAIRS].write_text(''.join(lines), encoding='utf-8')
    for name, path in unfinished.items():
        path.replace(folder / name)
