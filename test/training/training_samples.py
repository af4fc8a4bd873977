"""Tiny experiments for the tests of the trainer: three photos, 64 x 64 px, seconds a run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SPEED = ('pairs_per_s', 'network_share')


def write_photos(folder: Path, count: int = 3) -> Path:
    """Write photos of blurred noise, in which every place looks different."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        noise = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), cv2.GaussianBlur(noise, (0, 0), 2))
    return folder


def tiny_overrides(photos: Path, out: Path) -> list[str]:
    """Make the default experiment small: words for `coam train default`."""
    return [f'data.sources=[{{kind: photos, path: "{photos}"}}]', *small_overrides(out)]


def small_overrides(out: Path) -> list[str]:
    """Make any experiment small, whatever its data: words for `coam train`."""
    return [
        f'out="{out}"',
        'data.view_size=[64, 64]',
        'data.num_points=64',
        'data.batch=2',
        'data.workers=0',
        'validation.num_pairs=4',
        'validation.num_matches=32',
        'validation.every_steps=4',
        'schedule.steps=8',
        'schedule.warmup_steps=2',
        'log_every_steps=1',
        'checkpoint_s=0',
        'precision=float32',
        'tensorboard=false',
    ]


def read_metrics(out: Path, group: str) -> list[dict[str, float]]:
    """Return the logged figures of a group, without those that depend on the machine's speed."""
    entries = map(json.loads, (out / 'metrics.jsonl').read_text().splitlines())
    return [
        {name: value for name, value in entry.items() if name not in SPEED}
        for entry in entries
        if entry['group'] == group
    ]
