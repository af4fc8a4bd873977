"""Image pairs with known geometry.

Every image is brought to an area of 640 x 480 px, whatever its own, with its aspect kept, before
it goes to a matcher; all thresholds and errors are in pixels of the images so matched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import re
from typing import Protocol

from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.provenance import hash_bytes
from coam_ros.geometry.camera import NOMINAL_AREA_PX
from coam_ros.geometry.epipolar import fundamental_from_pose, symmetric_epipolar_distance_px
from coam_ros.geometry.image_views import apply_homography
from coam_ros.matching import Correspondences
from coam_ros.matching.image_files import read_image
from coam_ros.matching.preprocessing import Resizing
import numpy as np
from numpy.typing import NDArray

_IMAGE_SUFFIXES = ('.ppm', '.jpg', '.png')


class ImagePair(Protocol):
    """Two images and the geometry between them."""

    name: str
    path0: Path
    path1: Path

    @property
    def truth(self) -> NDArray[np.float64]:
        """All numbers that say how the images lie to each other, (N,)."""
        ...

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read both images, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: one does not decode.
        """
        ...

    def resized(self, to0: NDArray[np.float64], to1: NDArray[np.float64]) -> ImagePair:
        """Give the pair after both images were resized.

        Args:
            to0: (3, 3), pixels of image 0 to those of the resized one.
            to1: the same of image 1.
        """
        ...

    def errors_px(self, found: Correspondences) -> NDArray[np.float64]:
        """Give (N,) how far each match is from what is true [px]; NaN where nothing is."""
        ...


@dataclass(frozen=True, eq=False)
class PosedPair:
    """Two images of a scene whose cameras are known.

    Attributes:
        name: of the pair.
        path0: of image 0.
        path1: of image 1.
        intrinsics0: (3, 3) float64 of image 0 [px].
        intrinsics1: (3, 3) float64 of image 1 [px].
        T_1_0: (4, 4) float64, camera 0 to camera 1, of any scale.
    """

    name: str
    path0: Path
    path1: Path
    intrinsics0: NDArray[np.float64]
    intrinsics1: NDArray[np.float64]
    T_1_0: NDArray[np.float64]

    @property
    def truth(self) -> NDArray[np.float64]:
        """K of both images and T_1_0; see `ImagePair`."""
        return np.concatenate(
            [x.ravel() for x in (self.intrinsics0, self.intrinsics1, self.T_1_0)]
        )

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read both images; see `ImagePair`."""
        return read_image(self.path0), read_image(self.path1)

    def resized(self, to0: NDArray[np.float64], to1: NDArray[np.float64]) -> PosedPair:
        """Give the pair after a resize; see `ImagePair`."""
        return replace(
            self, intrinsics0=to0 @ self.intrinsics0, intrinsics1=to1 @ self.intrinsics1
        )

    def errors_px(self, found: Correspondences) -> NDArray[np.float64]:
        """Give the distances to the epipolar lines, the larger of both images."""
        fundamental = fundamental_from_pose(self.T_1_0, self.intrinsics0, self.intrinsics1)
        return symmetric_epipolar_distance_px(found.points0, found.points1, fundamental)


@dataclass(frozen=True, eq=False)
class PlanarPair:
    """Two images of one plane, or taken from one place.

    Attributes:
        name: of the pair.
        path0: of image 0.
        path1: of image 1.
        homography: (3, 3) float64, pixels of image 0 to pixels of image 1.
    """

    name: str
    path0: Path
    path1: Path
    homography: NDArray[np.float64]

    @property
    def truth(self) -> NDArray[np.float64]:
        """The homography; see `ImagePair`."""
        return self.homography.ravel()

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read both images; see `ImagePair`."""
        return read_image(self.path0), read_image(self.path1)

    def resized(self, to0: NDArray[np.float64], to1: NDArray[np.float64]) -> PlanarPair:
        """Give the pair after a resize; see `ImagePair`."""
        return replace(self, homography=to1 @ self.homography @ np.linalg.inv(to0))

    def errors_px(self, found: Correspondences) -> NDArray[np.float64]:
        """Give the distances in image 1 to where the homography takes the point of image 0."""
        true_points1 = apply_homography(found.points0, self.homography)
        return np.linalg.norm(true_points1 - found.points1, axis=1)


def read_planar_pairs(directory: Path) -> list[PlanarPair]:
    """Read sequences in the layout of HPatches.

    Each folder holds 1.jpg (or .png, .ppm), 2.jpg ..., and H_1_N: 3 x 3, pixels of image 1 to
    pixels of image N.

    Raises:
        BenchmarkDataError: a homography is wrong, an image is missing, or there are no pairs.
    """
    pairs = []
    for path in sorted(directory.glob('*/H_1_*')):
        if re.fullmatch(r'H_1_\d+', path.name):
            numbers = ('1', path.name.removeprefix('H_1_'))
            path0, path1 = (_find_image(path.parent, number) for number in numbers)
            name = f'{path.parent.name} {path0.name} {path1.name}'
            pairs.append(PlanarPair(name, path0, path1, _read_homography(path)))
    if not pairs:
        raise BenchmarkDataError(
            f'No pairs in {directory / "*" / "H_1_*"}; check the path and the layout.'
        )
    return pairs


def _find_image(folder: Path, number: str) -> Path:
    for suffix in _IMAGE_SUFFIXES:
        path = folder / f'{number}{suffix}'
        if path.is_file():
            return path
    raise BenchmarkDataError(
        f'{folder}: no image {number} with {", ".join(_IMAGE_SUFFIXES)}, wanted by its H_1_* '
        'files; bring the image or remove the file.'
    )


def _read_homography(path: Path) -> NDArray[np.float64]:
    try:
        matrix = np.array(path.read_text().split(), dtype=np.float64).reshape(3, 3)
    except ValueError:
        matrix = np.zeros((3, 3))
    if not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        raise BenchmarkDataError(
            f'{path}: wanted 9 finite numbers of an invertible 3 x 3 matrix; correct the file.'
        )
    return matrix


def hash_pairs(pairs: Sequence[ImagePair]) -> str:
    """Return a hash of the names, the image files and the truth of pairs.

    Raises:
        OSError: an image cannot be read.
    """
    paths = {path for pair in pairs for path in (pair.path0, pair.path1)}
    files = {path: hash_bytes([path.read_bytes()]).encode() for path in paths}
    return hash_bytes(
        part
        for pair in pairs
        for part in (
            pair.name.encode(),
            files[pair.path0],
            files[pair.path1],
            pair.truth.astype('<f8').tobytes(),
        )
    )


def resize_for_matching(
    image: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], Resizing]:
    """Bring an image to the area at which all matchers work."""
    resizing = Resizing.fit((image.shape[1], image.shape[0]), NOMINAL_AREA_PX, 1)
    return resizing.apply(image), resizing
