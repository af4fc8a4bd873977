"""A CoAM model: encoder and pair matcher, loaded from a folder onto a backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import sys
from typing import Any

from coam_ros.inference.backend import Arrays, InferenceBackend
from coam_ros.inference.manifest import Manifest
from coam_ros.inference.sealed_json import EngineIncompatibleError
import numpy as np
from numpy.typing import NDArray

FEATURE_NAMES = ('features_4', 'features_8', 'features_16', 'features_32')
BACKENDS = ('auto', 'onnxruntime')


@dataclass(frozen=True, eq=False)
class RawMatches:
    """Output of the pair matcher for K keyframes, in pixels of the encoder's input.

    Attributes:
        query_points: (K, N, 2) float32.
        keyframe_points: (K, N, 2) float32.
        scores: (K, N) float32; 0 where a slot holds no match.
        similarities: (K, N) float32 cosine of the descriptors.
        distinctiveness: (K, N) float32, product of both ends.
    """

    query_points: NDArray[np.float32]
    keyframe_points: NDArray[np.float32]
    scores: NDArray[np.float32]
    similarities: NDArray[np.float32]
    distinctiveness: NDArray[np.float32]


class CoamModel:
    """Encoder and pair matcher of one model on one backend."""

    def __init__(
        self, manifest: Manifest, encoder: InferenceBackend, pair_matcher: InferenceBackend
    ) -> None:
        """Take two loaded networks; see `load`."""
        self.manifest = manifest
        self._encoder = encoder
        self._pair_matcher = pair_matcher

    @classmethod
    def load(
        cls,
        directory: str | Path | None = None,
        backend: str = 'auto',
        num_threads: int | None = None,
    ) -> CoamModel:
        """Load a model folder.

        Args:
            directory: folder with `manifest.json` and the ONNX files; None = the default model
                that comes with the package.
            backend: one of BACKENDS; 'auto' takes the fastest that this machine can run.
            num_threads: CPU threads; None = one for each physical core.

        Raises:
            FileNotFoundError: the folder is no model.
            EngineIncompatibleError: the files do not fit the manifest or the backend.
            ValueError: unknown backend.
        """
        if backend not in BACKENDS:
            raise ValueError(f'Unknown backend {backend!r}; wanted one of {", ".join(BACKENDS)}.')
        # Imported here: a machine with another backend needs no ONNX Runtime.
        from coam_ros.inference.onnxruntime_backend import OnnxRuntimeBackend

        directory = Path(directory) if directory else default_model_directory()
        manifest = Manifest.load(directory)
        networks = []
        for network in (manifest.encoder, manifest.pair_matcher):
            loaded = OnnxRuntimeBackend(directory / network.file, num_threads)
            _check_names('input', directory / network.file, loaded.input_names, network.inputs)
            _check_names('output', directory / network.file, loaded.output_names, network.outputs)
            networks.append(loaded)
        return cls(manifest, *networks)

    @property
    def backend_name(self) -> str:
        """Library and device that run the networks."""
        return self._encoder.name

    def encode(self, image: NDArray[np.uint8]) -> tuple[Arrays, NDArray[np.float32]]:
        """Encode one image.

        Args:
            image: (H, W, 3) uint8 RGB, H and W multiples of `manifest.size_multiple`.

        Returns:
            Features by name, each (1, C, H / stride, W / stride) float16, and the global
            descriptor (D,) float32 of unit norm.
        """
        outputs = self._encoder.run({'image': image[None]})
        descriptor = outputs.pop('global_descriptor')[0]
        return outputs, descriptor

    def match(
        self,
        query: Arrays,
        query_size: tuple[int, int],
        keyframes: Sequence[Arrays],
        keyframe_sizes: Sequence[tuple[int, int]],
    ) -> RawMatches:
        """Match one query with K keyframes, each conditioned on the other.

        Args:
            query: features of the query.
            query_size: (width, height) that the image fills of the encoder's input [px]; what
                lies beyond is padding.
            keyframes: features of K >= 1 keyframes, all of one shape.
            keyframe_sizes: the same as `query_size` for each keyframe.
        """
        inputs: dict[str, NDArray[Any]] = {
            'query_size': np.asarray([query_size], np.float32),
            'keyframe_size': np.asarray(keyframe_sizes, np.float32),
        }
        for name in FEATURE_NAMES:
            inputs[f'query_{name}'] = query[name]
            inputs[f'keyframe_{name}'] = np.concatenate([keyframe[name] for keyframe in keyframes])
        outputs = self._pair_matcher.run(inputs)
        return RawMatches(**outputs)

    def close(self) -> None:
        """Free both networks."""
        self._encoder.close()
        self._pair_matcher.close()


def default_model_directory() -> Path:
    """Return the folder of the model that comes with the package.

    Looked for in the source tree, in the ROS prefixes and in the Python prefix.

    Raises:
        FileNotFoundError: it is in none of them.
    """
    prefixes = [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    candidates = [Path(__file__).parents[2] / 'models' / 'default']
    candidates += [
        prefix / 'share' / 'coam_ros' / 'models' / 'default'
        for prefix in [*prefixes, Path(sys.prefix)]
    ]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = ', '.join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f'The default model was not found; looked in {looked}. Install the package with its '
        'models/ folder, or give a model folder.'
    )


def _check_names(kind: str, path: Path, found: list[str], wanted: dict[str, Any]) -> None:
    if set(found) != set(wanted):
        raise EngineIncompatibleError(
            f'Wrong {kind}s: {path} has {sorted(found)}, its manifest wants {sorted(wanted)}; '
            'export the model again with `coam export`.'
        )
