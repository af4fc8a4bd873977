"""Runs one of our networks in PyTorch from its checkpoint; `coam bench` talks to it over pipes.

network_worker.py CHECKPOINT [PART ...]     PART that is switched off: coattention,
                                            distinctiveness, alignment, view search

For networks that have no engine, which are those of the paper, and to measure what a part of a
trained network earns: all around the network is as for an engine. Speaks as peer_worker.py does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
import math
from pathlib import Path
import sys
from types import SimpleNamespace

from coam_ros.evaluation.provenance import hash_bytes
from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.inference.model import MIN_SCORE, RawMatches
from coam_ros.matching import CoamMatcher
from coam_ros.training.config_file import build
from coam_ros.training.decoders import View
from coam_ros.training.deployment import DeployedPairMatcher
from coam_ros.training.export import IMAGE_AREA_PX, NUM_MATCHES, SIZE_MULTIPLE
from coam_ros.training.network import CoamNetwork
from coam_ros.training.network_config import NetworkConfig
from coam_ros.training.weights import load_strictly, read_torch_file
import numpy as np
from peer_worker import Match, serve
import torch
from torch import nn

Features = dict[int, torch.Tensor]


class EvenDistinctiveness(nn.Module):
    """Finds every place as distinctive as any other."""

    def forward(self, decoded: torch.Tensor, raw_descriptors: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, H, W) logits of 0."""
        return torch.zeros_like(raw_descriptors[:, :1])


class NetworkModel:
    """What `CoamMatcher` asks of a `CoamModel`, of a network of the family with any strides."""

    def __init__(self, network: CoamNetwork, num_matches: int | None) -> None:
        """Take the network in evaluation mode.

        Args:
            network: to run.
            num_matches: blocks that it selects; None takes all that an image has.
        """
        self.input_size = None
        self._network = network
        self._num_matches = num_matches
        # What of a manifest a matcher reads, for a model that no folder holds.
        self.manifest = SimpleNamespace(
            size_multiple=SIZE_MULTIPLE, least_area_px=NUM_MATCHES * BLOCK_PX**2
        )

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> tuple[Features, None]:
        """Encode one image; see `CoamModel.encode`. There is no global descriptor."""
        features, _ = self._network.encode(torch.from_numpy(image).permute(2, 0, 1)[None].float())
        return features, None

    @torch.inference_mode()
    def match(
        self,
        query: Features,
        query_size: tuple[int, int],
        keyframes: Sequence[Features],
        keyframe_sizes: Sequence[tuple[int, int]],
    ) -> RawMatches:
        """Match one pair; see `CoamModel.match`."""
        (keyframe,), (keyframe_size,) = keyframes, keyframe_sizes
        stride = min(query)
        num_blocks = min(
            math.prod(features[stride].shape[-2:]) * stride**2 // BLOCK_PX**2
            for features in (query, keyframe)
        )
        # Without distinctiveness there is nothing to choose by: every block takes part.
        number = min(self._num_matches or num_blocks, num_blocks)
        views = (
            View(features, torch.tensor([size], dtype=torch.float32))
            for features, size in ((query, query_size), (keyframe, keyframe_size))
        )
        found = DeployedPairMatcher(self._network, number).match(*views)
        return RawMatches(*(column.numpy() for column in found))


def make_matcher(checkpoint: Path, parts: list[str]) -> Match:
    """Load a network, with parts of it, or of the matcher, switched off."""
    content = read_torch_file(checkpoint)
    config = build(NetworkConfig, content['config']['network'])
    network = CoamNetwork(replace(config, uses_coattention='coattention' not in parts))
    load_strictly(network, content['average'], checkpoint)
    is_even = 'distinctiveness' in parts
    if is_even:
        network.distinctiveness_head = EvenDistinctiveness()
    matcher = CoamMatcher(
        NetworkModel(network.eval(), None if is_even else NUM_MATCHES),
        IMAGE_AREA_PX,
        # The paper's score is no probability: all of its mutual neighbours count, and there is
        # nothing that alignment could weigh.
        MIN_SCORE if config.has_refiner else 0.0,
        aligns=config.has_refiner and 'alignment' not in parts,
        searches_views='view search' not in parts,
    )

    def match(image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        found = matcher.match(image0, image1)
        return np.column_stack([found.points0, found.points1, found.scores])

    return match


def main() -> None:
    """Serve the checkpoint that the command line names."""
    checkpoint, parts = Path(sys.argv[1]), sys.argv[2:]
    without = ''.join(f' without {part}' for part in parts)
    content = hash_bytes([checkpoint.read_bytes()])
    name = f'{checkpoint.name} {content}{without}, torch {torch.__version__}'
    serve(partial(make_matcher, checkpoint, parts), lambda: name)


if __name__ == '__main__':
    main()
