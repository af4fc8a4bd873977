"""Pairs of images of which only the relative pose is known, for self-supervision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.epipolar import fundamental_from_pose
from coam_ros.geometry.image_views import Image, warp
from coam_ros.geometry.transforms import invert, is_rigid, rotation_vector
from coam_ros.mapping.importers.pair_list import read_pair_list
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.mapping.importers.sfm_model import is_colmap_model, scaled_camera, SfmImage
from coam_ros.matching.image_files import read_image
from coam_ros.training.data.pairs import EpipolarPair, PairFinisher, SourceConfig
from coam_ros.training.data.reading import ArrayCache, check_image, warn_of_skipped
from coam_ros.training.data.views import CropConfig, random_crop, ViewSpec
import numpy as np
from numpy.typing import NDArray

# COLMAP's folders, from the one that a user would name.
_MODEL_FOLDERS = ('.', 'sparse', 'sparse/0')
# Poses that were written with seven digits.
_ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class PosedImageSourceConfig(SourceConfig):
    """A folder of posed, undistorted images, found by its files.

    `pairs.txt` (SuperGlue's pair lists), else a COLMAP model (binary or text, in the folder, in
    `sparse` or in `sparse/0`, with its points3D; `images` holds the images, in a text model under
    names without spaces), else 7-Scenes.

    Attributes:
        crop: of the images; larger than elsewhere, since nothing says where the crops overlap,
            and not turned, since nothing leaves out the points of the corners that turn in.
        min_shared_points: 3D points that a pair of a COLMAP model has in common.
        min_step: least distance of two frames of a 7-Scenes sequence.
        max_step: largest distance [frames].
        max_rotation_deg: largest rotation between two frames of a 7-Scenes sequence.
        min_baseline_m: least distance of the cameras of such frames: near 0 there is no epipolar
            geometry.
    """

    crop: CropConfig = field(
        default_factory=lambda: CropConfig(min_extent=0.75, rotation_std_deg=0.0)
    )
    min_shared_points: int = 50
    min_step: int = 3
    max_step: int = 40
    max_rotation_deg: float = 40.0
    min_baseline_m: float = 0.05

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        super().__post_init__()
        if self.min_baseline_m <= 0:
            raise ValueError(
                f'min_baseline_m is {self.min_baseline_m}, wanted more than 0: a camera that only '
                'turned has no epipolar geometry; raise it.'
            )


@dataclass(frozen=True, eq=False)
class _Relation:
    """Two images and F with p1^T F p0 = 0 in their pixels."""

    key0: str | int
    key1: str | int
    fundamental: NDArray[np.float64]


class PosedImageSource:
    """Pairs of images with known epipolar geometry."""

    def __init__(self, config: PosedImageSourceConfig, spec: ViewSpec) -> None:
        """Read the poses; images are read when they are drawn.

        Raises:
            FileNotFoundError: no such folder, or nothing in it is known.
            ModuleNotFoundError: it holds a COLMAP model, and pycolmap is not installed.
            ValueError: no usable pair, or a model that cannot be read or has distortion.
        """
        self._config = config
        self._size = spec.size
        self._finisher = PairFinisher(config, spec)
        self._cache = ArrayCache(config.cache_mb)
        directory = Path(config.path)
        models = [directory / folder for folder in _MODEL_FOLDERS]
        model = next(filter(is_colmap_model, models), None)
        if (directory / 'pairs.txt').is_file():
            self._relations, self._read = _from_pair_list(directory)
        elif model is not None:
            self._relations, self._read = _from_colmap(directory, model, config)
        else:
            self._relations, self._read = _from_seven_scenes(directory, config)
        if not self._relations:
            raise ValueError(
                f'{directory} has no pair of images with a usable relative pose; check its poses, '
                'or widen what counts as a pair.'
            )

    def sample(self, rng: np.random.Generator, item: int = 0) -> EpipolarPair:
        """Return two views; see `PairSource.sample`."""
        relation = self._relations[rng.integers(len(self._relations))]
        images = [self._image(key) for key in (relation.key0, relation.key1)]
        fundamental = relation.fundamental
        if rng.random() < 0.5:
            images, fundamental = images[::-1], fundamental.T
        crops = [
            random_crop(image.shape[1::-1], self._size, self._config.crop, rng) for image in images
        ]
        views = [
            self._finisher.vary(warp(image, crop, self._size), rng)
            for image, crop in zip(images, crops, strict=True)
        ]
        to_image0, to_image1 = (np.linalg.inv(crop) for crop in crops)
        fundamental = to_image1.T @ fundamental @ to_image0
        fundamental = (fundamental / np.linalg.norm(fundamental)).astype(np.float32)
        return EpipolarPair(views[0], views[1], fundamental)

    def _image(self, key: str | int) -> Image:
        return self._cache.get(key, lambda: self._read(key))


_Opened = tuple[list[_Relation], Callable[[str | int], Image]]


def _from_pair_list(directory: Path) -> _Opened:
    listed = read_pair_list(directory / 'pairs.txt')
    names = {name for pair in listed for name in pair.names}
    skipped = _unusable_images(directory, names)
    relations = []
    for pair in listed:
        if any(name in skipped for name in pair.names):
            continue
        if not is_rigid(pair.T_1_0, _ROTATION_TOLERANCE) or not pair.T_1_0[:3, 3].any():
            skipped[' '.join(pair.names)] = 'the pose is not rigid, or has no baseline'
            continue
        fundamental = fundamental_from_pose(pair.T_1_0, *pair.intrinsics)
        relations.append(_Relation(*pair.names, fundamental))
    _warn(directory, skipped, len(names) + len(listed))
    return relations, partial(_read_file, directory)


def _from_colmap(directory: Path, model: Path, config: PosedImageSourceConfig) -> _Opened:
    # COLMAP takes a third of a second to load and is an extra.
    from coam_ros.mapping.importers.colmap import read_colmap_model

    folder = directory / 'images' if (directory / 'images').is_dir() else directory
    by_name = read_colmap_model(model)
    distorted = next((image for image in by_name.values() if image.camera.is_distorted), None)
    if distorted is not None:
        raise ValueError(
            f'{model}: the camera of {distorted.name} has distortion, wanted none; undistort the '
            'images with `colmap image_undistorter`.'
        )
    skipped: dict[object, str] = {}
    images: list[SfmImage] = []
    cameras: list[PinholeCamera] = []
    for name, image in sorted(by_name.items()):
        try:
            header = check_image(folder / name)
            # The files may be smaller than those that the model was made of.
            _, camera = scaled_camera(image.camera, header.width, header.height)
        except (OSError, ValueError) as error:
            skipped[name] = str(error)
        else:
            images.append(image)
            cameras.append(camera)
    _warn(directory, skipped, len(by_name))
    num_shared = _count_shared([image.landmark_ids for image in images])
    relations = []
    for i, j in np.argwhere(np.triu(num_shared >= config.min_shared_points, 1)):
        T_1_0 = invert(images[j].T_map_camera) @ images[i].T_map_camera
        # A camera that only turned has no epipolar geometry.
        if not T_1_0[:3, 3].any():
            continue
        fundamental = fundamental_from_pose(T_1_0, cameras[i].K, cameras[j].K)
        relations.append(_Relation(images[i].name, images[j].name, fundamental))
    return relations, partial(_read_file, folder)


def _count_shared(ids: list[NDArray[np.int64]]) -> NDArray[np.int32]:
    """Count for N lists of points what each two have in common: (N, N)."""
    seen_by: dict[int, list[int]] = {}
    for index, points in enumerate(ids):
        # An image may see a point twice.
        for point in np.unique(points).tolist():
            seen_by.setdefault(point, []).append(index)
    counts = np.zeros((len(ids), len(ids)), np.int32)
    for images in seen_by.values():
        counts[np.ix_(images, images)] += 1
    return counts


def _from_seven_scenes(directory: Path, config: PosedImageSourceConfig) -> _Opened:
    frames = SevenScenesSequence(directory)
    skipped: dict[object, str] = {}
    posed = []
    for index, name in enumerate(frames.names):
        try:
            keyframe = frames[index]
        except (OSError, ValueError) as error:
            skipped[name] = str(error)
        else:
            posed.append((index, keyframe.T_map_camera, keyframe.camera.K))
    _warn(directory, skipped, len(frames))
    relations = []
    for place, (i, T_world_0, K0) in enumerate(posed):
        for j, T_world_1, K1 in posed[place + config.min_step : place + config.max_step + 1]:
            T_1_0 = invert(T_world_1) @ T_world_0
            turn_deg = np.rad2deg(np.linalg.norm(rotation_vector(T_1_0[:3, :3])))
            baseline_m = np.linalg.norm(T_1_0[:3, 3])
            if turn_deg <= config.max_rotation_deg and baseline_m >= config.min_baseline_m:
                relations.append(_Relation(i, j, fundamental_from_pose(T_1_0, K0, K1)))
    return relations, partial(_read_frame, frames)


def _unusable_images(folder: Path, names: Iterable[str]) -> dict[object, str]:
    """Say of each image that cannot be used why."""
    problems: dict[object, str] = {}
    for name in sorted(names):
        try:
            check_image(folder / name)
        except (OSError, ValueError) as error:
            problems[name] = str(error)
    return problems


def _warn(directory: Path, skipped: dict[object, str], total: int) -> None:
    warn_of_skipped(directory, 'images and pairs', skipped, total)


def _read_file(folder: Path, name: str) -> Image:
    return read_image(folder / name)


def _read_frame(frames: SevenScenesSequence, index: int) -> Image:
    return frames[index].decode_image()
