"""RGB-D recordings in the layout of the TUM data set, as keyframes.

DIR/rgb.txt, depth.txt     stamp and file a line; depth.txt only where there is depth
DIR/groundtruth.txt        stamp tx ty tz qx qy qz qw a line: T_world_camera
DIR/rgb/*.png, depth/*.png images; 16-bit depth registered to them, 5,000 counts a metre
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math
from pathlib import Path
from typing import TypeVar

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import make_transform, rotation_from_quaternion_xyzw
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.image_header import read_image_header
from coam_ros.mapping.importers.text import read_lines
from coam_ros.mapping.keyframe import Keyframe
import numpy as np
from numpy.typing import NDArray

_DEPTH_SCALE_M = 1 / 5000
# The recorder's own association script takes neighbours up to this far apart.
_MAX_DELAY_S = 0.02
# fx fy cx cy and k1 k2 p1 p2 k3 of the colour cameras, from the data set's page on file formats.
_CALIBRATIONS = {
    'freiburg1': (
        (517.306408, 516.469215, 318.643040, 255.313989),
        (0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    ),
    'freiburg2': (
        (520.908620, 521.007327, 325.141442, 249.701764),
        (0.231222, -0.784899, -0.003257, -0.000105, 0.917205),
    ),
    # Recorded without distortion.
    'freiburg3': ((535.433105, 539.212524, 320.106653, 247.632132), ()),
}
_Row = TypeVar('_Row')


class TumSequence(Sequence[Keyframe]):
    """Frames of a directory, read when they are asked for.

    Attributes:
        names: of the frames' colour images.
    """

    def __init__(
        self, directory: Path, calibration: tuple[Sequence[float], Sequence[float]] | None
    ) -> None:
        """Put images, depth and poses together by the nearest time; reads no image.

        Args:
            directory: of the recording.
            calibration: (fx, fy, cx, cy) and distortion (k1, k2, p1, p2, k3) or (); None takes
                the data set's own by the name of the folder (freiburg1 and so on).

        Raises:
            FileNotFoundError: a list is missing.
            ValueError: a list cannot be read, or the calibration is not known.
        """
        self._directory = directory
        stamps, self.names = _read_files(directory / 'rgb.txt')
        # After the lists: a folder without them is no recording, whatever its name.
        self._intrinsics, self._distortion = calibration or _default_calibration(directory)
        depth_list = directory / 'depth.txt'
        depth_stamps, depth_names = _read_files(depth_list) if depth_list.is_file() else ([], [])
        pose_stamps, poses = _read_poses(directory / 'groundtruth.txt')
        self._stamps = stamps
        self._depth_names = [
            None if index is None else depth_names[index]
            for index in _nearest(stamps, depth_stamps)
        ]
        self._poses = [
            None if index is None else poses[index] for index in _nearest(stamps, pose_stamps)
        ]

    @property
    def posed(self) -> list[int]:
        """Places of the images that have a pose."""
        return [index for index, pose in enumerate(self._poses) if pose is not None]

    def __len__(self) -> int:
        """Return the number of colour images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Keyframe:  # type: ignore[override]
        """Read a frame.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file is damaged, or the frame has no pose.
        """
        pose, depth_name = self._poses[index], self._depth_names[index]
        if pose is None:
            raise ValueError(f'no pose within {_MAX_DELAY_S} s in groundtruth.txt')
        path = self._directory / self.names[index]
        image = path.read_bytes()
        depth = None if depth_name is None else (self._directory / depth_name).read_bytes()
        fx, fy, cx, cy = self._intrinsics
        try:
            header = read_image_header(image)
            return Keyframe(
                id=index,
                stamp_s=self._stamps[index],
                T_map_camera=pose,
                camera=PinholeCamera(
                    header.width, header.height, fx, fy, cx, cy, tuple(self._distortion)
                ),
                image=image,
                depth=depth,
                depth_scale_m=_DEPTH_SCALE_M,
            )
        except MapFormatError as error:
            raise ValueError(f'{path} (depth: {depth_name}): {error}') from error


def _default_calibration(directory: Path) -> tuple[Sequence[float], Sequence[float]]:
    # The folder may be given as `.`, or by another name.
    names = f'{directory.name} {directory.resolve().name}'
    for name, calibration in _CALIBRATIONS.items():
        if name in names or f'fr{name[-1]}' in names:
            return calibration
    raise ValueError(
        f'No calibration for {directory}: the name of the folder holds none of '
        f'{", ".join(_CALIBRATIONS)}; give the calibration of the recording '
        '(`--intrinsics` of `coam map build tum`).'
    )


def _read_rows(path: Path, wanted: str, parse: Callable[[list[str]], _Row]) -> list[_Row]:
    """Read what the lines of a list say; errors name the line."""
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f'No {path}, wanted {wanted}; a recording in the TUM layout has it.'
        ) from None
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split('#')[0].split()
        if not words:
            continue
        try:
            rows.append(parse(words))
        except ValueError as error:
            raise ValueError(
                f'{path}, line {number}: got {line!r}, wanted {wanted}; correct it.'
            ) from error
    return rows


def _read_files(path: Path) -> tuple[list[float], list[str]]:
    rows = _read_rows(path, 'a stamp and a file a line', _parse_file)
    return [stamp for stamp, _ in rows], [name for _, name in rows]


def _parse_file(words: list[str]) -> tuple[float, str]:
    stamp, name = words
    return _finite(stamp), name


def _read_poses(path: Path) -> tuple[list[float], list[NDArray[np.float64]]]:
    wanted = 'stamp tx ty tz qx qy qz qw a line, all finite, the quaternion not zero'
    rows = _read_rows(path, wanted, _parse_pose)
    return [stamp for stamp, _ in rows], [pose for _, pose in rows]


def _parse_pose(words: list[str]) -> tuple[float, NDArray[np.float64]]:
    stamp, x, y, z, *quaternion_xyzw = map(_finite, words)
    return stamp, make_transform(rotation_from_quaternion_xyzw(quaternion_xyzw), (x, y, z))


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f'{word} is not finite')
    return number


def _nearest(stamps: Sequence[float], others: Sequence[float]) -> list[int | None]:
    """Find for each stamp the nearest of others; None where that is too far away."""
    if not others:
        return [None] * len(stamps)
    order = np.argsort(others)
    ordered = np.asarray(others)[order]
    after = np.clip(np.searchsorted(ordered, stamps), 1, max(len(ordered) - 1, 1))
    after = np.minimum(after, len(ordered) - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(stamps - ordered[before]) <= np.abs(stamps - ordered[after])
    nearest = np.where(is_before, before, after)
    delays = np.abs(stamps - ordered[nearest])
    return [
        int(order[index]) if delay <= _MAX_DELAY_S else None
        for index, delay in zip(nearest, delays, strict=True)
    ]
