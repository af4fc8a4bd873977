"""`coam train`: train the light CoAM network on photos, RGB-D sequences and tracks.

The recipe of the default model; the schedule, the data and the constants are arguments, so that
the same command makes the model again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import copy
import logging
import math
from pathlib import Path
import time

from coam_ros.training.data import (
    make_mixture,
    PhotoSourceConfig,
    RgbdSourceConfig,
    SourceConfig,
    TrackSourceConfig,
    ViewSpec,
)
from coam_ros.training.losses import CrossEntropyConfig, make_loss
from coam_ros.training.network import CoamNetwork, DescribedImage, NetworkConfig
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

_LOGGER = logging.getLogger(__name__)
_WARMUP_STEPS = 200
_EMA_DECAY = 0.998
_CHECKPOINT_SECONDS = 120
_NUM_POINTS = 320
# Sequences whose poses are good to a pixel (data README: warp 0.9-1.6 px).
_RGBD_PRECISE = {'tum_fr1_rpy'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        '--data', type=Path, required=True, help='folder with photos/, rgbd/*/ and posed/*/'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for checkpoint.pt')
    parser.add_argument('--steps', type=int, default=10_000, help='optimiser steps')
    parser.add_argument('--batch', type=int, default=4, help='pairs a step')
    parser.add_argument('--size', type=int, nargs=2, default=(320, 256), metavar=('W', 'H'))
    parser.add_argument('--rate', type=float, default=1e-3, help='peak learning rate (AdamW)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--workers', type=int, default=1, help='data loading processes')


def make_sources(data: Path) -> list[SourceConfig]:
    """Name the training data: photos count 0.42, RGB-D 0.33 and tracks 0.25 of the pairs."""
    rgbd = sorted(p for p in (data / 'rgbd').iterdir() if p.is_dir())
    posed = sorted(p for p in (data / 'posed').iterdir() if (p / 'points').is_dir())
    configs: list[SourceConfig] = [PhotoSourceConfig(path=str(data / 'photos'), weight=0.42)]
    for directory in rgbd:
        # One object on a table teaches less than a room.
        weight = 0.03 if directory.name == 'box_realsense' else 0.15
        is_precise = directory.name in _RGBD_PRECISE
        configs.append(RgbdSourceConfig(path=str(directory), weight=weight, is_precise=is_precise))
    for directory in posed:
        configs.append(TrackSourceConfig(path=str(directory), weight=0.25 / len(posed)))
    return configs


def run(args: argparse.Namespace) -> int:
    """Train, or go on where the checkpoint in `--out` stopped."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / 'checkpoint.pt'
    torch.manual_seed(args.seed)
    network = CoamNetwork(NetworkConfig())
    network.load_pretrained_encoder()
    network = network.to(args.device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.rate, weight_decay=1e-4)
    done = 0
    if path.exists():
        state = torch.load(path, map_location=args.device, weights_only=True)
        network.load_state_dict(state['network'])
        average.load_state_dict(state['average'])
        optimizer.load_state_dict(state['optimizer'])
        torch.set_rng_state(state['rng'].cpu())
        done = state['step']
    batches = _batches(args, done)
    progress = tqdm(initial=done, total=args.steps, unit='step', dynamic_ncols=True)
    saved_at = time.monotonic()
    smooth: dict[str, float] = {}
    network.train()
    for step, batch in enumerate(batches, start=done + 1):
        for group in optimizer.param_groups:
            group['lr'] = args.rate * _schedule(step, args.steps)
        loss, figures = _loss(network, batch, args.device)
        if not torch.isfinite(loss):
            torch.save(batch, args.out / 'nan_batch.pt')
            raise FloatingPointError(
                f'The loss is {loss.item()} at step {step}, wanted a finite number; the batch is '
                f'in {args.out / "nan_batch.pt"}. Lower --rate or look at the batch.'
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        _update_average(average, network, min(_EMA_DECAY, step / (step + 10)))
        for key, value in figures.items():
            smooth[key] = value if key not in smooth else 0.98 * smooth[key] + 0.02 * value
        progress.update()
        if step % 20 == 0:
            progress.set_postfix({key: f'{value:.3f}' for key, value in smooth.items()})
        if time.monotonic() - saved_at > _CHECKPOINT_SECONDS or step == args.steps:
            _save(path, network, average, optimizer, step)
            saved_at = time.monotonic()
    progress.close()
    return 0


def _batches(args: argparse.Namespace, first_step: int) -> Iterator[dict[str, torch.Tensor]]:
    spec = ViewSpec(tuple(args.size), _NUM_POINTS)
    mixture = make_mixture(make_sources(args.data), spec, args.steps * args.batch, args.seed)
    loader = DataLoader(
        mixture,
        args.batch,
        sampler=range(first_step * args.batch, args.steps * args.batch),
        num_workers=args.workers,
        drop_last=True,
    )
    return iter(loader)


def _loss(
    network: CoamNetwork, batch: dict[str, torch.Tensor], device: str
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    batch = {key: value.to(device) for key, value in batch.items()}
    images = torch.cat([batch['image0'], batch['image1']]).float()
    images = images.to(memory_format=torch.channels_last)
    # bf16 halves the time of a step on CPUs and GPUs that have it; the loss itself is fp32.
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        features, _ = network.encode(images)
        swapped = {s: torch.cat([x[len(x) // 2 :], x[: len(x) // 2]]) for s, x in features.items()}
        described = network.describe(features, swapped)
    halves = [(None, None) if x is None else x.float().chunk(2) for x in described]
    described0, described1 = (DescribedImage(*half) for half in zip(*halves, strict=True))
    loss = make_loss(CrossEntropyConfig())
    return loss(described0, described1, batch, network.output_stride)


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then cosine to 1 % of the peak rate."""
    if step < _WARMUP_STEPS:
        return step / _WARMUP_STEPS
    phase = (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * phase))


@torch.no_grad()
def _update_average(average: CoamNetwork, network: CoamNetwork, decay: float) -> None:
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if value.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)


def _save(
    path: Path,
    network: CoamNetwork,
    average: CoamNetwork,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Write the checkpoint aside and rename it, so that a kill leaves the former one."""
    state = {
        'network': network.state_dict(),
        'average': average.state_dict(),
        'optimizer': optimizer.state_dict(),
        'rng': torch.get_rng_state(),
        'step': step,
    }
    aside = path.with_suffix('.tmp')
    torch.save(state, aside)
    aside.replace(path)
