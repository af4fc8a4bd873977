"""Small data sets with known geometry, and a matcher that knows it."""

from __future__ import annotations

from pathlib import Path

from coam_ros.evaluation.matchers.matcher import MatcherError
from coam_ros.matching import Correspondences
import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240
# Of a pair list, at the size of the images.
INTRINSICS = np.array([[260.0, 0, 159.5], [0, 262.0, 119.5], [0, 0, 1]])


def write_image(path: Path, seed: int) -> None:
    """Write noise, in which every patch differs from every other."""
    cells = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 10, WIDTH // 10, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(cells, (WIDTH, HEIGHT)))


def pair_line(
    name0: str,
    name1: str,
    T_1_0: np.ndarray,
    intrinsics0: np.ndarray = INTRINSICS,
    intrinsics1: np.ndarray | None = None,
) -> str:
    both = (intrinsics0, intrinsics0 if intrinsics1 is None else intrinsics1)
    numbers = [0, 0, *both[0].ravel(), *both[1].ravel(), *T_1_0.ravel()]
    return ' '.join([name0, name1, *(repr(float(n)) for n in numbers)]) + '\n'


def objects(values: list) -> np.ndarray:
    """Make an array of objects, as scene_info files keep lists."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def write_sequence(folder: Path, homographies: list[np.ndarray]) -> None:
    """Write a sequence in the layout of HPatches."""
    folder.mkdir(parents=True)
    write_image(folder / '1.png', 0)
    for number, homography in enumerate(homographies, start=2):
        write_image(folder / f'{number}.png', number)
        np.savetxt(folder / f'H_1_{number}', homography)


class KnownMatcher:
    """Answers with the matches that it was given, one after the other; None fails."""

    model_id = 'known'

    def __init__(self, answers: list[Correspondences | None]) -> None:
        self._answers = iter(answers)

    def match(self, image0: np.ndarray, image1: np.ndarray) -> Correspondences:
        answer = next(self._answers)
        if answer is None:
            raise MatcherError('known failed: asked to')
        return answer

    def close(self) -> None:
        pass


def correspondences(
    points0: np.ndarray, points1: np.ndarray, scores: np.ndarray | None = None
) -> Correspondences:
    scores = np.linspace(1, 0.5, len(points0)) if scores is None else scores
    columns = (points0, points1, scores)
    return Correspondences(*(np.asarray(column, np.float32) for column in columns))
