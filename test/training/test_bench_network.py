"""A checkpoint under `coam bench`: PyTorch in a process of its own, with parts switched off."""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

from coam_ros.evaluation.matchers.choice import add_matcher_arguments, chosen_matchers
from coam_ros.evaluation.matchers.matcher import NETWORK_WORKER, PeerMatcher
from coam_ros.inference import default_model_directory
import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.training
SHIFT = np.array([-16.0, 8.0])


@pytest.fixture(scope='module')
def images() -> tuple[np.ndarray, np.ndarray]:
    """Two cuttings of one texture; their sizes are no multiples of 32."""
    rng = np.random.default_rng(0)
    texture = sum(
        cv2.resize(rng.uniform(0, 85, (5 * n, 6 * n, 3)).astype(np.float32), (400, 330))
        for n in (4, 8, 16)
    ).astype(np.uint8)
    return texture[20:300, 20:360], texture[12:292, 36:376]


def match(images, *parts: str):
    weights = default_model_directory() / 'weights.pt'
    python, words = Path(sys.executable), [str(weights), *parts]
    matcher = PeerMatcher('ours', 1, python=python, worker=NETWORK_WORKER, words=words)
    found = matcher.match(*images)
    matcher.close()
    return found, matcher.model_id


def test_network_and_its_parts_match_a_shifted_texture(images):
    whole, model_id = match(images)
    errors = np.linalg.norm(whole.points1 - whole.points0 - SHIFT, axis=1)
    assert len(whole) > 100
    # Aligned, as what an engine finds.
    assert np.mean(errors < 1) > 0.9
    assert 'without' not in model_id
    without, model_id = match(images, 'coattention', 'distinctiveness')
    assert model_id.startswith('weights.pt')
    assert 'without coattention without distinctiveness' in model_id
    # As the command line asks for it.
    parser = argparse.ArgumentParser()
    add_matcher_arguments(parser)
    words = ['--matcher', 'ours-no-coattention', '--threads', '1']
    (choice,) = chosen_matchers(parser.parse_args(words))
    matcher = choice.make()
    assert ' without coattention, torch ' in matcher.model_id
    alone = matcher.match(*images)
    matcher.close()
    # Alignment leaves both near 1; what the network thinks of them differs all the same.
    assert not np.allclose(alone.scores[:100], whole.scores[:100], atol=1e-5)
    # Every block takes part, not the most distinctive ones alone.
    assert len(without) > 1.2 * len(whole)
