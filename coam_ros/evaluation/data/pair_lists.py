"""The lists in which people keep image pairs of known relative pose.

A folder holds one of these, looked for in this order:

views.txt, pairs.txt, images/       MegaDepth-1500 of glue-factory: name R t MODEL width height
                                    parameters a line (world in the camera), two names a line
pairs_calibrated.txt                glue-factory, ScanNet-1500 among others: name0 name1 K0 K1, and
                                    R t or T_1_0
*scene_info*/*.npz                  MegaDepth-1500 of LoFTR
test.npz, intrinsics.npz            ScanNet-1500 of LoFTR, images scene0707_00/color/15.jpg in the
                                    folder or in scannet_test_1500
pairs.txt                           SuperGlue: name0 name1 0 0 K0 K1 T_1_0
scannet_test_pairs_with_gt.txt      ScanNet-1500 of SuperGlue, the same
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.image_pairs import ImagePair, PosedPair, read_planar_pairs
from coam_ros.evaluation.data.lists import read_rows
from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.geometry.image_views import resize_view
from coam_ros.geometry.transforms import is_rigid, make_transform
from coam_ros.mapping.image_header import read_image_header
from coam_ros.mapping.importers.object_arrays import read_arrays
from coam_ros.mapping.importers.pair_list import read_pair_list
from coam_ros.mapping.importers.sfm_model import colmap_camera, HALF_PIXEL
import numpy as np
from numpy.typing import NDArray

_LAYOUTS = (
    'pairs.txt (SuperGlue), scannet_test_pairs_with_gt.txt (SuperGlue), views.txt and '
    'pairs.txt or pairs_calibrated.txt (glue-factory), *scene_info*/*.npz (MegaDepth-1500 of '
    'LoFTR) or test.npz and intrinsics.npz (ScanNet-1500 of LoFTR)'
)
_SUPERGLUE = ('pairs.txt', 'scannet_test_pairs_with_gt.txt')
_CALIBRATED = 'pairs_calibrated.txt'
_SCANNET_IMAGES = ('.', 'scannet_test_1500')
# The depth images are of this size, and LoFTR's K is theirs (it brings all images to it).
_SCANNET_K_SIZE = (640, 480)
# Rounded in the lists that people use.
_ROTATION_TOLERANCE = 1e-2
# From COLMAP's pixels to ours, in an intrinsic matrix.
_TO_CENTRE = np.array([[0, 0, -HALF_PIXEL], [0, 0, -HALF_PIXEL], [0, 0, 0]])


def has_pair_list(directory: Path) -> bool:
    """Tell whether a folder holds a list of pairs with poses."""
    names = ('views.txt', *_SUPERGLUE, _CALIBRATED, 'test.npz')
    return any((directory / name).is_file() for name in names) or bool(_scene_infos(directory))


def read_any_pairs(directory: Path) -> Sequence[ImagePair]:
    """Read the list of a folder, or its sequences in the layout of HPatches where it has none."""
    return read_pair_lists(directory) if has_pair_list(directory) else read_planar_pairs(directory)


def read_pair_lists(directory: Path) -> list[PosedPair]:
    """Read the list of a folder, and check that its images are there.

    Raises:
        FileNotFoundError: no list.
        BenchmarkDataError, PairListError: a line is wrong, an image is missing, or there are no
            pairs.
    """
    if (directory / 'views.txt').is_file():
        pairs = _read_views(directory)
    elif (directory / _CALIBRATED).is_file():
        pairs = _read_calibrated(directory)
    elif _scene_infos(directory):
        pairs = _read_scene_infos(directory)
    elif (directory / 'test.npz').is_file():
        pairs = _read_scannet(directory)
    else:
        found = next((name for name in _SUPERGLUE if (directory / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f'No pair list in {directory}, wanted one of {_LAYOUTS}; check the path.'
            )
        pairs = [
            _make_pair(directory, pair.names, pair.intrinsics, pair.T_1_0, pair.place)
            for pair in read_pair_list(directory / found)
        ]
    if not pairs:
        raise BenchmarkDataError(f'No pairs in the list of {directory}; bring the whole list.')
    return pairs


def _numbers(place: str, words: list[str], wanted: str, counts: tuple[int, ...]) -> NDArray:
    try:
        numbers = np.array(words, dtype=np.float64)
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) not in counts or not np.isfinite(numbers).all():
        raise BenchmarkDataError(
            f'{place}: got {" ".join(words)[:80]!r}, wanted {wanted}; correct the line.'
        )
    return numbers


def _read_calibrated(directory: Path) -> list[PosedPair]:
    pairs = []
    wanted = 'name0 name1 K0 K1, then R t or T_1_0'
    for place, words in read_rows(directory / _CALIBRATED, wanted):
        numbers = _numbers(place, words[2:], wanted, (30, 34))
        intrinsics, pose = tuple(numbers[:18].reshape(2, 3, 3)), numbers[18:]
        T_1_0 = (
            make_transform(pose[:9].reshape(3, 3), pose[9:])
            if len(pose) == 12
            else pose.reshape(4, 4)
        )
        pairs.append(_make_pair(directory, words[:2], intrinsics, T_1_0, place))
    return pairs


def _read_views(directory: Path) -> list[PosedPair]:
    views = {}
    wanted = 'name R t MODEL width height parameters'
    for place, words in read_rows(directory / 'views.txt', wanted):
        pose = _numbers(place, words[1:13], wanted, (12,))
        try:
            model, width, height, *params = words[13:]
            camera = colmap_camera(model, int(width), int(height), [float(p) for p in params])
        except ValueError as error:
            raise BenchmarkDataError(f'{place}: {error}; wanted {wanted}.') from error
        if camera.is_distorted:
            raise BenchmarkDataError(f'{place}: the camera has distortion; undistort the images.')
        views[words[0]] = camera.K, make_transform(pose[:9].reshape(3, 3), pose[9:])
    pairs = []
    for place, words in read_rows(directory / 'pairs.txt', 'two names of views.txt'):
        if len(words) < 2 or not set(words[:2]) <= views.keys():
            raise BenchmarkDataError(
                f'{place}: got {" ".join(words)!r}, wanted two names of views.txt.'
            )
        intrinsics, (T_0_world, T_1_world) = zip(*(views[n] for n in words[:2]), strict=True)
        T_1_0 = T_1_world @ np.linalg.inv(T_0_world)
        pairs.append(_make_pair(directory / 'images', words[:2], intrinsics, T_1_0, place))
    return pairs


def _scene_infos(directory: Path) -> list[Path]:
    return sorted(directory.glob('*scene_info*/*.npz'))


def _read_scene_infos(directory: Path) -> list[PosedPair]:
    pairs = []
    for path in _scene_infos(directory):
        try:
            info = read_arrays(path, ('image_paths', 'intrinsics', 'poses', 'pair_infos'))
            images, intrinsics, poses = (
                info[key].tolist() for key in ('image_paths', 'intrinsics', 'poses')
            )
            indices = [tuple(map(int, pair)) for pair, *_ in info['pair_infos']]
            cameras = [
                tuple(np.asarray(intrinsics[i], np.float64).reshape(3, 3) for i in pair)
                for pair in indices
            ]
            views = [
                tuple(np.asarray(poses[i], np.float64).reshape(4, 4) for i in pair)
                for pair in indices
            ]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise BenchmarkDataError(
                f'{path} cannot be read ({error}), wanted image_paths, intrinsics, poses and '
                'pair_infos as of LoFTR; bring the file again.'
            ) from error
        for pair, matrices, (T_0_world, T_1_world) in zip(indices, cameras, views, strict=True):
            names = [str(images[i]) for i in pair]
            T_1_0 = T_1_world @ np.linalg.inv(T_0_world)
            centred = tuple(K + _TO_CENTRE for K in matrices)
            pairs.append(_make_pair(directory, names, centred, T_1_0, str(path)))
    return pairs


def _read_scannet(directory: Path) -> list[PosedPair]:
    path = directory / 'test.npz'
    try:
        info = read_arrays(path, ('name', 'rel_pose'))
        names, poses = info['name'].astype(int), info['rel_pose'].astype(float).reshape(-1, 3, 4)
        scenes = [f'scene{scene:04d}_{part:02d}' for scene, part, *_ in names]
        intrinsics = read_arrays(directory / 'intrinsics.npz', scenes)
        cameras = [intrinsics[scene].astype(float).reshape(3, 3) for scene in scenes]
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise BenchmarkDataError(
            f'{path} or intrinsics.npz cannot be read ({error}), wanted name (N, 4) and rel_pose '
            '(N, 12), and K by scene, as of LoFTR; bring the files again.'
        ) from error
    images = next(
        (f for f in _SCANNET_IMAGES if (directory / f / scenes[0]).is_dir()), _SCANNET_IMAGES[0]
    )
    pairs = []
    for row, scene, K, pose in zip(names, scenes, cameras, poses, strict=True):
        files = [f'{scene}/color/{number}.jpg' for number in row[2:]]
        T_1_0 = make_transform(pose[:, :3], pose[:, 3])
        pair = _make_pair(directory / images, files, (K, K), T_1_0, str(path))
        pairs.append(pair.resized(_from_depth(pair.path0), _from_depth(pair.path1)))
    return pairs


def _from_depth(path: Path) -> NDArray[np.float64]:
    """Give (3, 3), pixels of a depth image to those of a colour image, which are larger there."""
    header = read_image_header(path.read_bytes())
    return resize_view(*np.divide((header.width, header.height), _SCANNET_K_SIZE))


def _make_pair(
    directory: Path,
    names: Sequence[str],
    intrinsics: tuple[NDArray[np.float64], NDArray[np.float64]],
    T_1_0: NDArray[np.float64],
    place: str,
) -> PosedPair:
    """Check what a list says of a pair.

    Args:
        directory: of the images.
        names: of both images, relative to it.
        intrinsics: (3, 3) of both images.
        T_1_0: (4, 4).
        place: in the list, for the message.

    Raises:
        BenchmarkDataError: the numbers describe no cameras, or an image is missing.
    """
    for K in intrinsics:
        try:
            PinholeCamera.from_K(K, 1, 1)
        except CalibrationError as error:
            raise BenchmarkDataError(f'{place}: K: {error}') from error
    if not is_rigid(T_1_0, _ROTATION_TOLERANCE):
        raise BenchmarkDataError(
            f'{place}: T_1_0 is {T_1_0.tolist()}, wanted a rigid transform; correct the line.'
        )
    paths = [directory / name for name in names]
    for image in paths:
        if not image.is_file():
            raise BenchmarkDataError(f'{place}: no image {image}; bring it or remove the line.')
    return PosedPair(' '.join(names), paths[0], paths[1], *intrinsics, T_1_0)
