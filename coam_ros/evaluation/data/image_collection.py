"""Folders of images and the pairs of them to match, for reconstruction and export."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.image_pairs import PosedPair
from coam_ros.evaluation.data.lists import read_rows
from coam_ros.evaluation.data.pair_lists import has_pair_list, read_pair_lists
from coam_ros.evaluation.matchers.choice import load_retrieval
from coam_ros.mapping.retrieval import most_similar_pairs, NUM_NEIGHBOURS
from coam_ros.mapping.shared_keypoints import MERGE_RADIUS_PX
from coam_ros.matching import CoamMatcher
from coam_ros.matching.image_files import read_image
import numpy as np
from numpy.typing import NDArray

_IMAGE_SUFFIXES = {'.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.tif', '.tiff'}
# Depth images of the 7-Scenes layout.
_NO_PHOTO = '.depth.png'
# Beyond this points of different things become one.
_MAX_MERGE_RADIUS_PX = 50.0


@dataclass(frozen=True, eq=False)
class ImageCollection:
    """Images of one scene and the pairs of them to match.

    Attributes:
        directory: that the names are relative to.
        pairs: names of two images each, every pair once.
        intrinsics: (3, 3) by name, (0, 0) being the centre of the top-left pixel; empty where
            they are not known.
        posed_pairs: true relative poses; empty where they are not known.
    """

    directory: Path
    pairs: Sequence[tuple[str, str]]
    intrinsics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    posed_pairs: Sequence[PosedPair] = ()

    @property
    def names(self) -> list[str]:
        """Names of all images that a pair names, sorted."""
        return sorted({name for pair in self.pairs for name in pair})

    @property
    def posed_names(self) -> list[tuple[str, str]]:
        """Names of the images of `posed_pairs`."""
        return [
            (_name(self.directory, pair.path0), _name(self.directory, pair.path1))
            for pair in self.posed_pairs
        ]


def add_collection_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which pairs to match; `open_collection` takes them."""
    parser.add_argument(
        '--pairs',
        type=Path,
        metavar='LIST',
        help='text file, names of two images a line (default: a list in DIR that coam bench pose '
        'takes, with its intrinsics; where there is none, each image with the most similar ones)',
    )
    parser.add_argument(
        '--neighbours',
        type=int,
        default=NUM_NEIGHBOURS,
        metavar='N',
        help='images to match with each one, where there is no list (%(default)s)',
    )
    parser.add_argument(
        '--merge-radius',
        type=float,
        default=MERGE_RADIUS_PX,
        metavar='PX',
        help='points of an image this near, at an area of 640 x 480, become one key point '
        '(%(default)s)',
    )


def open_collection(directory: Path, args: argparse.Namespace) -> ImageCollection:
    """Find the images and the pairs that the arguments name."""
    if not 0 < args.merge_radius <= _MAX_MERGE_RADIUS_PX:
        raise ValueError(
            f'--merge-radius {args.merge_radius}, wanted more than 0 and at most '
            f'{_MAX_MERGE_RADIUS_PX} px.'
        )
    return read_collection(directory, args.pairs, args.neighbours, lambda: load_retrieval(args))


def read_collection(
    directory: Path,
    pair_list: Path | None = None,
    num_neighbours: int = NUM_NEIGHBOURS,
    load_retrieval: Callable[[], CoamMatcher] = CoamMatcher.load,
) -> ImageCollection:
    """Find the images of a folder and choose the pairs to match.

    Args:
        directory: with images, in sub-folders too.
        pair_list: a text file, two names a line as of hloc, more words being left out; None takes
            the list in the folder (see `pair_lists`; its intrinsics and poses count), or, where
            there is none, pairs each image with those most similar to it.
        num_neighbours: of each image, where there is no list.
        load_retrieval: loads what chooses them by its global descriptors; called for more than
            `num_neighbours` + 1 images without a list.

    Raises:
        FileNotFoundError: no such folder or list.
        BenchmarkDataError, PairListError: a line is wrong, an image is missing, or there are no
            pairs.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f'No folder {directory}; check the path.')
    if pair_list is not None:
        return ImageCollection(directory, _read_names(directory, pair_list))
    if has_pair_list(directory):
        return _from_posed_pairs(directory)
    names = _find_images(directory)
    if num_neighbours < 1:
        raise ValueError(f'{num_neighbours} neighbours of each image, wanted at least 1.')
    if len(names) <= num_neighbours + 1:
        return ImageCollection(directory, list(combinations(names, 2)))
    retrieval = load_retrieval()
    descriptors = [
        retrieval.encode(read_image(directory / name)).global_descriptor for name in names
    ]
    pairs = most_similar_pairs(
        np.stack(descriptors), lambda count: range(min(num_neighbours, count))
    )
    return ImageCollection(directory, [(names[i], names[j]) for i, j in pairs])


def _find_images(directory: Path) -> list[str]:
    """Name the images of a folder and its sub-folders, sorted.

    Raises:
        BenchmarkDataError: fewer than two.
    """
    names = sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob('*')
        if path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.endswith(_NO_PHOTO)
    )
    if len(names) < 2:
        suffixes = ', '.join(sorted(_IMAGE_SUFFIXES))
        raise BenchmarkDataError(
            f'{len(names)} images in {directory}, wanted at least 2 ({suffixes}); check the path.'
        )
    return names


def _from_posed_pairs(directory: Path) -> ImageCollection:
    posed = read_pair_lists(directory)
    intrinsics: dict[str, NDArray[np.float64]] = {}
    for pair in posed:
        intrinsics[_name(directory, pair.path0)] = pair.intrinsics0
        intrinsics[_name(directory, pair.path1)] = pair.intrinsics1
    collection = ImageCollection(directory, [], intrinsics, posed)
    return replace(collection, pairs=_each_once(collection.posed_names))


def _name(directory: Path, path: Path) -> str:
    return path.relative_to(directory).as_posix()


def _read_names(directory: Path, path: Path) -> list[tuple[str, str]]:
    pairs = []
    for place, words in read_rows(path, 'the names of two images'):
        if len(words) < 2 or words[0] == words[1]:
            raise BenchmarkDataError(
                f'{place}: got {" ".join(words)!r}, wanted the names of two images; correct the '
                'line.'
            )
        for name in words[:2]:
            if not (directory / name).is_file():
                raise BenchmarkDataError(
                    f'{place}: no image {directory / name}; bring it or remove the line.'
                )
        pairs.append((words[0], words[1]))
    if not pairs:
        raise BenchmarkDataError(f'No pairs in {path}; wanted two names a line.')
    return _each_once(pairs)


def _each_once(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop pairs named before, in either order."""
    kept: dict[frozenset[str], tuple[str, str]] = {}
    for pair in pairs:
        kept.setdefault(frozenset(pair), pair)
    return list(kept.values())
