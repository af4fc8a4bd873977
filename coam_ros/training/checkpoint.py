"""Checkpoints of a training: written aside and renamed, and whole: with all that made them."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib
import io
from pathlib import Path
import platform
import subprocess
from typing import Any

from coam_ros.inference import default_model_directory
from coam_ros.inference.files import write_aside
from coam_ros.training.config_file import differences, to_values
from coam_ros.training.data import SourceConfig
from coam_ros.training.data.reading import files_below
from coam_ros.training.network import CoamNetwork
from coam_ros.training.weights import as_state_dict, load_strictly, read_torch_file
import cv2
import numpy as np
import torch

DEFAULT_WEIGHTS = 'weights.pt'
# Fields of a network that make no other weights, with a value that stands for all.
_NO_WEIGHTS = {'encoder_weights': None, 'uses_coattention': True, 'distinctiveness_exponent': 1.0}
_MAX_SHOWN = 12
_REFINER = 'refiner.'


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a file of `torch.save`; a kill or a full disk leaves the former one.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_aside(path, buffer.getbuffer())


def read_checkpoint(
    path: Path, network: dict[str, Any], ignored: Iterable[str] = ()
) -> dict[str, Any]:
    """Read a checkpoint of `coam train`.

    Args:
        path: of the file.
        network: config of the network that is wanted, as plain values.
        ignored: fields of it that may differ.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, no checkpoint of a training, or of another network.
    """
    content = read_torch_file(path)
    if not isinstance(content, dict) or not {'average', 'config'} <= content.keys():
        raise ValueError(
            f'{path} is no checkpoint of `coam train`, wanted the entries average and config; '
            'give the path of a checkpoint.pt or best.pt.'
        )
    same = {**_NO_WEIGHTS, **dict.fromkeys(ignored)}
    there, wanted = ({**x, **same} for x in (content['config']['network'], network))
    lines = differences(there, wanted, 'network')
    if lines:
        raise ValueError(
            f'{path} is a checkpoint of another network:\n'
            + '\n'.join(f'  {line}' for line in lines[:_MAX_SHOWN])
            + '\n(checkpoint -> this config). Train in another folder (out=...), or with the '
            'network of the checkpoint.'
        )
    return content


def load_initial_weights(network: CoamNetwork, init: str) -> None:
    """Fill a network with the weights that a training starts from.

    Args:
        network: to fill.
        init: path of a checkpoint, whose average is taken, or of weights alone; `default` names
            those that come with the package. A refiner is left out where the network has none,
            and begins anew where the checkpoint has none.

    Raises:
        OSError: the file is not there or cannot be read.
        ValueError: it holds no weights of such a network.
    """
    path = default_model_directory() / DEFAULT_WEIGHTS if init == 'default' else Path(init)
    content = read_torch_file(path)
    if isinstance(content, dict) and 'average' in content:
        content = read_checkpoint(path, to_values(network.config), ['has_refiner'])['average']
    weights = as_state_dict(content, path)
    own = {name: x for name, x in network.state_dict().items() if name.startswith(_REFINER)}
    if own.keys().isdisjoint(weights):
        weights = {name: x for name, x in weights.items() if not name.startswith(_REFINER)} | own
    load_strictly(network, weights, path)


def provenance(sources: Iterable[SourceConfig], out: Path) -> dict[str, Any]:
    """Say what made a checkpoint, beside its config: code, libraries and data.

    Args:
        sources: of the training pairs.
        out: folder of the training, which is no data where it lies among them.
    """
    return {
        'git_commit': _git_commit(),
        'data_hash': hash_names_and_sizes((Path(s.path) for s in sources if s.path), out),
        'versions': {
            'python': platform.python_version(),
            'torch': str(torch.__version__),
            'numpy': np.__version__,
            'opencv': cv2.__version__,
        },
    }


def hash_names_and_sizes(paths: Iterable[Path], without: Path | None = None) -> str:
    """Hash names and sizes of files, and of all files in folders; their content is not read.

    Args:
        paths: of files and folders.
        without: folder whose files do not count where it lies in one of these.
    """
    digest = hashlib.sha256()
    left_out = None if without is None else without.resolve()
    for root in paths:
        is_around = left_out is not None and root.resolve() in left_out.parents
        for path in [root] if root.is_file() else files_below(root):
            is_left_out = is_around and left_out in path.resolve().parents
            if path.is_file() and not is_left_out:
                digest.update(f'{path.relative_to(root)} {path.stat().st_size}\n'.encode())
    return digest.hexdigest()[:16]


def _git_commit() -> str | None:
    """Commit of the checkout that this code is run from, `+` where it is changed; None outside."""
    command = ['git', '-C', str(Path(__file__).parent), 'describe', '--always', '--abbrev=40']
    try:
        child = subprocess.run(
            [*command, '--dirty=+', '--exclude=*'], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return child.stdout.strip() or None
