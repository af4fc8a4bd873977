"""The processes of one training: one, or those that `torchrun` starts.

What they share: the gradients are averaged at every step; batch normalisation takes the statistics
of each process's own pairs and keeps those of the first process; weights start equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import gc
import logging
import os
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process among those of the training.

    Attributes:
        rank: of this one; the first, 0, alone writes and prints.
        world_size: number of all.
        device: that this one computes on.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Give this process its indices of `count` that all have together."""
        return range(
            count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size
        )

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages the gradients of all processes."""
        if self.world_size == 1:
            return module
        # A loss need not use every head of the network.
        return DistributedDataParallel(module, find_unused_parameters=True)

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes."""
        if self.world_size > 1:
            values = values.to(self.device)
            distributed.all_reduce(values)
        return values.cpu()

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite contiguous tensors with those of the first process."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def broadcast_object(self, make: Callable[[], Any]) -> Any:  # noqa: ANN401  (whatever is made)
        """Return what the first process makes, in all; machines need not share a disk."""
        made = [make() if self.is_first else None]
        if self.world_size > 1:
            distributed.broadcast_object_list(made, device=self.device)
        return made[0]


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that `torchrun` started; alone where it did not.

    Args:
        device: auto, cpu or cuda.

    Raises:
        ValueError: a GPU is wanted and there is none.
    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            'device is cuda, but this PyTorch sees no GPU; install one with CUDA, or set '
            'device=cpu.'
        )
    chosen = torch.device(device)
    if device == 'cuda':
        chosen = torch.device(device, int(os.environ.get('LOCAL_RANK', '0')))
        torch.cuda.set_device(chosen)
    if not distributed.is_torchelastic_launched():
        yield Processes(0, 1, chosen)
        return
    distributed.init_process_group('nccl' if device == 'cuda' else 'gloo')
    if distributed.get_rank():
        # What the data lack, all processes would say alike.
        logging.getLogger('coam_ros').setLevel(logging.ERROR)
    yield Processes(distributed.get_rank(), distributed.get_world_size(), chosen)
    # None of this after an error: the others wait for this process in the middle of a step, and
    # NCCL would wait with them. Without this process torchrun ends them.
    # Seen once: a process that was done aborted on its way out. So all leave together, and what
    # still holds the group goes before it.
    distributed.barrier()
    gc.collect()
    distributed.destroy_process_group()
