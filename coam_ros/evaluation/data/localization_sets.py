"""Data sets of relocalization: which images are the map, which ones the queries.

The layout of a folder is found by its files:

7-Scenes    intrinsics.txt, map.txt and query.txt with names of frames; or, as published,
            seq-01 ..., TrainSplit.txt and TestSplit.txt (depth is not registered to colour there,
            which costs some pixels)
TUM         rgb.txt, depth.txt, groundtruth.txt; map.txt and query.txt with names as in rgb.txt
Cambridge   as published: dataset_train.txt, dataset_test.txt, reconstruction.nvm, images
COLMAP      a model in model_train, sparse/0, sparse, model or the folder itself; list_query.txt or
            query.txt with the names of the queries, their true poses in a model in empty_all or in
            the same model; images in images or in the folder (as hloc has Cambridge)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.lists import read_rows
from coam_ros.evaluation.provenance import hash_bytes
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import make_transform, rotation_from_quaternion_xyzw
from coam_ros.mapping.image_header import read_image_header
from coam_ros.mapping.importers.nvm import read_nvm
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.mapping.importers.sfm_model import is_colmap_model, SfmFrames, SfmImage
from coam_ros.mapping.importers.text import read_lines
from coam_ros.mapping.importers.tum import TumSequence
from coam_ros.mapping.keyframe import Keyframe
import numpy as np

# Of the colour images of 7-Scenes, as published with it.
_SEVEN_SCENES_K = np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]])
LAYOUTS = (
    'DIR, by its files: 7-Scenes (intrinsics.txt, map.txt, query.txt; or TrainSplit.txt, '
    'TestSplit.txt, seq-01 ...), TUM (rgb.txt, depth.txt, groundtruth.txt, and map.txt, query.txt '
    'with names as in rgb.txt), Cambridge (dataset_train.txt, dataset_test.txt, '
    'reconstruction.nvm), or a COLMAP model with list_query.txt or query.txt.'
)
_MODEL_FOLDERS = ('model_train', 'sparse/0', 'sparse', 'model', '.')
_QUERY_LISTS = ('list_query.txt', 'query.txt')


class PosedFrames(Protocol):
    """Images with their poses, read when they are asked for."""

    names: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Keyframe: ...


@dataclass(frozen=True)
class LocalizationSet:
    """A scene to localize in.

    Attributes:
        name: of its folder.
        keyframes: of the map; with depth or landmarks, where the data set has any.
        queries: with their true poses.
    """

    name: str
    keyframes: PosedFrames
    queries: PosedFrames

    def hash(self) -> str:
        """Return a hash of all images, depths, cameras, poses and landmarks."""
        return hash_bytes(
            part
            for frames in (self.keyframes, self.queries)
            for frame in each(frames)
            for part in (
                frame.image,
                frame.depth or b'',
                repr(frame.depth_scale_m).encode(),
                repr(frame.camera).encode(),
                frame.T_map_camera.tobytes(),
                *(
                    b'' if landmarks is None else landmarks.tobytes()
                    for landmarks in (frame.landmark_pixels, frame.landmark_points_map)
                ),
            )
        )


class ChosenFrames:
    """Some frames of others, in an order of their own, with ids by their place.

    Attributes:
        names: of the frames.
    """

    def __init__(self, chosen: Sequence[tuple[str, PosedFrames, int]]) -> None:
        """Take for each frame its name, where it comes from, and its place there."""
        self.names = [name for name, _, _ in chosen]
        self._chosen = chosen

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.names)

    def __getitem__(self, index: int) -> Keyframe:
        """Read a frame; raises what its source raises."""
        _, frames, place = self._chosen[index]
        return replace(frames[place], id=range(len(self))[index])


def every_nth(frames: PosedFrames, step: int) -> ChosenFrames:
    """Take every n-th frame, from the first on."""
    return ChosenFrames([(frames.names[i], frames, i) for i in range(0, len(frames), step)])


def each(frames: PosedFrames) -> Iterator[Keyframe]:
    """Read frames one after the other."""
    return (frames[index] for index in range(len(frames)))


def open_localization_set(directory: Path) -> LocalizationSet:
    """Open a folder in one of the layouts above; reads no image but the first.

    Raises:
        FileNotFoundError: no such folder, or a file of its layout is missing.
        BenchmarkDataError: an unknown layout, or a list that names what is not there.
        ValueError: what the reader of the layout raises.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f'No folder {directory}; check the path.')
    keyframes, queries = _open(directory)
    if not len(keyframes) or not len(queries):
        raise BenchmarkDataError(
            f'{directory}: {len(keyframes)} map images and {len(queries)} queries, wanted at '
            'least one of each; check its lists.'
        )
    return LocalizationSet(directory.resolve().name, keyframes, queries)


def _open(directory: Path) -> tuple[PosedFrames, PosedFrames]:
    def has(name: str) -> bool:
        return (directory / name).is_file()

    if has('TrainSplit.txt'):
        train, test = (_read_split(directory / f'{kind}Split.txt') for kind in ('Train', 'Test'))
        return _seven_scenes(directory, train), _seven_scenes(directory, test)
    if has('dataset_train.txt'):
        return _cambridge(directory)
    if has('rgb.txt'):
        frames = TumSequence(directory, None)
        return tuple(
            _named(frames, directory / name, _read_names(directory / name))
            for name in ('map.txt', 'query.txt')
        )
    if has('intrinsics.txt') or has('map.txt'):
        # Whole paths: a list of this name in the current directory is of something else.
        return tuple(
            SevenScenesSequence(directory, directory.resolve() / name)
            for name in ('map.txt', 'query.txt')
        )
    return _colmap(directory)


# --- 7-Scenes as published --------------------------------------------------------------------


def _read_split(path: Path) -> list[int]:
    """Read numbers of sequences: 'sequence3' a line."""
    words = [line.strip() for line in read_lines(path) if line.strip()]
    numbers = [word.removeprefix('sequence') for word in words]
    if not words or not all(number.isdigit() for number in numbers):
        raise BenchmarkDataError(f'{path}: got {words}, wanted lines such as sequence1.')
    return [int(number) for number in numbers]


def _seven_scenes(directory: Path, sequences: Sequence[int]) -> ChosenFrames:
    chosen: list[tuple[str, PosedFrames, int]] = []
    for number in sequences:
        frames = SevenScenesSequence(directory / f'seq-{number:02d}', default_K=_SEVEN_SCENES_K)
        chosen += [
            (f'seq-{number:02d}/{name}', frames, place) for place, name in enumerate(frames.names)
        ]
    return ChosenFrames(chosen)


# --- lists of names ---------------------------------------------------------------------------


def _read_names(path: Path) -> list[str]:
    # Words after the name are intrinsics, which the model has as well.
    return [words[0] for _, words in read_rows(path, 'the name of an image')]


def _named(frames: TumSequence, path: Path, names: Sequence[str]) -> ChosenFrames:
    places = {frames.names[place]: place for place in frames.posed}
    for name in names:
        if name not in places:
            raise BenchmarkDataError(
                f'{path} names {name}, which is none of the {len(places)} images with a pose '
                f'(such as {next(iter(places), "none")}); correct the list or bring the image.'
            )
    return ChosenFrames([(name, frames, places[name]) for name in names])


# --- Cambridge as published -------------------------------------------------------------------


def _cambridge(directory: Path) -> tuple[PosedFrames, PosedFrames]:
    poses = [
        _read_cambridge_poses(directory / f'dataset_{kind}.txt') for kind in ('train', 'test')
    ]
    # The model says .jpg where the files are .png.
    files = {_stem(name): directory / name for part in poses for name in part}

    def camera_of(name: str, focal: float) -> PinholeCamera | None:
        path = files.get(_stem(name))
        if path is None or not path.is_file():
            return None
        header = read_image_header(path.read_bytes())
        size = np.array([header.width, header.height])
        return PinholeCamera(*size.tolist(), focal, focal, *((size - 1) / 2).tolist())

    model = read_nvm(directory / 'reconstruction.nvm', camera_of)
    seen = {_stem(name): image for name, image in model.items()}
    parts = []
    for kind, part in zip(('train', 'test'), poses, strict=True):
        images = []
        for name, T_map_camera in part.items():
            image = seen.get(_stem(name))
            if image is None:
                raise BenchmarkDataError(
                    f'{directory}/dataset_{kind}.txt names {name}, which is not there or unknown '
                    'to reconstruction.nvm; bring it or remove the line.'
                )
            images.append(replace(image, name=name, T_map_camera=T_map_camera))
        parts.append(SfmFrames(directory, images))
    return parts[0], parts[1]


def _stem(name: str) -> str:
    return Path(name).with_suffix('').as_posix()


def _read_cambridge_poses(path: Path) -> dict[str, np.ndarray]:
    """Read T_map_camera by name: three lines of heading, then name, centre, quaternion w x y z."""
    if not path.is_file():
        raise FileNotFoundError(f'No {path}; wanted the list as published.')
    poses = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if number <= 3 or not words:
            continue
        try:
            x, y, z, qw, qx, qy, qz = (float(word) for word in words[1:])
            R = rotation_from_quaternion_xyzw((qx, qy, qz, qw))
        except ValueError as error:
            raise BenchmarkDataError(
                f'{path}, line {number}: got {line!r} ({error}), wanted name X Y Z W P Q R.'
            ) from error
        poses[words[0]] = make_transform(R.T, (x, y, z))
    return poses


# --- COLMAP -----------------------------------------------------------------------------------


def _colmap(directory: Path) -> tuple[PosedFrames, PosedFrames]:
    folder = next((f for f in _MODEL_FOLDERS if is_colmap_model(directory / f)), None)
    if folder is None:
        raise BenchmarkDataError(
            f'{directory} has none of the layouts of localization: no TrainSplit.txt or map.txt '
            '(7-Scenes), rgb.txt (TUM), dataset_train.txt (Cambridge) and no COLMAP model in '
            f'{", ".join(_MODEL_FOLDERS)}; check the path.'
        )
    query_list = next((name for name in _QUERY_LISTS if (directory / name).is_file()), None)
    if query_list is None:
        raise FileNotFoundError(
            f'No list of queries in {directory}: wanted {" or ".join(_QUERY_LISTS)}, the name of '
            'an image a line.'
        )
    # COLMAP takes a third of a second to load and is an extra.
    from coam_ros.mapping.importers.colmap import read_colmap_model

    model = read_colmap_model(directory / folder)
    truth_folder = directory / 'empty_all'
    truth = read_colmap_model(truth_folder) if is_colmap_model(truth_folder) else model
    names = _read_names(directory / query_list)
    images = directory / 'images' if (directory / 'images').is_dir() else directory
    unknown = [name for name in names if name not in truth]
    if unknown:
        raise BenchmarkDataError(
            f'{directory / query_list} names {unknown[0]}, which the model has no pose of; '
            'correct the list, or bring the image into the model.'
        )
    queries = set(names)
    return (
        SfmFrames(images, [image for name, image in model.items() if name not in queries]),
        SfmFrames(images, [_without_landmarks(truth[name]) for name in names]),
    )


def _without_landmarks(image: SfmImage) -> SfmImage:
    return replace(
        image,
        landmark_pixels=np.empty((0, 2), np.float32),
        landmark_points_map=np.empty((0, 3)),
        landmark_ids=np.empty(0, np.int64),
    )
