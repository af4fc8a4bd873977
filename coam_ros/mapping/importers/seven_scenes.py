"""Posed RGB-D sequences in the layout of the 7-Scenes data set.

DIR/frame-000012.color.jpg (or .png)   image
DIR/frame-000012.depth.png             16-bit depth registered to it [mm]; 0, 65535 = none
DIR/frame-000012.pose.txt              T_world_camera, 4 x 4
DIR/intrinsics.txt                     K, 3 x 3, of the image
DIR/map.txt                            names of frames, one a line (any number of such lists)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import re

from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.geometry.transforms import is_rigid, make_transform
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.image_header import ImageHeader, read_image_header
from coam_ros.mapping.importers.text import read_lines
from coam_ros.mapping.keyframe import Keyframe
import numpy as np
from numpy.typing import NDArray

# The recordings were made at 30 Hz and carry no stamps.
_RATE_HZ = 30.0
# The poses come from a tracker in single precision: redkitchen deviates by up to 4e-4.
_ROTATION_TOLERANCE = 1e-2
_FRAME_NAME = re.compile(r'frame-(\d+)$')
_SUFFIXES = re.compile(r'\.(color\.(jpg|png)|depth\.png|pose\.txt)$')


class SevenScenesError(ValueError):
    """A sequence that cannot be read; the message names the file, and the line of a text."""


class SevenScenesSequence(Sequence[Keyframe]):
    """Frames of a directory, read when they are asked for.

    The world frame of the poses becomes the map frame. The id of a frame is the number in its
    name, its stamp that number at 30 Hz. Rotations are made exact (nearest rotation), since the
    data set's are rounded.

    Attributes:
        directory: of the frames.
        names: of the frames, in order, such as 'frame-000012'.
    """

    def __init__(
        self,
        directory: str | Path,
        list_file: str | Path | None = None,
        default_K: NDArray[np.float64] | None = None,  # noqa: N803 - K is a name of the field
    ) -> None:
        """Find the frames; reads no image.

        Args:
            directory: with the files of the frames.
            list_file: names of the frames to take, one a line; a relative path is looked for in
                `directory` first. None takes all frames, by name.
            default_K: (3, 3) of the images of a directory without intrinsics.txt.

        Raises:
            FileNotFoundError: no such directory or list.
            SevenScenesError: no frames, a bad list, bad intrinsics.
        """
        self.directory = Path(directory).expanduser()
        if not self.directory.is_dir():
            raise FileNotFoundError(
                f'No directory {self.directory}, wanted one in the 7-Scenes layout; check the path'
            )
        self.names = (
            _find_names(self.directory) if list_file is None else self._read_list(list_file)
        )
        intrinsics = self.directory / 'intrinsics.txt'
        if default_K is None or intrinsics.is_file():
            self._K = _read_intrinsics(intrinsics)
        else:
            self._K = default_K

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.names)

    def __getitem__(self, index: int) -> Keyframe:  # type: ignore[override]
        """Read a frame.

        Raises:
            SevenScenesError: a file is missing or damaged.
        """
        name = self.names[index]
        image_path = next(iter(_image_paths(self.directory, name)), None)
        if image_path is None:
            raise SevenScenesError(
                f'{self.directory} has no {name}.color.jpg or {name}.color.png any more'
            )
        depth_path = self.directory / f'{name}.depth.png'
        number = _number(name)
        image, header = _read_image(image_path)
        try:
            return Keyframe(
                id=number,
                stamp_s=number / _RATE_HZ,
                T_map_camera=_read_pose(self.directory / f'{name}.pose.txt'),
                camera=PinholeCamera.from_K(self._K, header.width, header.height),
                image=image,
                depth=_read_image(depth_path)[0] if depth_path.is_file() else None,
            )
        except MapFormatError as error:
            raise SevenScenesError(f'{self.directory / name}: {error}') from error

    def _read_list(self, list_file: str | Path) -> list[str]:
        path = self.directory / Path(list_file).expanduser()
        if not path.is_file():
            path = Path(list_file).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f'No list {list_file} in {self.directory} or in the current directory, wanted a '
                'text file with a frame name a line; check the path'
            )
        names: dict[int, str] = {}
        for number, line in enumerate(read_lines(path), start=1):
            name = _SUFFIXES.sub('', line.strip())
            if not name or name.startswith('#'):
                continue
            if not _FRAME_NAME.match(name):
                raise SevenScenesError(
                    f'{path}, line {number}: got {line.strip()!r}, wanted a frame name such as '
                    'frame-000012; correct the line'
                )
            if _number(name) in names:
                raise SevenScenesError(
                    f'{path}, line {number}: {name} is listed twice, wanted every frame once; '
                    'remove the line'
                )
            if not any(_image_paths(self.directory, name)):
                raise SevenScenesError(
                    f'{path}, line {number}: {self.directory} has no {name}.color.jpg or '
                    f'{name}.color.png; correct the line or bring the image'
                )
            names[_number(name)] = name
        if not names:
            raise SevenScenesError(
                f'{path} names no frames, wanted at least one, a name a line such as frame-000012'
            )
        return list(names.values())


def _number(name: str) -> int:
    return int(name.removeprefix('frame-'))


def _image_paths(directory: Path, name: str) -> list[Path]:
    paths = (directory / f'{name}.color.{extension}' for extension in ('jpg', 'png'))
    return [path for path in paths if path.is_file()]


def _find_names(directory: Path) -> list[str]:
    names = {
        name
        for path in directory.glob('frame-*.color.*')
        if _FRAME_NAME.match(name := _SUFFIXES.sub('', path.name))
    }
    if not names:
        raise SevenScenesError(
            f'{directory} holds no frames, wanted files such as frame-000000.color.jpg or '
            'frame-000000.color.png; give the directory that holds them (in the original data '
            'set, seq-01 and so on)'
        )
    numbers = [_number(name) for name in names]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise SevenScenesError(
            f'{directory} holds frame {twice} under two names, which differ in zeros before the '
            'number alone; wanted each number once. Rename one of them, or list the frames to take'
        )
    return sorted(names, key=_number)


def _read_image(path: Path) -> tuple[bytes, ImageHeader]:
    data = path.read_bytes()
    try:
        return data, read_image_header(data)
    except MapFormatError as error:
        raise SevenScenesError(f'{path}: {error}, or leave the frame out') from error


def _read_matrix(path: Path, wanted: str, num_columns: int) -> NDArray[np.float64]:
    """Read a text matrix of finite numbers; errors name the line."""
    try:
        lines = read_lines(path)
    except OSError as error:
        raise SevenScenesError(
            f'{path} cannot be read ({error.strerror}), wanted {wanted}; bring the '
            'file or leave the frame out'
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split('#')[0].replace(',', ' ').split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != num_columns or not np.isfinite(row).all():
            raise SevenScenesError(
                f'{path}, line {number}: got {line.strip()!r}, wanted {num_columns} finite '
                f'numbers ({wanted}); correct the line or leave the frame out'
            )
        rows.append(row)
    return np.array(rows).reshape(-1, num_columns)


def _read_intrinsics(path: Path) -> NDArray[np.float64]:
    wanted = (
        'the 3 x 3 matrix fx 0 cx / 0 fy cy / 0 0 1 of the colour images (of 7-Scenes as '
        'published, which has no such file: 525 0 320 / 0 525 240 / 0 0 1)'
    )
    K = _read_matrix(path, wanted, 3)
    try:
        PinholeCamera.from_K(K, 1, 1)
    except CalibrationError as error:
        raise SevenScenesError(f'{path}: {error}; wanted {wanted}; correct it') from error
    return K


def _read_pose(path: Path) -> NDArray[np.float64]:
    wanted = 'T_world_camera, 4 rows of 4'
    T_world_camera = _read_matrix(path, wanted, 4)
    if not is_rigid(T_world_camera, _ROTATION_TOLERANCE):
        raise SevenScenesError(
            f'{path}: got {T_world_camera.tolist()}, which is not a rigid transform; wanted '
            f'{wanted}, a rotation, last row 0 0 0 1; correct it or leave the frame out'
        )
    left, _, right = np.linalg.svd(T_world_camera[:3, :3])
    return make_transform(left @ right, T_world_camera[:3, 3])
