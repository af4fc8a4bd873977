"""A CoAM model: encoder and pair matcher, loaded from a folder onto a backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
import logging
import os
from pathlib import Path
from typing import Any

from coam_ros.inference.backend import Arrays, InferenceBackend
from coam_ros.inference.errors import EngineIncompatibleError
from coam_ros.inference.files import expand_home
from coam_ros.inference.manifest import Manifest
import numpy as np
from numpy.typing import NDArray

# Interface of the two networks: what the encoder says of an image goes into the pair matcher.
FEATURE_STRIDES = (4, 8, 16, 32)
FEATURE_NAMES = tuple(f'features_{stride}' for stride in FEATURE_STRIDES)
ENCODER_INPUTS = ('image',)
ENCODER_OUTPUTS = (*FEATURE_NAMES, 'global_descriptor')
PAIR_MATCHER_INPUTS = (
    *(f'query_{name}' for name in FEATURE_NAMES),
    'query_size',
    *(f'keyframe_{name}' for name in FEATURE_NAMES),
    'keyframe_size',
)
BACKENDS = ('auto', 'tensorrt', 'cpu', 'openvino', 'onnxruntime')

_logger = logging.getLogger(__name__)


# Below this a match is more of a burden to an estimator than a help; docs/experiments.md.
MIN_SCORE = 0.1


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

    def followed_by(self, others: RawMatches) -> RawMatches:
        """Return these matches and those of more keyframes."""
        both = (np.concatenate([getattr(x, f.name) for x in (self, others)]) for f in fields(self))
        return RawMatches(*both)


PAIR_MATCHER_OUTPUTS = tuple(field.name for field in fields(RawMatches))


class CoamModel:
    """Encoder and pair matcher of one model on one backend.

    Attributes:
        manifest: what the model is.
        input_size: (width, height) of the only images that it takes; None = any size.
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: InferenceBackend,
        pair_matcher: InferenceBackend,
        *,
        input_size: tuple[int, int] | None = None,
        max_keyframes: int | None = None,
    ) -> None:
        """Take two loaded networks; see `load`.

        Args:
            manifest: of the model.
            encoder: sees one image.
            pair_matcher: sees the features of a query and of keyframes.
            input_size: (width, height) of the only images that they take; None = any.
            max_keyframes: that the pair matcher takes at once; None = any number.
        """
        self.manifest = manifest
        self.input_size = input_size
        self._max_keyframes = max_keyframes
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
            backend: one of BACKENDS; 'auto' takes the fastest that this machine can run: TensorRT
                where its engines have been built, and else what 'cpu' takes: OpenVINO where it
                is installed and the CPU has AVX2, ONNX Runtime elsewhere. 'tensorrt' builds
                engines when they are missing.
            num_threads: CPU threads; None = one for each physical core.

        Raises:
            FileNotFoundError: the folder is no model.
            EngineIncompatibleError: the files do not fit the manifest or the backend.
            ValueError: unknown backend, or no thread.
        """
        if backend not in BACKENDS:
            raise ValueError(f'Unknown backend {backend!r}; wanted one of {", ".join(BACKENDS)}.')
        if num_threads is not None and num_threads < 1:
            raise ValueError(f'Number of CPU threads is {num_threads}, wanted at least 1.')
        directory = expand_home(directory) if directory else default_model_directory()
        manifest = Manifest.load(directory)
        if backend in ('auto', 'tensorrt'):
            on_gpu = _load_engines(directory, must_load=backend == 'tensorrt')
            if on_gpu is not None:
                return on_gpu
        networks = _load_on_cpu(directory, manifest, backend, num_threads)
        return cls(manifest, *networks)

    @property
    def backend_name(self) -> str:
        """Library and device that run the networks; both where they differ."""
        return ' + '.join(dict.fromkeys((self._encoder.name, self._pair_matcher.name)))

    def encode(self, image: NDArray[np.uint8]) -> tuple[Arrays, NDArray[np.float32]]:
        """Encode one image.

        Args:
            image: (H, W, 3) uint8 RGB, H and W multiples of `manifest.size_multiple`, or
                `input_size` where there is one.

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
        most = self._max_keyframes or len(keyframes)
        if len(keyframes) > most:
            first = self.match(query, query_size, keyframes[:most], keyframe_sizes[:most])
            others = self.match(query, query_size, keyframes[most:], keyframe_sizes[most:])
            return first.followed_by(others)
        inputs = pair_matcher_inputs(query, query_size, keyframes, keyframe_sizes)
        return RawMatches(**self._pair_matcher.run(inputs))

    def close(self) -> None:
        """Free both networks."""
        self._encoder.close()
        self._pair_matcher.close()


def pair_matcher_inputs(
    query: Arrays,
    query_size: tuple[int, int],
    keyframes: Sequence[Arrays],
    keyframe_sizes: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """Name what the pair matcher takes; arguments as of `CoamModel.match`."""
    inputs: dict[str, Any] = {
        'query_size': np.asarray([query_size], np.float32),
        'keyframe_size': np.asarray(keyframe_sizes, np.float32),
    }
    for name in FEATURE_NAMES:
        inputs[f'query_{name}'] = query[name]
        inputs[f'keyframe_{name}'] = _join([keyframe[name] for keyframe in keyframes])
    return inputs


def default_model_directory() -> Path:
    """Return the folder of the model that comes with the package.

    Looked for in the source tree, in the ROS prefixes, and in the prefix where the package lies:
    that of the Python, of the user or /usr/local.

    Raises:
        FileNotFoundError: it is in none of them.
    """
    prefixes = [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    package = Path(__file__).parents[1]
    # PREFIX/lib/python3.X/site-packages/coam_ros
    prefixes += package.parents[3:4]
    candidates = [package.parent / 'models' / 'default']
    candidates += [prefix / 'share' / 'coam_ros' / 'models' / 'default' for prefix in prefixes]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = ', '.join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f'The default model was not found; looked in {looked}. Install the package with its '
        'models/ folder, or give a model folder.'
    )


def _join(parts: list[Any]) -> Any:  # noqa: ANN401 - arrays, or what stays on the GPU
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts


def _load_engines(directory: Path, *, must_load: bool) -> CoamModel | None:
    # Imported here: a machine without a GPU needs none of it.
    from coam_ros.inference import engines
    from coam_ros.inference.engine_manifest import EngineOptions

    try:
        plan = engines.EnginePlan.make(directory, EngineOptions())
        return engines.load_engines(
            plan, lambda text: _logger.info('%s', text) or True, may_build=must_load
        )
    except (EngineIncompatibleError, FileNotFoundError) as error:
        if must_load:
            raise
        _logger.info('TensorRT is not used: %s', error)
        return None


def _load_on_cpu(
    directory: Path, manifest: Manifest, backend: str, num_threads: int | None
) -> tuple[InferenceBackend, InferenceBackend]:
    encoder_path, pair_matcher_path = (
        directory / network.file for network in (manifest.encoder, manifest.pair_matcher)
    )
    # Imported here: a machine needs only the library that it uses.
    if _chooses_openvino(backend):
        from coam_ros.inference.openvino_backend import (
            has_avx2,
            has_bfloat16,
            OpenVinoBackend,
            Precision,
        )

        # Only the pair matcher is rounded: the gate hardly accepts both networks rounded, and the
        # encoder runs once an image. Figures: docs/latency.md.
        encoder = OpenVinoBackend(encoder_path, num_threads)
        precision: Precision = 'f32'
        if has_bfloat16():
            precision = 'bf16'
        elif manifest.pair_matcher_int8 and has_avx2():
            precision = 'int8'
            pair_matcher_path = directory / manifest.pair_matcher_int8.file
        pair_matcher = OpenVinoBackend(pair_matcher_path, num_threads, precision)
    else:
        from coam_ros.inference.onnxruntime_backend import OnnxRuntimeBackend

        encoder = OnnxRuntimeBackend(encoder_path, num_threads)
        pair_matcher = OnnxRuntimeBackend(pair_matcher_path, num_threads)
    for path, loaded, wanted in (
        (encoder_path, encoder, manifest.encoder),
        (pair_matcher_path, pair_matcher, manifest.pair_matcher),
    ):
        _check_names('input', path, loaded.input_names, wanted.inputs)
        _check_names('output', path, loaded.output_names, wanted.outputs)
    return encoder, pair_matcher


def _chooses_openvino(backend: str) -> bool:
    if backend == 'onnxruntime':
        return False
    try:
        from coam_ros.inference.openvino_backend import has_avx2
    except ImportError as error:
        if backend == 'openvino':
            raise EngineIncompatibleError(
                f'No OpenVINO ({error}); `pip install openvino`, or choose another backend.'
            ) from error
        return False
    return backend == 'openvino' or has_avx2()


def _check_names(kind: str, path: Path, found: list[str], wanted: dict[str, Any]) -> None:
    if set(found) != set(wanted):
        raise EngineIncompatibleError(
            f'Wrong {kind}s: {path} has {sorted(found)}, its manifest wants {sorted(wanted)}; '
            'export the model again with `coam export`.'
        )
