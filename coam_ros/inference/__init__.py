"""Arrays in, arrays out: models on disk, their manifest and the backends that run them."""

from coam_ros.inference.backend import InferenceBackend
from coam_ros.inference.errors import DeviceLostError, EngineIncompatibleError
from coam_ros.inference.manifest import Manifest
from coam_ros.inference.model import CoamModel, default_model_directory

__all__ = [
    'CoamModel',
    'DeviceLostError',
    'EngineIncompatibleError',
    'InferenceBackend',
    'Manifest',
    'default_model_directory',
]
