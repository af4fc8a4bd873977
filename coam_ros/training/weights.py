"""Weights from files of others: read without trusting their pickle, loaded without a gap."""

from __future__ import annotations

import argparse
from pathlib import Path
import pickle
import re
from typing import Any

import torch
from torch import nn

# What a file may hold beside tensors and plain containers: command lines, kept with a checkpoint.
_HARMLESS_CLASSES = [argparse.Namespace]
_MAX_NAMES_SHOWN = 4


def read_torch_file(path: Path) -> Any:  # noqa: ANN401  (whatever was saved)
    """Read a file of `torch.save` without running code that its pickle may hold.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, no such file, or holds objects of other classes.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS_CLASSES):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        # The message of torch goes on with ways to load the file all the same: not ours.
        unsafe = re.search(r'(?:GLOBAL|Unsupported class) (\S+)', str(error))
        if unsafe is None:
            raise ValueError(_damaged(path)) from error
        raise ValueError(
            f'{path} was refused and nothing in it was run: it holds {unsafe[1]}, wanted tensors, '
            'plain containers and argparse.Namespace. If you trust its author, let them save the '
            'state dict alone.'
        ) from error
    except (EOFError, KeyError, RuntimeError) as error:
        raise ValueError(_damaged(path)) from error


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


def _damaged(path: Path) -> str:
    return (
        f'{path} ({path.stat().st_size} bytes) is damaged or was not written by torch.save. '
        'Copy or download it again.'
    )
