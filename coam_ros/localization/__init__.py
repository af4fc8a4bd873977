"""From a query image to a pose with its evidence, or to a typed reason why there is none."""

from coam_ros.localization.config import LocalizationConfig, TrackerConfig
from coam_ros.localization.relocalizer import PosePrior, Relocalizer
from coam_ros.localization.result import FailureReason, KeyframeMatches, RelocalizationResult
from coam_ros.localization.tracker import LocalizationState, LocalizationTracker

__all__ = [
    'FailureReason',
    'KeyframeMatches',
    'LocalizationConfig',
    'LocalizationState',
    'LocalizationTracker',
    'PosePrior',
    'RelocalizationResult',
    'Relocalizer',
    'TrackerConfig',
]
