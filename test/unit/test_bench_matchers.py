"""SIFT here and the matchers of others in their process: what they answer and how they fail."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
import shutil
import sys

import coam_ros
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.matchers.choice import (
    add_matcher_arguments,
    chosen_matchers,
    load_retrieval,
)
from coam_ros.evaluation.matchers.matcher import (
    MatcherError,
    NETWORK_WORKER,
    OPENCV,
    OpenCvMatcher,
    PEER_WORKER,
    PeerMatcher,
)
from coam_ros.geometry.image_views import apply_homography, resize_view
from coam_ros.inference import default_model_directory
from coam_ros.inference.manifest import Manifest
import cv2
import numpy as np
import pytest
from skimage import data

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
        num_threads = int(os.environ['OMP_NUM_THREADS'])
        size0, size1 = image0.shape[1::-1], image1.shape[1::-1]
        return np.array([[0, 0, *size0, 0.25], [num_threads, 2, *size1, image1.max()]])
    return match

def fail():
    raise OSError('no weights')

two = dict.fromkeys(('echo', 'again'), ('numpy', make))
peer_worker.MATCHERS = two | {{'broken': ('numpy', fail)}}
peer_worker.main()
"""


@pytest.fixture
def worker(tmp_path) -> Path:
    path = tmp_path / 'worker.py'
    path.write_text(WORKER)
    return path


@pytest.fixture
def peer(worker, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    matcher = PeerMatcher('echo', 3, python=Path(sys.executable), worker=worker)
    yield matcher
    matcher.close()


def image(first: int = 0, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    pixels = np.full((*size, 3), 7, np.uint8)
    pixels[0, 0, 0] = first
    return pixels


def test_peer_answers_best_first_with_what_it_saw(peer):
    assert peer.model_id == f'echo of numpy {np.__version__}'
    for height in (30, 50):
        found = peer.match(image(size=(height, 40)), image(size=(20, 60)))
        np.testing.assert_allclose(found.scores, [7, 0.25])
        # It has the threads that it was given, whatever the shell says.
        np.testing.assert_allclose(found.points0, [(3, 2), (0, 0)])
        np.testing.assert_allclose(found.points1, [(60, 20), (40, height)])


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


@pytest.mark.parametrize(('name', 'median_px'), [('sift', 0.1), ('orb', 0.5)])
def test_opencv_finds_a_shift(name, median_px):
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 255, (40, 50), np.uint8)
    texture = cv2.cvtColor(cv2.resize(cells, (400, 320)), cv2.COLOR_GRAY2RGB)
    found = OpenCvMatcher(name).match(texture[20:300, 20:360], texture[13:293, 31:371])
    assert len(found) > 500
    offsets = found.points1 - found.points0
    np.testing.assert_allclose(np.median(offsets, axis=0), (-11, 7), atol=median_px)
    assert (np.diff(found.scores) <= 0).all()
    assert 0.2 <= found.scores.min() < 0.25  # 1 - ratio of at most 0.8
    if name == 'orb':
        # Distances are numbers of the 256 bits.
        fractions = np.outer(1 - found.scores.astype(np.float64), np.arange(1, 257))
        assert abs(fractions - np.rint(fractions)).min(axis=1).max() < 1e-4


@pytest.mark.parametrize('name', OPENCV)
def test_a_point_that_looks_like_two_of_the_other_image_goes_with_one_of_them(name):
    cells = np.random.default_rng(0).integers(0, 255, (40, 25), np.uint8)
    texture = cv2.cvtColor(cv2.resize(cells, (200, 320)), cv2.COLOR_GRAY2RGB)
    found = OpenCvMatcher(name).match(np.hstack([texture, texture]), texture)
    matches = np.unique(np.column_stack([found.points0, found.points1]), axis=0)
    assert len(matches) > 200
    # SIFT has several directions at some places, so a few points are two.
    assert len(np.unique(matches[:, 2:], axis=0)) > 0.9 * len(matches)


def test_sift_has_its_points_where_they_are_in_an_image_twice_as_large():
    photo = cv2.resize(data.astronaut(), (400, 400), interpolation=cv2.INTER_AREA)
    large = cv2.resize(photo, (800, 800), interpolation=cv2.INTER_CUBIC)
    found = OpenCvMatcher('sift').match(photo, large)
    offsets = found.points1 - apply_homography(found.points0, resize_view(2.0))
    assert len(offsets) > 300
    np.testing.assert_allclose(np.median(offsets, axis=0), 0, atol=0.05)


@pytest.mark.parametrize('name', OPENCV)
def test_opencv_finds_nothing_in_images_without_texture(name):
    assert len(OpenCvMatcher(name).match(image(), image())) == 0


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_matcher_arguments(parser)
    return parser.parse_args(words)


def test_all_are_those_that_need_no_more_than_a_name():
    names = [choice.name for choice in chosen_matchers(arguments('--matcher', 'all'))]
    assert names == ['ours', 'sift', 'orb', 'xfeat', 'aliked-lightglue', 'disk-lightglue']


def test_every_model_and_every_part_of_ours_is_a_matcher_of_its_own():
    words = ['--matcher', 'ours', '--matcher', 'ours-no-coattention']
    args = arguments(*words, '--model', 'a', '--model', 'b.pt')
    assert [choice.name for choice in chosen_matchers(args)] == [
        'ours a',
        'ours b.pt',
        'ours-no-coattention a',
        'ours-no-coattention b.pt',
    ]


def test_what_is_left_out_of_ours_makes_other_matches_and_a_name_of_its_own(tmp_path):
    ids, hashes, sizes = [], set(), []
    photo = data.astronaut()
    for words, searches_views in (([], True), ([], False), (['--network-alone'], True)):
        args = arguments(*words, '--cache', str(tmp_path))
        (choice,) = chosen_matchers(args, searches_views=searches_views)
        matcher = choice.open(args)
        ids.append(matcher.model_id.partition(' without ')[2])
        hashes.add(matcher.content_hash)
        sizes.append(len(matcher.match(photo, np.roll(photo, 8, axis=1))))
        matcher.close()
    assert ids == ['', 'view search', 'alignment without view search']
    assert len(hashes) == 3
    # Alignment finds more than the network alone.
    assert sizes[0] == sizes[1] > sizes[2]


def test_matches_are_kept_no_longer_than_the_code_that_made_them():
    package = Path(coam_ros.__file__).parent
    ours = [
        package / name
        for name in ('geometry/image_views.py', 'matching/alignment.py', 'inference/model.py')
    ]
    made_by = {
        'ours': ours,
        'ours-no-coattention': [
            *ours,
            package / 'training/deployment.py',
            NETWORK_WORKER,
            PEER_WORKER,
        ],
        'sift': [package / 'evaluation/matchers/matcher.py'],
        'xfeat': [PEER_WORKER],
    }
    words = [word for name in made_by for word in ('--matcher', name)]
    for choice in chosen_matchers(arguments(*words)):
        for path in made_by[choice.name]:
            assert any(path == code or code in path.parents for code in choice.code), path


def test_each_backend_has_matches_and_a_name_of_its_own():
    pytest.importorskip('openvino', reason='OpenVINO is not here; ./run test brings it')
    hashes = set()
    for backend in ('onnxruntime', 'openvino'):
        args = arguments('--backend', backend)
        (choice,) = chosen_matchers(args)
        matcher = choice.open(args)
        hashes.add(matcher.content_hash)
        assert f' on {backend}' in matcher.model_id
        matcher.close()
    assert len(hashes) == 2


def test_threads_are_those_of_the_command_line(worker, tmp_path):
    args = arguments('--threads', '0')
    (choice,) = chosen_matchers(args)
    for load in (choice.make, lambda: load_retrieval(args)):
        with pytest.raises(ValueError, match='threads is 0'):
            load()
    # An interpreter that runs our worker, whichever it is told.
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{worker}" echo\n')
    python.chmod(0o755)
    words = ['--matcher', 'xfeat', '--peers', str(python), '--threads', '3']
    (choice,) = chosen_matchers(arguments(*words))
    matcher = choice.make()
    assert matcher.match(image(), image()).points0[0, 0] == 3
    matcher.close()


def test_the_first_model_folder_retrieves(tmp_path):
    words = [word for name in ('a.pt', 'b', 'c') for word in ('--model', str(tmp_path / name))]
    with pytest.raises(FileNotFoundError, match=str(tmp_path / 'b')):
        load_retrieval(arguments(*words))
    # A checkpoint has no global descriptors.
    args = arguments('--model', 'a.pt', '--backend', 'onnxruntime')
    assert load_retrieval(args).backend_name.startswith('onnxruntime')


def test_a_model_quantized_anew_does_not_keep_its_matches(tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(default_model_directory(), folder)
    manifest = Manifest.load(folder)
    ids, hashes = set(), set()
    for changed in (manifest, replace(manifest, pair_matcher_int8=None)):
        changed.save(folder)
        (choice,) = chosen_matchers(arguments('--model', str(folder), '--backend', 'onnxruntime'))
        matcher = choice.open(arguments())
        ids.add(matcher.model_id)
        hashes.add(matcher.content_hash)
        matcher.close()
    assert len(ids) == 1
    assert len(hashes) == 2


def test_matchers_of_one_package_do_not_share_their_matches(worker):
    hashes = set()
    for name in ('echo', 'again'):
        matcher = PeerMatcher(name, python=Path(sys.executable), worker=worker)
        hashes.add(CachedMatcher(matcher).content_hash)
        matcher.close()
    assert len(hashes) == 2


@pytest.mark.parametrize('word', ['surf', 'vismatch:', 'vismatch'])
def test_an_unknown_matcher_is_refused_with_those_that_are_known(word, capsys):
    with pytest.raises(SystemExit):
        arguments('--matcher', word)
    assert 'disk-lightglue' in capsys.readouterr().err


def test_a_model_of_vismatch_is_taken_as_it_is_named(tmp_path):
    (choice,) = chosen_matchers(
        arguments('--matcher', 'vismatch:roma', '--peers', str(tmp_path / 'none'))
    )
    assert choice.name == 'vismatch:roma'
    with pytest.raises(MatcherError, match=r'vismatch:roma is not installed'):
        choice.make()


def test_a_missing_checkpoint_is_named(tmp_path):
    words = ['--matcher', 'ours-no-coattention', '--model', str(tmp_path)]
    (choice,) = chosen_matchers(arguments(*words))
    with pytest.raises(FileNotFoundError, match=r'weights\.pt'):
        choice.make()
