"""What a process of a training loads: its share of the batches and of the validation's pairs."""

from __future__ import annotations

from collections.abc import Iterator
import os
import re

from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.training.config import ExperimentConfig
from coam_ros.training.data import make_mixture, PairMixture, ViewSpec
from coam_ros.training.data.pairs import Batch
from coam_ros.training.distributed import Processes
import cv2
import torch
from torch.utils.data import DataLoader

# Each keeps images in memory of its own.
_MOST_WORKERS = 16


def training_batches(config: ExperimentConfig, processes: Processes, step: int) -> Iterator[Batch]:
    """Load this process's share of the batches that come after a step, in order.

    Args:
        config: of the training.
        processes: which all take their share.
        step: the last one that was done.

    Raises:
        FileNotFoundError: what the config names is not there.
        ValueError: a source has nothing to give, or sources do not mix.
    """
    data, steps = config.data, config.schedule.steps
    spec = ViewSpec(data.view_size, data.num_points, data.points)
    mixture = make_mixture(data.sources, spec, steps * data.batch, config.seed)
    share = processes.share(data.batch)
    batches = [[later * data.batch + i for i in share] for later in range(step, steps)]
    return _load(mixture, batches, data.workers, processes.device)


def validation_pairs(config: ExperimentConfig, processes: Processes) -> list[Batch]:
    """Load this process's share of the pairs, as batches of one: they never change.

    Args:
        config: of the training.
        processes: which all take their share.

    Returns:
        None of them where the config has no validation.

    Raises:
        FileNotFoundError: what the config names is not there.
        ValueError: a source has nothing to give, or sources do not mix.
    """
    data, validation = config.data, config.validation
    if validation.every_steps is None:
        return []
    width, height = data.view_size
    mixture = make_mixture(
        validation.sources or data.sources,
        # As many points as there are blocks; drawn with repeats, they tell of two thirds of them.
        ViewSpec(data.view_size, width * height // BLOCK_PX**2),
        validation.num_pairs,
        validation.seed,
    )
    batches = [[i] for i in processes.share(validation.num_pairs)]
    # Copies: what a worker sends stays a file in shared memory, of which there are few.
    return [
        {name: value.clone() for name, value in pair.items()}
        for pair in _load(mixture, batches, data.workers, processes.device)
    ]


def _load(
    mixture: PairMixture, batches: list[list[int]], workers: int | None, device: torch.device
) -> Iterator[Batch]:
    is_cuda = device.type == 'cuda'
    if workers is None:
        # The processes of a machine share its cores; more workers than these wait for the GPU.
        cores = len(os.sched_getaffinity(0)) // int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
        workers = min(max(cores - 1, 1), _MOST_WORKERS) if is_cuda else 1
    loader = DataLoader(
        mixture,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_initialize_worker,
        # Of its own: the default one draws a number from the generator that the loss uses.
        generator=torch.Generator(),
        pin_memory=is_cuda,
    )
    try:
        yield from loader
    except (OSError, ValueError) as error:
        # A loading process sends its whole traceback as the message; what was said is its end.
        parts = re.split(rf'\n[\w.]*{type(error).__name__}: ', str(error))
        if len(parts) == 1:
            raise
        raise type(error)(parts[-1].strip()) from error


def _initialize_worker(_worker: int) -> None:
    """Keep OpenCV to one thread in a loading process: the processes share the cores already."""
    cv2.setNumThreads(0)
