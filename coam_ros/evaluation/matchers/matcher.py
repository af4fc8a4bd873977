"""The matchers that are compared: ours, SIFT and ORB here, others in a process of their own.

`CoamMatcher` is a `Matcher` as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
from pathlib import Path
import subprocess
import tempfile
from typing import Protocol

from coam_ros.matching import Correspondences
import cv2
import numpy as np
from numpy.typing import NDArray

_ROOT = Path(__file__).parents[3]
PEER_PYTHON = _ROOT / '.venv-peers/bin/python'
PEER_WORKER = _ROOT / 'benchmarks/peer_worker.py'
# What benchmarks/peer_worker.py knows.
PEERS = ('xfeat', 'aliked-lightglue', 'disk-lightglue')
# Runs a checkpoint of our own networks in PyTorch.
NETWORK_WORKER = _ROOT / 'benchmarks/network_worker.py'
OPENCV = ('sift', 'orb')
_MAX_FEATURES = 4096
_RATIO = 0.8
# OpenCV's SIFT has all points too far right and down: it doubles the image about the centres of
# its pixels, and halves coordinates about the first one (measured on blobs, 4.6 and 5.0 alike).
# Its own remedy, enable_precise_upscale, is younger than the OpenCV of Ubuntu 24.04.
_SIFT_OFFSET_PX = 0.25


class MatcherError(ValueError):
    """A matcher is not there, or failed on a pair; the message says which and why."""


class Matcher(Protocol):
    """Finds the points of two images that show the same place.

    Attributes:
        model_id: what made the matches, for the report.
    """

    model_id: str

    def match(self, image0: NDArray[np.uint8], image1: NDArray[np.uint8]) -> Correspondences:
        """Match two images.

        Args:
            image0: (H, W, 3) uint8 RGB.
            image1: the same, of a size of its own.

        Returns:
            In pixels of the images as given, best first.

        Raises:
            MatcherError: it failed on this pair.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def no_correspondences() -> Correspondences:
    """Give the result of a pair in which nothing was found."""
    return Correspondences(*(np.empty(shape, np.float32) for shape in ((0, 2), (0, 2), 0)))


class OpenCvMatcher:
    """OpenCV's SIFT or ORB, 4096 features: ratio test at 0.8 and mutual nearest neighbours.

    The score is 1 - (distance of the nearest / distance of the second nearest).
    """

    def __init__(self, name: str) -> None:
        """Make the one of `OPENCV` that has this name."""
        self.model_id = f'opencv {cv2.__version__} {name}'
        is_sift = name == 'sift'
        self._features = (cv2.SIFT_create if is_sift else cv2.ORB_create)(nfeatures=_MAX_FEATURES)
        self._offset_px = _SIFT_OFFSET_PX if is_sift else 0.0
        self._nearest = cv2.BFMatcher(cv2.NORM_L2 if is_sift else cv2.NORM_HAMMING)

    def match(self, image0: NDArray[np.uint8], image1: NDArray[np.uint8]) -> Correspondences:
        """Match two images; see `Matcher`."""
        points0, descriptors0 = self._describe(image0)
        points1, descriptors1 = self._describe(image1)
        if min(len(points0), len(points1)) < 2:  # no second nearest
            return no_correspondences()
        back = {m.queryIdx: m.trainIdx for m in self._nearest.match(descriptors1, descriptors0)}
        matches = [
            (first.queryIdx, first.trainIdx, 1 - first.distance / max(second.distance, 1e-9))
            for first, second in self._nearest.knnMatch(descriptors0, descriptors1, k=2)
            if first.distance < _RATIO * second.distance and back[first.trainIdx] == first.queryIdx
        ]
        if not matches:
            return no_correspondences()
        index0, index1, scores = (np.array(column) for column in zip(*matches, strict=True))
        return _best_first(points0[index0], points1[index1], scores)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _describe(
        self, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        keypoints, descriptors = self._features.detectAndCompute(grey, None)
        points = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
        return points - np.float32(self._offset_px), descriptors


class PeerMatcher:
    """A matcher that runs in a process and, if of others, a Python environment of its own.

    A process that dies fails the pair at hand; the next pair starts another.

    Attributes:
        model_id: the package that made the matches, as its process names it.
    """

    def __init__(
        self,
        name: str,
        num_threads: int | None = None,
        *,
        python: Path = PEER_PYTHON,
        worker: Path = PEER_WORKER,
        words: Sequence[str] | None = None,
    ) -> None:
        """Start it.

        Args:
            name: for people; of `PEERS` or vismatch:MODEL for the worker of the peers.
            num_threads: CPU threads; None = what its library takes.
            python: interpreter of its environment.
            worker: program that it runs.
            words: what the program is told; None tells it the name.

        Raises:
            MatcherError: its environment is not there, or it does not start.
        """
        if not worker.is_file():
            raise MatcherError(
                f'Matcher {name} needs {worker}, which is not installed; run coam of a checkout.'
            )
        if not python.is_file():
            raise MatcherError(
                f'Matcher {name} is not installed: no {python}; run benchmarks/setup_peers.sh of '
                'the checkout.'
            )
        self.name = name
        self._command = [str(python), str(worker), *([name] if words is None else words)]
        threads = {'OMP_NUM_THREADS': str(num_threads)} if num_threads else {}
        self._environment = os.environ | threads
        self._start()

    def match(self, image0: NDArray[np.uint8], image1: NDArray[np.uint8]) -> Correspondences:
        """Match two images; see `Matcher`."""
        if self._process.poll() is not None:
            self._start()
        header = {'shapes': [image.shape for image in (image0, image1)]}
        try:
            self._process.stdin.write(json.dumps(header).encode() + b'\n')
            for image in (image0, image1):
                self._process.stdin.write(np.ascontiguousarray(image).tobytes())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error
        reply = self._read_header()
        if 'error' in reply:
            raise MatcherError(f'{self.name} failed: {reply["error"]}')
        num_bytes = reply['num_matches'] * 5 * 4
        data = self._process.stdout.read(num_bytes)
        if len(data) < num_bytes:
            raise self._died()
        rows = np.frombuffer(data, '<f4').reshape(-1, 5)
        return _best_first(rows[:, :2], rows[:, 2:4], rows[:, 4])

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()

    def _start(self) -> None:
        # What it says on standard error, for the message when it dies.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment,
        )
        self.model_id = self._read_header()['ready']

    def _read_header(self) -> dict[str, object]:
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return json.loads(line)

    def _died(self) -> MatcherError:
        self._process.communicate()
        self._errors.seek(0)
        said = self._errors.read().decode(errors='replace').strip().splitlines()
        self._errors.close()
        last = said[-1] if said else 'it said nothing'
        return MatcherError(f'{self.name} ended with status {self._process.returncode}: {last}')


def _best_first(
    points0: NDArray[np.float32], points1: NDArray[np.float32], scores: NDArray[np.floating]
) -> Correspondences:
    order = np.argsort(-scores, kind='stable')
    return Correspondences(points0[order], points1[order], scores[order].astype(np.float32))
