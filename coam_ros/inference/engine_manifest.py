"""The manifest beside a pair of engines: what they were built from, with and for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coam_ros.inference.manifest import Manifest
from coam_ros.inference.sealed_json import (
    check_file,
    incomplete,
    load_sealed,
    save_sealed,
)

FORMAT_VERSION = 5
MANIFEST_NAME = 'engine.json'
_REMEDY = 'build the engines with `coam build-engine`'


@dataclass(frozen=True)
class EngineOptions:
    """Which engines are wanted.

    Attributes:
        precision: 'fp16' (with fp32 islands) or 'fp32'.
        image_size: (width, height) of the encoder's input, multiples of the model's [px]; images
            of another shape are fitted inside.
        max_keyframes: largest batch of the pair matcher.
    """

    precision: str = 'fp16'
    image_size: tuple[int, int] = (640, 480)
    max_keyframes: int = 10


@dataclass(frozen=True)
class Target:
    """What an engine is tied to.

    Attributes:
        package: `tensorrt` or `tensorrt_rtx`.
        package_version: of it.
        compute_capability: of the GPU, such as '8.9'.
        gpu: name of the GPU; '' for any of this compute capability.
        num_multiprocessors: of the GPU, since all of a Jetson Orin are called 'Orin'; 0 for any.
        is_integrated: the GPU shares the memory of the CPU.
    """

    package: str
    package_version: str
    compute_capability: str
    gpu: str
    num_multiprocessors: int = 0
    is_integrated: bool = False


@dataclass(frozen=True)
class EngineFile:
    """One engine.

    Attributes:
        file: file name beside the manifest.
        sha256: hex digest of the file.
        onnx_sha256: of the ONNX file that it was built from.
    """

    file: str
    sha256: str
    onnx_sha256: str


@dataclass(frozen=True)
class EngineManifest:
    """Description of the engines of a model.

    Attributes:
        format_version: layout of the manifest.
        model_id: of the model.
        target: what they were built with and for.
        options: what was asked for.
        encoder: engine of the encoder.
        pair_matcher: engine of the pair matcher.
        gate: what the gate found on this machine, for or against them, by the names of
            `GateReport`; None as long as it has not been asked.
    """

    format_version: int
    model_id: str
    target: Target
    options: EngineOptions
    encoder: EngineFile
    pair_matcher: EngineFile
    gate: dict[str, Any] | None

    def save(self, directory: Path) -> None:
        """Write the manifest, aside first and then renamed."""
        save_sealed(directory / MANIFEST_NAME, asdict(self))

    @classmethod
    def load(cls, directory: Path) -> EngineManifest:
        """Read a manifest and check that the engines beside it are those it describes.

        Raises:
            FileNotFoundError: no engines there, or one of them is missing.
            EngineIncompatibleError: a byte of a file was changed, or it is of another version.
        """
        path = directory / MANIFEST_NAME
        if not path.is_file():
            raise FileNotFoundError(f'No engines: {path} does not exist; {_REMEDY}.')
        content = load_sealed(path, FORMAT_VERSION, _REMEDY)
        try:
            options = EngineOptions(**content.pop('options'))
            manifest = cls(
                target=Target(**content.pop('target')),
                # JSON has lists only.
                options=EngineOptions(
                    options.precision, tuple(options.image_size), options.max_keyframes
                ),
                encoder=EngineFile(**content.pop('encoder')),
                pair_matcher=EngineFile(**content.pop('pair_matcher')),
                **content,
            )
        except (KeyError, TypeError) as error:
            raise incomplete(path, cls, error, _REMEDY) from error
        for engine in (manifest.encoder, manifest.pair_matcher):
            check_file(directory / engine.file, engine.sha256, _REMEDY)
        return manifest

    def misfits(self, model: Manifest, options: EngineOptions, target: Target) -> list[str]:
        """Say in which way the engines are not those that are wanted; empty when they are.

        Args:
            model: manifest of the ONNX files.
            options: which engines are wanted.
            target: TensorRT and GPU that they shall run on.
        """
        mine, wanted = self.target, target
        compared = [
            ('package', mine.package, wanted.package),
            ('version of TensorRT', mine.package_version, wanted.package_version),
            ('compute capability', mine.compute_capability, wanted.compute_capability),
            # Built ahead of time, they are for any GPU of the compute capability.
            ('GPU', mine.gpu or wanted.gpu, wanted.gpu),
            (
                'multiprocessors',
                mine.num_multiprocessors or wanted.num_multiprocessors,
                wanted.num_multiprocessors,
            ),
            ('encoder ONNX', self.encoder.onnx_sha256[:12], model.encoder.sha256[:12]),
            (
                'pair matcher ONNX',
                self.pair_matcher.onnx_sha256[:12],
                model.pair_matcher.sha256[:12],
            ),
            ('precision', self.options.precision, options.precision),
            ('image size', self.options.image_size, options.image_size),
        ]
        # Not the keyframes at once: more of them run as several batches.
        return [
            f'{name}: built {found}, wanted {needed}'
            for name, found, needed in compared
            if found != needed
        ]
