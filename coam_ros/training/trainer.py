"""Trains a network as an experiment says; goes on where its last checkpoint stopped.

A run is a function of its config: item i of the data depends on the seed and i alone, and what
the loss draws at random depends on the seed, the step and the process. So nothing of a random
generator has to be kept, and a resumed training repeats the losses of one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
import copy
from dataclasses import asdict
import logging
from pathlib import Path
import time
from typing import Any

from coam_ros.inference.files import write_aside
from coam_ros.training.checkpoint import (
    load_initial_weights,
    provenance,
    read_checkpoint,
    save_checkpoint,
)
from coam_ros.training.config import ExperimentConfig
from coam_ros.training.config_file import differences, to_values, to_yaml
from coam_ros.training.data.loading import training_batches, validation_pairs
from coam_ros.training.data.pairs import Batch
from coam_ros.training.decoders import View
from coam_ros.training.deployment import DeployedPairMatcher
from coam_ros.training.distributed import Processes
from coam_ros.training.losses import Loss, make_loss
from coam_ros.training.network import CoamNetwork, DescribedImage
from coam_ros.training.training_log import TrainingLog
from coam_ros.training.validation import Judgement, validate
import numpy as np
import torch
from torch import nn

_LOGGER = logging.getLogger(__name__)
CHECKPOINT, BEST = 'checkpoint.pt', 'best.pt'
# The average forgets this fast in the first steps: step / (step + 10).
_EMA_WARMUP = 10
_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


class TrainingStep(nn.Module):
    """A batch of pairs in, the loss out: what has to be one module for several processes."""

    def __init__(self, network: CoamNetwork, loss: Loss, precision: torch.dtype) -> None:
        """Take the parts; convolutions compute in `precision`, the loss in float32."""
        super().__init__()
        self.network = network
        self.loss = loss
        self.precision = precision

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the scalar loss, and figures."""
        images = torch.cat([batch['image0'], batch['image1']]).float()
        images = images.to(memory_format=torch.channels_last)
        is_mixed = self.precision != torch.float32
        with torch.autocast(images.device.type, self.precision, enabled=is_mixed):
            features, _ = self.network.encode(images)
            halves = zip(*(x.chunk(2) for x in features.values()), strict=True)
            views = [View(dict(zip(features, half, strict=True)), None) for half in halves]
            described = self.network.describe_pair(*views)
        described0, described1 = (
            DescribedImage(*(None if x is None else x.float() for x in image))
            for image in described
        )
        network = self.network
        refiner = network.refiner if network.config.has_refiner else None
        return self.loss(described0, described1, batch, network.output_stride, refiner)


class Trainer:
    """One training, in one of its processes."""

    def __init__(self, config: ExperimentConfig, processes: Processes) -> None:
        """Make what the config says, or read it from the checkpoint in `config.out`.

        Raises:
            OSError: data, weights or the checkpoint cannot be read.
            ValueError: the data is of no use, the checkpoint is damaged or of another network,
                or the batch cannot be shared among the processes.
        """
        if config.data.batch % processes.world_size:
            raise ValueError(
                f'data.batch is {config.data.batch}, wanted a multiple of the '
                f'{processes.world_size} processes; change one of them.'
            )
        self.config = config
        self.processes = processes
        self._out = Path(config.out)
        self._provenance = provenance(config.data.sources, self._out)
        self._values = to_values(config)
        self._step = 0
        self._worked_s = self._waited_s = 0.0
        self._judgement = Judgement()

        torch.manual_seed(config.seed)
        self.network = CoamNetwork(config.network)
        former = processes.broadcast_object(self._read_former)
        if former is None:
            self._load_first_weights()
        self.network.to(processes.device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(requires_grad=False)
        # One kernel for all of them, not one for each.
        self._weights = _floating_state(self.network)
        self._mean_weights = _floating_state(self.average)
        self._optimizer = self._make_optimizer()
        precision_name = choose_precision(config.precision, processes.device)
        if processes.is_first:
            devices = f'{processes.world_size} x {processes.device.type}'
            print(f'Training on {devices} in {precision_name}.')
        precision = _DTYPES[precision_name]
        self._scaler = torch.amp.GradScaler(
            processes.device.type, enabled=precision == torch.float16
        )
        if former is not None:
            self._restore(former)
        self._training_step = TrainingStep(self.network, make_loss(config.loss), precision)
        self._wrapped = self._wrap()

    def run(self) -> None:
        """Train to the end, or until patience does.

        Raises:
            OSError: the data cannot be read, or a checkpoint not be written; the former one is
                untouched.
            ValueError: the data has nothing to give, or the loss is no finite number; the batch
                is saved.
        """
        # Before anything is written: data that is of no use leaves no trace in `out`.
        held_back = validation_pairs(self.config, self.processes)
        batches = training_batches(self.config, self.processes, self._step)
        log = self._open_log() if self.processes.is_first else None
        try:
            self._train(log, held_back, batches)
        finally:
            if log is not None:
                log.close()
        if self.processes.is_first:
            print(self._report())

    def _train(
        self, log: TrainingLog | None, held_back: list[Batch], batches: Iterator[Batch]
    ) -> None:
        schedule, validation = self.config.schedule, self.config.validation
        if self._step == 0:
            self._validate(held_back, log)
        window = _Window()
        saved_at = time.monotonic()
        while not self._is_over():
            batch = window.wait_for(batches)
            self._step += 1
            window.add(self._take_step(batch))
            if log is not None:
                log.advance()
            is_last = self._step == schedule.steps
            is_logged = is_last or self._step % self.config.log_every_steps == 0
            if is_logged:
                self._log(log, window)
                window = _Window()
            if validation.every_steps is not None and (
                is_last or self._step % validation.every_steps == 0
            ):
                self._validate(held_back, log)
                window.restart_clock()
            is_due = time.monotonic() - saved_at >= self.config.checkpoint_s
            # Only where a window of figures ends: what it sums up is not in the checkpoint.
            if self._is_over() or (is_logged and is_due):
                self._save()
                saved_at = time.monotonic()
                window.restart_clock()

    def _is_over(self) -> bool:
        patience = self.config.validation.patience
        is_last = self._step >= self.config.schedule.steps
        return is_last or self._judgement.is_out_of_patience(patience)

    def _take_step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Change the weights; returns figures, on the device."""
        self._prepare_step()
        # Before the loss, so that a resumed training draws the same.
        torch.manual_seed(seed_of_step(self.config.seed, self._step, self.processes.rank))
        on_device = {k: x.to(self.processes.device, non_blocking=True) for k, x in batch.items()}
        loss, figures = self._wrapped(on_device)
        self._check_finite('loss', loss, batch)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        gradient = nn.utils.clip_grad_norm_(
            [x for x in self.network.parameters() if x.requires_grad],
            self.config.optimizer.clip_norm or float('inf'),
        )
        # Scaled float16 gradients overflow now and then: the scaler leaves such a step out.
        if self._scaler.is_enabled():
            figures['skipped'] = (~torch.isfinite(gradient)).float()
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        else:
            self._check_finite('gradient', gradient, batch)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._update_average()
        return {'loss': loss.detach(), **figures, 'gradient': gradient}

    def _prepare_step(self) -> None:
        if self._step - 1 == self.config.optimizer.unfreeze_encoder_at:
            self._wrapped = self._wrap()
        factor = self.config.schedule.factor(self._step)
        for group in self._optimizer.param_groups:
            group['lr'] = group['peak_rate'] * factor

    def _check_finite(self, name: str, value: torch.Tensor, batch: Batch) -> None:
        if torch.isfinite(value):
            return
        # Of another machine, it may not be there.
        self._out.mkdir(parents=True, exist_ok=True)
        path = self._out / f'nan_batch_{self.processes.rank}.pt'
        save_checkpoint(path, {'step': self._step, 'batch': batch})
        raise ValueError(
            f'The {name} is {value.item()} at step {self._step}, wanted a finite number; the '
            f'batch is in {path}, the last checkpoint is untouched. Look at the batch, or lower '
            'optimizer.rate.'
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.optimizer.ema_decay, self._step / (self._step + _EMA_WARMUP))
        torch._foreach_lerp_(self._mean_weights, self._weights, 1 - decay)

    # ------------------------------------------------------------------ validation

    def _validate(self, pairs: list[Batch], log: TrainingLog | None) -> None:
        if self.config.validation.every_steps is None:
            return
        # Averages of statistics that each process takes of its own pairs; the first one's count.
        self.processes.broadcast(self.average.buffers())
        matcher = DeployedPairMatcher(self.average, self.config.validation.num_matches)
        figures = validate(matcher, pairs, self.processes)
        is_best = self._judgement.update(figures, self._step)
        if log is not None:
            log.write('validation', self._step, figures)
            shown = ', '.join(f'{name} {value:.3f}' for name, value in figures.items())
            log.say(f'step {self._step}: {shown}{", the best so far" if is_best else ""}')
            if is_best:
                save_checkpoint(self._out / BEST, self._content(with_state=False))

    def _report(self) -> str:
        total_s = self._worked_s + self._waited_s
        # None where the training was over before.
        share = f', {self._worked_s / total_s:.0%} of the time in the network' if total_s else ''
        lines = [f'{self._out}: {self._step} steps{share}']
        if self._judgement.best is not None:
            lines += self._judgement.table()
            best = 'the best' if self._judgement.best_step else 'as it began: none was better'
            lines.append(f'weights: {self._out / BEST} ({best}), {self._out / CHECKPOINT}')
        return '\n'.join(lines)

    # ------------------------------------------------------------------ state

    def _load_first_weights(self) -> None:
        if self.config.init is None:
            self.network.load_pretrained_encoder()
        else:
            load_initial_weights(self.network, self.config.init)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.config.optimizer
        encoder = list(self.network.encoder.parameters())
        in_encoder = set(map(id, encoder))
        rest = [p for p in self.network.parameters() if id(p) not in in_encoder]
        trained = [[p for p in rest if p.requires_grad]]
        if config.unfreeze_encoder_at is not None:
            trained.append(encoder)
        groups = [
            {'params': params, **rates}
            for params, rates in zip(trained, self._rates(), strict=True)
        ]
        make = {'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW}[config.kind]
        return make(groups, lr=config.rate)

    def _rates(self) -> list[dict[str, float]]:
        """Give what the config says of each group of parameters of the optimizer."""
        config = self.config.optimizer
        rates = [config.rate]
        if config.unfreeze_encoder_at is not None:
            rates.append(config.encoder_rate)
        # The last one is what tells AdamW from Adam, and is part of what a checkpoint keeps.
        others = {
            'weight_decay': config.weight_decay,
            'decoupled_weight_decay': config.kind == 'adamw',
        }
        return [{'peak_rate': rate, **others} for rate in rates]

    def _wrap(self) -> nn.Module:
        """Choose what is trained at this step; several processes have to know it beforehand."""
        unfreeze_at = self.config.optimizer.unfreeze_encoder_at
        self.network.encoder.requires_grad_(unfreeze_at is not None and self._step > unfreeze_at)
        return self.processes.wrap(self._training_step)

    def _content(self, *, with_state: bool) -> dict[str, Any]:
        """Return what a checkpoint holds; `best.pt` does without the state of the training."""
        content = {
            'average': self.average.state_dict(),
            'config': self._values,
            'step': self._step,
            'judged': asdict(self._judgement),
            'provenance': self._provenance,
        }
        if with_state:
            content |= {
                'network': self.network.state_dict(),
                'optimizer': self._optimizer.state_dict(),
                'scaler': self._scaler.state_dict(),
            }
        return content

    def _save(self) -> None:
        if self.processes.is_first:
            save_checkpoint(self._out / CHECKPOINT, self._content(with_state=True))

    def _read_former(self) -> dict[str, Any] | None:
        path = self._out / CHECKPOINT
        if not path.exists():
            return None
        former = read_checkpoint(path, self._values['network'])
        if 'optimizer' not in former:
            raise ValueError(
                f'{path} holds weights alone, wanted the state of a training; start one from it '
                f'with init={path} and another folder out=...'
            )
        changes = differences(former['config'], self._values)
        # Their weights would pass for those of these data and this beginning.
        others = differences(former['config']['init'], self._values['init'], 'init') + differences(
            former['provenance']['data_hash'],
            self._provenance['data_hash'],
            'names and sizes of the data files (hash)',
        )
        if others:
            raise ValueError(
                f'{path} is of another training:\n  ' + '\n  '.join(others) + '\nGive another '
                f'folder (out=...), or delete {self._out}; to train on from those weights, with '
                f'init={path}.'
            )
        print(f'Going on from step {former["step"]} of {path}.')
        if changes:
            _LOGGER.warning(
                'Not the same training any more: since %s was written, these changed:\n  %s',
                path,
                '\n  '.join(changes),
            )
        return former

    def _restore(self, former: dict[str, Any]) -> None:
        self.network.load_state_dict(former['network'], strict=True)
        self.average.load_state_dict(former['average'], strict=True)
        there, here = (
            [len(group['params']) for group in optimizer['param_groups']]
            for optimizer in (former['optimizer'], self._optimizer.state_dict())
        )
        if there != here:
            raise ValueError(
                f'{self._out / CHECKPOINT} is of a training that changes another part of the '
                'network: optimizer.unfreeze_encoder_at is set in one of them alone, or '
                'network.uses_coattention differs. Keep both, or start another training with '
                f'init={self._out / CHECKPOINT} and another folder out=...'
            )
        self._optimizer.load_state_dict(former['optimizer'])
        # The config may have changed, and says so where it is read.
        for group, wanted in zip(self._optimizer.param_groups, self._rates(), strict=True):
            group |= wanted
        # What was trained in another precision has none.
        if former['scaler']:
            self._scaler.load_state_dict(former['scaler'])
        self._step = former['step']
        self._judgement = Judgement(**former['judged'])

    # ------------------------------------------------------------------ figures

    def _open_log(self) -> TrainingLog:
        self._out.mkdir(parents=True, exist_ok=True)
        # That of a finished training tells how the weights beside it were made.
        if not self._is_over():
            write_aside(self._out / 'config.yaml', to_yaml(self.config).encode())
        return TrainingLog(
            self._out,
            self._step,
            self.config.schedule.steps,
            tensorboard=self.config.tensorboard,
        )

    def _log(self, log: TrainingLog | None, window: _Window) -> None:
        self._worked_s += window.worked_s
        self._waited_s += window.waited_s
        names, means = zip(*window.means().items(), strict=True)
        # The same for all processes: each has its own pairs.
        total = self.processes.all_reduce(torch.stack(means))
        figures = dict(zip(names, (total / self.processes.world_size).tolist(), strict=True))
        if log is None:
            return
        pairs_per_s = self.config.data.batch * window.steps_per_s()
        rate = self._optimizer.param_groups[0]['lr']
        speed = {'pairs_per_s': pairs_per_s, 'network_share': window.network_share()}
        log.write('train', self._step, {**figures, 'rate': rate, **speed})
        shown = {name: f'{value:.3f}' for name, value in figures.items() if name != 'gradient'}
        shown['pairs/s'] = f'{pairs_per_s:.1f}'
        shown['network'] = f'{speed["network_share"]:.0%}'
        log.show(shown)


class _Window:
    """Figures of the steps since the last line of the log, and where the time went."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._num_steps = 0
        self.worked_s = self.waited_s = 0.0
        self._clock = time.monotonic()

    def wait_for(self, batches: Iterator[Batch]) -> Batch:
        """Take the next batch."""
        started = time.monotonic()
        self.worked_s += started - self._clock
        batch = next(batches)
        self._clock = time.monotonic()
        self.waited_s += self._clock - started
        return batch

    def add(self, figures: dict[str, torch.Tensor]) -> None:
        """Count a step."""
        self._num_steps += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().double()
        now = time.monotonic()
        self.worked_s += now - self._clock
        self._clock = now

    def restart_clock(self) -> None:
        """Leave out what has happened since the last step: it was no training."""
        self._clock = time.monotonic()

    def means(self) -> dict[str, torch.Tensor]:
        """Return the mean of each figure over the steps, 0-d float64."""
        return {name: total / self._num_steps for name, total in self._sums.items()}

    def steps_per_s(self) -> float:
        """Return steps per second of training."""
        return self._num_steps / (self.worked_s + self.waited_s)

    def network_share(self) -> float:
        """Return the share of the time that was not spent waiting for data."""
        return self.worked_s / (self.worked_s + self.waited_s)


def _floating_state(network: nn.Module) -> list[torch.Tensor]:
    """List the floating-point tensors of a network; they stay the same objects in a training."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """Return the seed of what the loss draws in a step, in one of the processes."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def choose_precision(precision: str, device: torch.device) -> str:
    """Return float32, bfloat16 or float16: what `auto` means on a device, or what was asked for.

    A CPU is asked for instructions that compute in bfloat16: without them it is slower than
    float32.

    Raises:
        ValueError: float16 on a CPU, which has no convolutions in it.
    """
    if precision == 'float16' and device.type == 'cpu':
        raise ValueError('precision is float16, which needs a GPU; use bfloat16 or float32.')
    if precision != 'auto':
        return precision
    if device.type == 'cuda':
        return 'bfloat16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'float16'
    capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = any(capabilities.get(key) for key in ('amx_bf16', 'avx512_bf16', 'bf16'))
    return 'bfloat16' if has_bfloat16 else 'float32'
