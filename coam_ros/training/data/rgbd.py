"""Pairs from posed RGB-D recordings in the layouts of 7-Scenes and TUM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.mapping.importers.tum import TumSequence
from coam_ros.training.data.keyframe_pairs import KeyframePairSource, survey
from coam_ros.training.data.pairs import SourceConfig
from coam_ros.training.data.posed_depth import DepthTolerance, overlapping_pairs
from coam_ros.training.data.views import ViewSpec


@dataclass(frozen=True, kw_only=True)
class RgbdSourceConfig(SourceConfig):
    """One recording in the layout of 7-Scenes (`frame-N.color.jpg`) or TUM (`rgb.txt`).

    Attributes:
        is_precise: whether poses and depth are good to about a pixel; the sub-pixel loss is left
            out where they are not.
        min_step: least distance of two frames in the sequence: neighbours are too alike to teach.
        max_step: largest distance [frames].
        min_overlap: share of the first frame that the second must show.
        relative_tolerance: share of the depth by which two depths of one surface may differ.
        absolute_tolerance_m: what is added to it: 3 % + 2 cm is twice the noise of a Kinect at
            3 m.
        intrinsics: fx, fy, cx, cy of a TUM recording; empty takes the data set's own by the name
            of the folder. 7-Scenes has `intrinsics.txt`.
        distortion: k1, k2, p1, p2, k3 that belong to `intrinsics`; empty for none.
    """

    cache_mb: int = 512
    is_precise: bool = True
    min_step: int = 3
    max_step: int = 40
    min_overlap: float = 0.25
    relative_tolerance: float = 0.03
    absolute_tolerance_m: float = 0.02
    intrinsics: tuple[float, ...] = ()
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        super().__post_init__()
        if not 1 <= self.min_step <= self.max_step:
            raise ValueError(
                f'Frames are {self.min_step} to {self.max_step} steps apart, wanted '
                '1 <= min_step <= max_step; correct them.'
            )
        if len(self.intrinsics) not in (0, 4):
            raise ValueError(
                f'intrinsics has {len(self.intrinsics)} numbers, wanted fx, fy, cx, cy or none; '
                'correct it.'
            )
        if self.distortion and not self.intrinsics:
            raise ValueError(
                f'distortion is {list(self.distortion)} without intrinsics, to which it belongs; '
                'give both or none.'
            )


def open_rgbd(config: RgbdSourceConfig, spec: ViewSpec) -> KeyframePairSource:
    """Open a recording: looks at every frame once.

    Raises:
        FileNotFoundError: no such folder, or a list of it is missing.
        ValueError: no frames, or none that overlap.
    """
    directory = Path(config.path)
    frames = _open_frames(directory, config)
    usable, coarse = survey(directory, frames, frames.names)
    count = len(usable)
    steps = [
        *range(-config.max_step, 1 - config.min_step),
        *range(config.min_step, config.max_step + 1),
    ]
    candidates = ([i + step for step in steps if 0 <= i + step < count] for i in range(count))
    pairs = overlapping_pairs(coarse, candidates, config.min_overlap)
    if not pairs:
        raise ValueError(
            f'No overlapping frames: of {count} frames in {directory} no two that are '
            f'{config.min_step} to {config.max_step} steps apart share {config.min_overlap:.0%} '
            'of their view; check poses and depth.'
        )
    return KeyframePairSource(
        config,
        spec,
        frames,
        [(usable[i], usable[j]) for i, j in pairs],
        DepthTolerance(config.relative_tolerance, config.absolute_tolerance_m),
        is_precise=config.is_precise,
    )


def _open_frames(directory: Path, config: RgbdSourceConfig) -> SevenScenesSequence | TumSequence:
    if not (directory / 'rgb.txt').is_file():
        frames = SevenScenesSequence(directory)
        if config.intrinsics:
            raise ValueError(
                f'intrinsics is {list(config.intrinsics)}, which only a TUM recording takes; '
                f'{directory} is in the layout of 7-Scenes. Write them into its intrinsics.txt.'
            )
        return frames
    calibration = (config.intrinsics, config.distortion) if config.intrinsics else None
    return TumSequence(directory, calibration)
