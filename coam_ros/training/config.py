"""What an experiment is made of; one YAML file in `configs/` describes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
import math
from pathlib import Path
from typing import Literal

from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.training.config_file import (
    apply_overrides,
    build,
    check_least,
    fill_references,
    merge,
    read_values,
    to_values,
    Values,
)
from coam_ros.training.data import (
    PosedImageSourceConfig,
    SOURCE_CONFIGS,
    SourceConfig,
    ViewSpec,
)
from coam_ros.training.losses import (
    CrossEntropyConfig,
    LOSS_CONFIGS,
    LossConfig,
    SelfSupervisedConfig,
)
from coam_ros.training.network_config import NetworkConfig

_SHIPPED = Path(__file__).parent / 'configs'


@dataclass(frozen=True)
class DataConfig:
    """Where the training pairs come from.

    Attributes:
        sources: each with its kind, path and weight.
        view_size: width and height of the training views [px], multiples of 32.
        num_points: points a pair whose correspondence the loss sees.
        points: whether these are middles of blocks, which the matcher selects and the loss
            cross_entropy is about, or any pixels, as in the paper; tracks have their own.
        batch: pairs a step, over all processes together.
        workers: processes that load data, for each training process; None takes one on a CPU,
            which shares its cores with the network, and one less than the cores on a GPU.
    """

    sources: tuple[SourceConfig, ...] = field(metadata={'kinds': SOURCE_CONFIGS})
    view_size: tuple[int, int] = (320, 256)
    num_points: int = 320
    points: Literal['blocks', 'pixels'] = 'blocks'
    batch: int = 4
    workers: int | None = None

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        if not self.sources:
            raise ValueError('data.sources is empty, wanted at least one source; add one.')
        ViewSpec(self.view_size, self.num_points, self.points)
        check_least('data', self, batch=1, workers=0)


@dataclass(frozen=True)
class OptimizerConfig:
    """How a step changes the weights.

    Attributes:
        kind: adamw, with decoupled weight decay, or adam, with the decay in the gradient.
        rate: peak learning rate.
        weight_decay: of the trained weights.
        clip_norm: longest gradient; None does not clip.
        ema_decay: of the moving average of the weights, which is what gets validated and
            exported; the average forgets faster in the first steps.
        encoder_rate: peak learning rate of the encoder.
        unfreeze_encoder_at: step after which the encoder is trained too; None leaves it frozen.
            Its normalisation keeps its statistics.
    """

    kind: Literal['adamw', 'adam'] = 'adamw'
    rate: float = 1e-3
    weight_decay: float = 1e-4
    clip_norm: float | None = 1.0
    ema_decay: float = 0.998
    encoder_rate: float = 1e-5
    unfreeze_encoder_at: int | None = None

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        check_least('optimizer', self, weight_decay=0, encoder_rate=0, unfreeze_encoder_at=0)
        if self.rate <= 0:
            raise ValueError(f'optimizer.rate is {self.rate}, wanted more than 0; correct it.')
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(
                f'optimizer.clip_norm is {self.clip_norm}, wanted more than 0, or null to leave '
                'gradients as they are; correct it.'
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f'optimizer.ema_decay is {self.ema_decay}, wanted 0 <= ema_decay < 1; correct it.'
            )


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train, and how the learning rate goes.

    Attributes:
        steps: optimiser steps.
        warmup_steps: the rate rises linearly over these.
        shape: cosine falls from the peak rate to `final_share` of it; constant stays.
        final_share: share of the peak rate at the end of the cosine.
    """

    steps: int = 10_000
    warmup_steps: int = 200
    shape: Literal['cosine', 'constant'] = 'cosine'
    final_share: float = 0.01

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        check_least('schedule', self, steps=1, warmup_steps=0, final_share=0)

    def factor(self, step: int) -> float:
        """Return the share of the peak rate at a step; the first step is 1."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.shape == 'constant':
            return 1.0
        phase = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * phase))


@dataclass(frozen=True)
class ValidationConfig:
    """How the deployed matcher is judged while training.

    Attributes:
        every_steps: steps between validations; None never validates.
        num_pairs: pairs to match, always the same ones.
        num_matches: points that the matcher selects in an image of a pair.
        patience: validations without a new best after which training stops; None goes on.
        seed: of the pairs, another one than that of the training.
        sources: where the pairs come from; None takes those of `data`.
    """

    every_steps: int | None = 500
    num_pairs: int = 128
    num_matches: int = 512
    patience: int | None = None
    seed: int = 1_000_003
    sources: tuple[SourceConfig, ...] | None = field(
        default=None, metadata={'kinds': SOURCE_CONFIGS}
    )

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        check_least(
            'validation', self, every_steps=1, num_pairs=1, num_matches=1, patience=1, seed=0
        )


@dataclass(frozen=True)
class ExperimentConfig:
    """One training, whole: on a CPU two runs of the same config give the same losses.

    Attributes:
        name: of the experiment.
        data: training pairs.
        network: which network of the family.
        loss: what is minimised.
        optimizer: how.
        schedule: how long.
        validation: how it is judged.
        out: folder of checkpoints and figures; one that holds a checkpoint is resumed.
        init: checkpoint or weights to start from; `default` names the model that comes with the
            package; None starts with random weights on the published encoder.
        data_root: folder of training data, for `${data_root}` in paths.
        map: keyframe map, for `${map}` in paths.
        seed: of weights, data and loss.
        device: auto takes a GPU where there is one.
        precision: of convolutions. auto takes sixteen bits where the device computes in them:
            bfloat16, else float16 on a GPU, else float32.
        log_every_steps: steps between two lines of figures.
        checkpoint_s: least time between two checkpoints [s].
        tensorboard: whether to write figures for TensorBoard too.
    """

    name: str
    data: DataConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=CrossEntropyConfig, metadata={'kinds': LOSS_CONFIGS})
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    out: str = 'runs/${name}'
    init: str | None = None
    data_root: str | None = None
    map: str | None = None
    seed: int = 0
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    precision: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'
    log_every_steps: int = 20
    checkpoint_s: float = 120.0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        check_least('', self, seed=0, log_every_steps=1, checkpoint_s=0)
        if self.seed == self.validation.seed:
            raise ValueError(
                f'seed and validation.seed are both {self.seed}, wanted two different ones, so '
                'that validation sees other pairs than training; change one.'
            )
        needs_matches = not isinstance(self.loss, SelfSupervisedConfig)
        for index, source in enumerate(self.data.sources):
            if needs_matches == isinstance(source, PosedImageSourceConfig):
                raise ValueError(
                    f'data.sources.{index} has {"no " if needs_matches else ""}correspondences, '
                    f'wanted a source {"with them" if needs_matches else "of kind posed_images"} '
                    'for this loss; change the source or loss.kind.'
                )
        trains_refiner = isinstance(self.loss, CrossEntropyConfig)
        if trains_refiner and self.data.points != 'blocks':
            raise ValueError(
                f'data.points is {self.data.points!r}, wanted blocks for the loss cross_entropy, '
                'which is about these; change it or loss.kind.'
            )
        if self.network.has_refiner and not trains_refiner and self.init is None:
            raise ValueError(
                'network.has_refiner is true, and this loss does not train it: every match would '
                'get the same score; set network.has_refiner=false, or give a checkpoint whose '
                'refiner is trained as init.'
            )
        width, height = self.data.view_size
        candidates = width * height // BLOCK_PX**2
        if self.validation.num_matches > candidates:
            raise ValueError(
                f'validation.num_matches is {self.validation.num_matches}, wanted at most the '
                f'{candidates} candidates of a view of {width} x {height} px; lower it.'
            )


def load_config(
    name: str, overrides: Sequence[str] = (), *, leaves_unset: bool = False
) -> ExperimentConfig:
    """Read an experiment.

    Args:
        name: path of a YAML file, or one that comes with the package: `default`,
            `configs/default.yaml`. Its key `base` names another one that it changes.
        overrides: `key.sub=value` words.
        leaves_unset: whether `${key}` may stay where the key is not set: to show the config.

    Raises:
        OSError: the file cannot be read, or does not exist.
        ValueError: a key, type or value is wrong; the message names it.
    """
    # Built thrice: overrides reach into lists that the file leaves at their defaults, and a
    # misspelt key is told before a reference that is not set.
    config = build(ExperimentConfig, _read_with_base(name, ()))
    config = build(ExperimentConfig, apply_overrides(to_values(config), overrides))
    values = fill_references(to_values(config), leaves_unset=leaves_unset)
    return build(ExperimentConfig, values)


def shipped_configs() -> list[str]:
    """Name the configs that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob('*.yaml'))


def _read_with_base(name: str, children: tuple[str, ...]) -> Values:
    if name in children:
        raise ValueError(f'{" -> ".join((*children, name))}: the bases go round; drop one.')
    path = _find(name)
    values = read_values(path)
    base = values.pop('base', None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f'base is {base!r} in {path}, wanted a name or path; correct it.')
    # A file beside this one, wherever the command is called.
    beside = path.parent / base
    base = str(beside) if beside.is_file() else base
    return merge(_read_with_base(base, (*children, name)), values)


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    shipped = _SHIPPED / f'{path.stem}.yaml'
    if name in (path.stem, path.name, f'configs/{path.name}') and shipped.is_file():
        return shipped
    raise FileNotFoundError(
        f'There is no config {name!r}, wanted a YAML file or one of those that come with the '
        f'package: {", ".join(shipped_configs())}.'
    )
