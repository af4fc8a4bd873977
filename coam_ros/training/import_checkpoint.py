"""`coam import-checkpoint`: a checkpoint of the paper's authors becomes one of ours.

Reads what https://github.com/hyenal/coam publishes (resnet50 or efficientnet-b1) without trusting
its pickle and writes OUT/checkpoint.pt, as the `init` of `coam train` and for `coam bench`.

Example:
  coam import-checkpoint resnet50.pth --out runs/paper_resnet50
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from coam_ros.training.checkpoint import save_checkpoint
from coam_ros.training.config import load_config
from coam_ros.training.config_file import to_values
from coam_ros.training.network import CoamNetwork
from coam_ros.training.weights import as_state_dict, load_strictly, read_torch_file
import torch

_ENCODER = 'features.encoder.'
# The first layer of an encoder tells the two networks apart: the names of our configs.
_FIRST_LAYERS = {
    f'{_ENCODER}conv1.weight': 'paper_resnet50',
    f'{_ENCODER}_conv_stem.weight': 'paper_efficientnet_b1',
}
# Their names of everything else, and ours.
_PREFIXES = {
    'features.decoder.': 'decoder.',
    'features.segmentation_head.0.': 'descriptor_head.',
    'regress_conf.': 'distinctiveness_head.',
    'binary_class.': 'visibility_head.',
    'fp1L.': 'decoder.attention.32.query.',
    'fp2L.': 'decoder.attention.32.key.',
    'fp1S.': 'decoder.attention.16.query.',
    'fp2S.': 'decoder.attention.16.key.',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument('file', metavar='FILE', type=Path, help='checkpoint of the authors')
    parser.add_argument('--out', type=Path, required=True, help='folder for checkpoint.pt')


def run(args: argparse.Namespace) -> int:
    """Import; nothing is written unless every entry found its place."""
    path = args.out / 'checkpoint.pt'
    if path.exists():
        raise FileExistsError(f'{path} exists already; name another folder with --out.')
    name, network = read_published(args.file)
    args.out.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, _checkpoint(network))
    print(f'{path}: {name} of {args.file}')
    return 0


def read_published(path: Path) -> tuple[str, CoamNetwork]:
    """Read a checkpoint of the authors.

    Returns:
        The name of its config, and the network with these weights, in evaluation mode.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, holds objects that are not harmless, or other networks.
    """
    published = _find_state(read_torch_file(path), path)
    name = next((n for first, n in _FIRST_LAYERS.items() if first in published), None)
    if name is None:
        raise ValueError(
            f'{path} holds neither network of the paper: its entries are such as '
            f'{sorted(published)[:3]}, wanted one of {list(_FIRST_LAYERS)}.'
        )
    network = CoamNetwork(load_config(name, leaves_unset=True).network).eval()
    load_strictly(network, _rename(published, network), source=path)
    return name, network


def _find_state(content: Any, path: Path) -> dict[str, torch.Tensor]:  # noqa: ANN401
    if not isinstance(content, dict) or 'state_dict' not in content:
        found = list(content)[:5] if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f'{path} holds {found}, wanted an entry state_dict, as in a checkpoint of the authors.'
        )
    return as_state_dict(content['state_dict'], path)


def _rename(published: dict[str, torch.Tensor], network: CoamNetwork) -> dict[str, torch.Tensor]:
    """Give every entry our name; one that has none keeps its own and is refused on loading."""
    encoder = {k.removeprefix(_ENCODER): x for k, x in published.items() if _is_encoder(k)}
    renamed = {f'encoder.{k}': x for k, x in network.encoder.rename(encoder).items()}
    for name, value in published.items():
        if not _is_encoder(name):
            prefix = next((p for p in _PREFIXES if name.startswith(p)), '')
            renamed[_PREFIXES.get(prefix, '') + name.removeprefix(prefix)] = value
    return renamed


def _is_encoder(name: str) -> bool:
    return name.startswith(_ENCODER)


def _checkpoint(network: CoamNetwork) -> dict[str, Any]:
    """Return what a finished training would have left, but for the state of its optimiser."""
    state = network.state_dict()
    return {
        'network': state,
        'average': state,
        'config': {'network': to_values(network.config)},
        'step': 0,
    }
