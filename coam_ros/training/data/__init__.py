"""Training data: sources of image pairs, each with its config, and their seeded mixture."""

from __future__ import annotations

from collections.abc import Sequence

from coam_ros.training.data.keyframe_map import KeyframeMapSourceConfig, open_keyframe_map
from coam_ros.training.data.megadepth import MegaDepthSource, MegaDepthSourceConfig
from coam_ros.training.data.pairs import PairMixture, PairSource, SourceConfig
from coam_ros.training.data.photos import PhotoSource, PhotoSourceConfig
from coam_ros.training.data.posed_images import PosedImageSource, PosedImageSourceConfig
from coam_ros.training.data.rgbd import open_rgbd, RgbdSourceConfig
from coam_ros.training.data.rooms import RoomSource, RoomSourceConfig
from coam_ros.training.data.tracks import TrackSource, TrackSourceConfig
from coam_ros.training.data.views import ViewSpec

# By the name that a config file gives as `kind`.
SOURCE_CONFIGS: dict[str, type[SourceConfig]] = {
    'keyframe_map': KeyframeMapSourceConfig,
    'megadepth': MegaDepthSourceConfig,
    'photos': PhotoSourceConfig,
    'posed_images': PosedImageSourceConfig,
    'rgbd': RgbdSourceConfig,
    'rooms': RoomSourceConfig,
    'tracks': TrackSourceConfig,
}
_MAKERS = {
    KeyframeMapSourceConfig: open_keyframe_map,
    MegaDepthSourceConfig: MegaDepthSource,
    PhotoSourceConfig: PhotoSource,
    PosedImageSourceConfig: PosedImageSource,
    RgbdSourceConfig: open_rgbd,
    RoomSourceConfig: RoomSource,
    TrackSourceConfig: TrackSource,
}


def make_source(config: SourceConfig, spec: ViewSpec) -> PairSource:
    """Open a source of training pairs.

    Args:
        config: its type says which source.
        spec: of the views.

    Raises:
        FileNotFoundError: what the config names is not there.
        ValueError: nothing of it can be used.
    """
    return _MAKERS[type(config)](config, spec)


def make_mixture(
    configs: Sequence[SourceConfig], spec: ViewSpec, num_items: int, seed: int
) -> PairMixture:
    """Open sources and mix them by their weights.

    Args:
        configs: of the sources.
        spec: of the views.
        num_items: bounds the index.
        seed: another one gives other pairs.

    Raises:
        FileNotFoundError: what a config names is not there.
        ValueError: a source has nothing to give, or sources with and without correspondences
            are mixed, which no loss takes.
    """
    without = [isinstance(config, PosedImageSourceConfig) for config in configs]
    if any(without) and not all(without):
        raise ValueError(
            'The sources mix posed_images, which has no correspondences, with sources that have; '
            'neither a loss nor a validation takes both. Give data.sources and '
            'validation.sources one sort each.'
        )
    sources = [make_source(config, spec) for config in configs]
    return PairMixture(sources, [config.weight for config in configs], num_items, seed)


__all__ = [
    'SOURCE_CONFIGS',
    'KeyframeMapSourceConfig',
    'MegaDepthSourceConfig',
    'PairMixture',
    'PairSource',
    'PhotoSourceConfig',
    'PosedImageSourceConfig',
    'RgbdSourceConfig',
    'RoomSourceConfig',
    'SourceConfig',
    'TrackSourceConfig',
    'ViewSpec',
    'make_mixture',
    'make_source',
]
