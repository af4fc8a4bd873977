"""SIFT here and the matchers of others in their process: what they answer and how they fail."""

from __future__ import annotations

from pathlib import Path
import sys

from coam_ros.evaluation.matchers import MatcherError, PeerMatcher, SiftMatcher
import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# The real worker, with matchers that need no network.
WORKER = f"""
import os, sys
import numpy as np
sys.path.insert(0, {str(ROOT / 'benchmarks')!r})
import peer_worker

def make():
    print('a library that prints')
    def match(image0, image1):
        if image0[0, 0, 0] == 1:
            raise RuntimeError('no key points')
        if image0[0, 0, 0] == 2:
            print('out of memory', file=sys.stderr, flush=True)
            os._exit(9)
        corners = [[0, 0, image0.shape[1], image0.shape[0], 0.25], [1, 2, 3, 4, image1.max()]]
        return np.array(corners, np.float32)
    return match

def fail():
    raise OSError('no weights')

peer_worker.MATCHERS = {{'echo': ('numpy', make), 'broken': ('numpy', fail)}}
peer_worker.main()
"""


@pytest.fixture
def worker(tmp_path) -> Path:
    path = tmp_path / 'worker.py'
    path.write_text(WORKER)
    return path


@pytest.fixture
def peer(worker):
    matcher = PeerMatcher('echo', 1, python=Path(sys.executable), worker=worker)
    yield matcher
    matcher.close()


def image(first: int = 0, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    pixels = np.full((*size, 3), 7, np.uint8)
    pixels[0, 0, 0] = first
    return pixels


def test_peer_answers_best_first_with_what_it_saw(peer):
    assert peer.model_id == f'numpy {np.__version__}'
    for height in (30, 50):
        found = peer.match(image(size=(height, 40)), image())
        np.testing.assert_allclose(found.scores, [7, 0.25])
        np.testing.assert_allclose(found.points0, [(1, 2), (0, 0)])
        np.testing.assert_allclose(found.points1, [(3, 4), (40, height)])


def test_peer_that_raises_on_one_pair_answers_the_next(peer):
    with pytest.raises(MatcherError, match='echo failed: RuntimeError: no key points'):
        peer.match(image(1), image())
    assert len(peer.match(image(), image())) == 2


def test_peer_whose_process_dies_on_one_pair_answers_the_next(peer):
    with pytest.raises(MatcherError, match='echo ended with status 9: out of memory'):
        peer.match(image(2), image())
    assert len(peer.match(image(), image())) == 2


def test_peer_that_does_not_start_says_why(worker):
    with pytest.raises(MatcherError, match='broken ended with status 1: OSError: no weights'):
        PeerMatcher('broken', python=Path(sys.executable), worker=worker)


def test_peer_that_is_not_installed_says_how_to(tmp_path, worker):
    with pytest.raises(MatcherError, match=r'setup_peers\.sh'):
        PeerMatcher('xfeat', python=tmp_path / 'none', worker=worker)


def test_sift_finds_a_shift_to_a_tenth_of_a_pixel():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 255, (40, 50), np.uint8)
    texture = cv2.cvtColor(cv2.resize(cells, (400, 320)), cv2.COLOR_GRAY2RGB)
    found = SiftMatcher().match(texture[20:300, 20:360], texture[13:293, 31:371])
    assert len(found) > 50
    offsets = found.points1 - found.points0
    np.testing.assert_allclose(np.median(offsets, axis=0), (-11, 7), atol=0.1)
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() >= 0.2  # 1 - ratio of at most 0.8


def test_sift_finds_nothing_in_images_without_texture():
    assert len(SiftMatcher().match(image(), image())) == 0
