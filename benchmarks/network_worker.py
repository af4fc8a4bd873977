"""Runs one of our networks in PyTorch from its checkpoint; `coam bench` talks to it over pipes.

network_worker.py CHECKPOINT [PART ...]     PART that is switched off: coattention, distinctiveness

For networks that have no engine, which are those of the paper, and to measure what a part of a
trained network earns. Speaks as peer_worker.py does.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
import math
from pathlib import Path
import sys

from coam_ros.evaluation.provenance import hash_bytes
from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.inference.model import MIN_SCORE
from coam_ros.matching.preprocessing import Resizing
from coam_ros.training.config_file import build
from coam_ros.training.decoders import View
from coam_ros.training.deployment import DeployedPairMatcher
from coam_ros.training.network import CoamNetwork
from coam_ros.training.network_config import NetworkConfig
from coam_ros.training.weights import load_strictly, read_torch_file
import numpy as np
from peer_worker import Match, serve
import torch
from torch import nn

_SIZE_MULTIPLE = 32
_NUM_MATCHES = 2048


class EvenDistinctiveness(nn.Module):
    """Finds every place as distinctive as any other."""

    def forward(self, decoded: torch.Tensor, raw_descriptors: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, H, W) logits of 0."""
        return torch.zeros_like(raw_descriptors[:, :1])


def make_matcher(checkpoint: Path, parts: list[str]) -> Match:
    """Load a network, with parts of it switched off; score = as its refiner gives it."""
    content = read_torch_file(checkpoint)
    config = build(NetworkConfig, content['config']['network'])
    network = CoamNetwork(replace(config, uses_coattention='coattention' not in parts))
    load_strictly(network, content['average'], checkpoint)
    is_even = 'distinctiveness' in parts
    if is_even:
        network.distinctiveness_head = EvenDistinctiveness()
    network.eval()
    # The paper's score is no probability: all of its mutual neighbours count.
    min_score = MIN_SCORE if config.has_refiner else 0.0

    @torch.inference_mode()
    def match(image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        resizings = [pad(image) for image in (image0, image1)]
        view0, view1 = (
            encode(network, image, resizing)
            for image, resizing in zip((image0, image1), resizings, strict=True)
        )
        num_blocks = min(math.prod(resizing.input_size) // BLOCK_PX**2 for resizing in resizings)
        # Without distinctiveness there is nothing to choose by: every block takes part.
        number = num_blocks if is_even else min(_NUM_MATCHES, num_blocks)
        points0, points1, scores, *_ = DeployedPairMatcher(network, number).match(view0, view1)
        rows = torch.cat([points0[0], points1[0], scores[0][:, None]], dim=1)
        return rows[(rows[:, 4] > 0) & (rows[:, 4] >= min_score)].numpy()

    return match


def pad(image: np.ndarray) -> Resizing:
    """Give the sizes of an image that is padded, not resized: benchmarks have resized it."""
    height, width = image.shape[:2]
    return Resizing.fit((width, height), width * height, _SIZE_MULTIPLE)


def encode(network: CoamNetwork, image: np.ndarray, resizing: Resizing) -> View:
    """Encode an image, padded right and bottom."""
    padded = torch.from_numpy(resizing.apply(image))
    features, _ = network.encode(padded.permute(2, 0, 1)[None].float())
    return View(features, torch.tensor([resizing.resized_size], dtype=torch.float32))


def main() -> None:
    """Serve the checkpoint that the command line names."""
    checkpoint, parts = Path(sys.argv[1]), sys.argv[2:]
    without = ''.join(f' without {part}' for part in parts)
    content = hash_bytes([checkpoint.read_bytes()])
    name = f'{checkpoint.name} {content}{without}, torch {torch.__version__}'
    serve(partial(make_matcher, checkpoint, parts), lambda: name)


if __name__ == '__main__':
    main()
