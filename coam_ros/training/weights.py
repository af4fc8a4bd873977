"""Weights from files of others: read without trusting their pickle, loaded without a gap."""

from __future__ import annotations

import argparse
from pathlib import Path
import pickle
import re
from typing import Any

import numpy as np
import torch
from torch import nn

# What a file may hold beside tensors and plain containers: command lines and NumPy's numbers,
# which are often kept with a checkpoint. None of them runs code when it is made.
_NUMPY_SCALAR = np.float64().__reduce__()[0]
_HARMLESS = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ('bool', 'int64', 'float32', 'float64')),
    # Its module was renamed in NumPy 2.
    (_NUMPY_SCALAR, 'numpy.core.multiarray.scalar'),
    (_NUMPY_SCALAR, 'numpy._core.multiarray.scalar'),
]
_MAX_NAMES_SHOWN = 4


def read_torch_file(path: Path) -> Any:  # noqa: ANN401  (whatever was saved)
    """Read a file of `torch.save` without running code that its pickle may hold.

    Raises:
        OSError: the file is not there or cannot be opened.
        ValueError: it is damaged, no such file, or holds objects of other classes.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'No weights: {path} is no file; give the best.pt of a training, the weights.pt of a '
            'model folder, or a published checkpoint.'
        )
    with path.open('rb') as stream, torch.serialization.safe_globals(_HARMLESS):
        try:
            return torch.load(stream, map_location='cpu', weights_only=True)
        except Exception as error:  # a damaged pickle may fail anywhere: tried with 3000 of them
            raise ValueError(_explain(path, error)) from error


def as_state_dict(content: Any, source: Path) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Return the content of a file when it is tensors by name.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(content, dict) and content:
        strange = [name for name, x in content.items() if not isinstance(x, torch.Tensor)]
        if not strange:
            return content
        found = f'entries that are no tensors: {", ".join(map(str, strange[:_MAX_NAMES_SHOWN]))}'
    else:
        found = f'{type(content).__name__} {str(content)[:40]!r}'
    raise ValueError(
        f'{source}: wanted a state dict, tensors by name, got {found}. Check that it is the right '
        'file.'
    )


def load_strictly(module: nn.Module, state: dict[str, torch.Tensor], source: Path) -> None:
    """Load a state dict whose names and shapes are exactly those of the module.

    Args:
        module: what to fill.
        state: tensors by name.
        source: where they come from, for the message.

    Raises:
        ValueError: names are missing or unknown, or shapes differ; they are named.
    """
    wanted = module.state_dict()
    # Batch normalisation did not count its batches before 2018, and nothing here reads the count.
    state = {k: x for k, x in wanted.items() if k.endswith('num_batches_tracked')} | state
    misshapen = [
        f'{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}'
        for name in wanted.keys() & state.keys()
        if state[name].shape != wanted[name].shape
    ]
    faults = [
        _list('missing', wanted.keys() - state.keys()),
        _list('unknown', state.keys() - wanted.keys()),
        _list('of another shape', misshapen),
    ]
    if any(faults):
        raise ValueError(
            f'{source} does not hold the weights of {type(module).__name__}: '
            f'{"; ".join(filter(None, faults))}. Check that it is the right file.'
        )
    module.load_state_dict(state, strict=True)


def _list(fault: str, names: Any) -> str:  # noqa: ANN401  (any collection of str)
    shown = sorted(names)[:_MAX_NAMES_SHOWN]
    rest = f' and {len(names) - len(shown)} more' if len(names) > len(shown) else ''
    return f'{fault}: {", ".join(shown)}{rest}' if names else ''


def _explain(path: Path, error: Exception) -> str:
    # The message of torch goes on with ways to load the file all the same: not ours.
    refused = re.search(r'GLOBAL (\S+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and refused is not None:
        return (
            f'{path} was refused and nothing in it was run: it holds {refused[1]}, wanted '
            'tensors, numbers, text, plain containers and argparse.Namespace. Ask its author for '
            'a file with the state dict alone.'
        )
    return (
        f'{path} ({path.stat().st_size} bytes) is damaged or was not written by torch.save. '
        'Copy or download it again.'
    )
