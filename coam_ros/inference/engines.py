"""From a model folder to engines that run: found where they fit, built where they do not."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import asdict, dataclass, replace
import fcntl
import hashlib
import logging
import os
from pathlib import Path
from shlex import quote
import tempfile
import time
from typing import TYPE_CHECKING

from coam_ros.inference.cuda_device import CudaDevice
from coam_ros.inference.engine_manifest import (
    EngineFile,
    EngineManifest,
    EngineOptions,
    FORMAT_VERSION,
    Target,
)
from coam_ros.inference.errors import (
    BuildCancelledError,
    DeviceLostError,
    EngineIncompatibleError,
)
from coam_ros.inference.files import expand_home, write_aside
from coam_ros.inference.gate import compare_backends, GateReport, NothingToCompareError
from coam_ros.inference.gate_pairs import fixed_pairs
from coam_ros.inference.manifest import Manifest
from coam_ros.inference.model import CoamModel, FEATURE_NAMES
from coam_ros.inference.tensorrt_backend import TensorRTBackend
from coam_ros.inference.tensorrt_package import import_tensorrt

if TYPE_CHECKING:
    from coam_ros.inference.tensorrt_builder import Layer, Report, Shape

_LOCK_PERIOD_S = 0.5
_NETWORKS = ('encoder', 'pair_matcher')

_logger = logging.getLogger(__name__)


class EngineRefusedError(EngineIncompatibleError):
    """The gate found that an engine does not do what its ONNX file does."""


@dataclass(frozen=True)
class EnginePlan:
    """Engines that are wanted, be they there or not.

    Attributes:
        model: folder of the model.
        manifest: of the model.
        engines: folder of its engines.
        options: how they are built.
        target: TensorRT and GPU that they shall run on.
    """

    model: Path
    manifest: Manifest
    engines: Path
    options: EngineOptions
    target: Target

    @classmethod
    def make(
        cls,
        model: Path,
        options: EngineOptions,
        target: Target | None = None,
        engines: Path | None = None,
    ) -> EnginePlan:
        """Read the manifest of a model, and choose what nobody says.

        Args:
            model: folder of the model.
            options: how the engines are built.
            target: None = this machine.
            engines: folder of the engines; None = where they are kept when nobody says where.

        Raises:
            FileNotFoundError, EngineIncompatibleError: the model is damaged, or this machine
                has no GPU or no TensorRT.
        """
        manifest = Manifest.load(model)
        # Before a folder is looked for: who has no GPU needs none.
        target = target or this_machine()
        engines = engines or _default_directory(manifest, options)
        return cls(model, manifest, engines, options, target)

    @property
    def build_command(self) -> str:
        """What to type to have them built."""
        width, height = self.options.image_size
        return (
            f'coam build-engine {quote(str(self.model))} --out {quote(str(self.engines))} '
            f'--precision {self.options.precision} --image-size {width}x{height} '
            f'--max-keyframes {self.options.max_keyframes}'
        )


def _default_directory(manifest: Manifest, options: EngineOptions) -> Path:
    width, height = options.image_size
    return _cache_directory() / f'{manifest.model_id}-{options.precision}-{width}x{height}'


def _cache_directory() -> Path:
    cache = expand_home(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
    return cache / 'coam_ros' / 'engines'


def this_machine() -> Target:
    """Tell what engines must fit to run here.

    Raises:
        EngineIncompatibleError: there is no GPU that CUDA can use, or no TensorRT.
    """
    device = CudaDevice()
    try:
        tensorrt = import_tensorrt()
        return Target(
            tensorrt.__name__,
            tensorrt.__version__,
            device.compute_capability,
            device.name,
            device.num_multiprocessors,
            device.is_integrated,
        )
    finally:
        device.close()


def find_engines(plan: EnginePlan) -> EngineManifest:
    """Look for engines that fit.

    Raises:
        FileNotFoundError: there are none.
        EngineIncompatibleError: they are damaged, or built from, with or for something else.
    """
    manifest = EngineManifest.load(plan.engines)
    misfits = manifest.misfits(plan.manifest, plan.options, plan.target)
    if misfits:
        raise EngineIncompatibleError(
            f'The engines in {plan.engines} do not fit: {"; ".join(misfits)}. Build them again '
            f'with `{plan.build_command}`, or set force_engine_update.'
        )
    return manifest


def check_image_size(manifest: Manifest, size: tuple[int, int]) -> None:
    """Refuse a width and height that do not suit a model.

    Raises:
        EngineIncompatibleError: they are no multiples of its step, or too small.
    """
    width, height = size
    step, least = manifest.size_multiple, manifest.least_area_px
    if width % step or height % step or min(size) <= 0 or width * height < least:
        raise EngineIncompatibleError(
            f'Image size {width} x {height}: wanted multiples of {step} px and at least {least} '
            'px in all; choose such a size.'
        )


def build_engines(plan: EnginePlan, report: Report) -> dict[str, tuple[Layer, ...]]:
    """Build both engines of a model and put them in the place of what is there.

    Args:
        plan: which; former engines in its folder go when the new ones are there.
        report: is told what is being done and answers whether to go on.

    Returns:
        The layers of each network as TensorRT understood them.

    Raises:
        EngineIncompatibleError: TensorRT does not take the model, or the image size does not
            suit it.
        OSError: the folder cannot be written.
        BuildCancelledError: `report` said so.
    """
    with _alone_in(plan.engines, report, makes_it=True):
        return _build(plan, report)


def _build(plan: EnginePlan, report: Report) -> dict[str, tuple[Layer, ...]]:
    # Here, because running engines takes no ONNX.
    try:
        from coam_ros.inference.tensorrt_builder import build, BuildSettings
    except ImportError as error:
        raise EngineIncompatibleError(
            f'Engines cannot be built ({error}); wanted the Python package onnx. `pip install '
            'onnx`, or choose another backend.'
        ) from error

    manifest, engines, options, target = plan.manifest, plan.engines, plan.options, plan.target
    check_image_size(manifest, options.image_size)
    width, height = options.image_size
    tensorrt = import_tensorrt(target.package)
    timing = _cache_directory() / 'timing'
    settings = BuildSettings(
        is_half=options.precision == 'fp16',
        max_keyframes=options.max_keyframes,
        compute_capability=target.compute_capability,
        is_integrated=target.is_integrated,
        timing_cache=timing / 'timing.cache',
    )
    # The folder itself stays what it is: it may be a mounted one, or hold the model too. Before
    # minutes of work: can it be written?
    engines.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=engines):
        pass
    shapes: dict[str, Shape] = {'image': (1, height, width, 3)}
    built = {}
    # Two builds at once, in whichever folders, would spoil what the other measures, and keep it.
    with _alone_in(timing, report, makes_it=True):
        for name in _NETWORKS:
            path = plan.model / getattr(manifest, name).file
            built[name] = build(tensorrt, path, shapes, settings, report)
            shapes |= _pair_shapes(built[name].output_shapes)
    # Names of their own, until the manifest, which is written last, tells which ones count.
    files = {}
    for name, engine in built.items():
        digest = hashlib.sha256(engine.data).hexdigest()
        file = f'{name}-{digest[:12]}.engine'
        write_aside(engines / file, engine.data)
        files[name] = EngineFile(file, digest, getattr(manifest, name).sha256)
    EngineManifest(FORMAT_VERSION, manifest.model_id, target, options, **files, gate=None).save(
        engines
    )
    for name in _NETWORKS:
        for former in engines.glob(f'{name}*.engine'):
            if former.name != files[name].file:
                former.unlink()
    return {name: engine.layers for name, engine in built.items()}


def load_engines(
    plan: EnginePlan, report: Report, *, may_build: bool = True, must_build: bool = False
) -> CoamModel:
    """Load a model on TensorRT: the engines that are there or, where they do not fit, new ones.

    New engines pass the gate before they are used; it is asked once. Processes that may build in
    one folder come one after the other.

    Args:
        plan: which; its target is this machine.
        report: is told what is being done and answers whether to go on.
        may_build: build where none fit.
        must_build: build in any case.

    Raises:
        FileNotFoundError: there are none, and none may be built.
        EngineIncompatibleError: none fit and none may be built, another process is at them and
            none may be built, or they cannot be built or run.
        EngineRefusedError: the engines fit, but the gate refuses them.
        BuildCancelledError: `report` said so.
        DeviceLostError: the GPU failed for good.
    """
    try:
        with _alone_in(plan.engines, report, makes_it=may_build or must_build):
            if must_build:
                _build(plan, report)
            try:
                manifest = find_engines(plan)
            except (FileNotFoundError, EngineIncompatibleError) as error:
                if not may_build:
                    raise
                _logger.info('Engines are built: %s', error)
                _build(plan, report)
                manifest = find_engines(plan)
            if manifest.gate is not None:
                check_gate(GateReport(**manifest.gate), plan.engines)
            loaded = _load(plan, manifest)
            if manifest.gate is None:
                report('gate: compare the engines with ONNX Runtime')
                try:
                    pass_gate(plan, manifest, loaded)
                except BaseException:
                    loaded.close()
                    raise
            return loaded
    except (FileNotFoundError, BuildCancelledError, DeviceLostError):
        raise
    except (OSError, RuntimeError) as error:
        raise EngineIncompatibleError(
            f'The engines in {plan.engines} cannot be built or run: {error}. Choose another '
            'folder (engine_file_path) or another backend.'
        ) from error


def open_engines(plan: EnginePlan) -> CoamModel:
    """Load a model on the engines that are there, whatever the gate says about them.

    Raises:
        FileNotFoundError, EngineIncompatibleError: none fit.
    """
    return _load(plan, find_engines(plan))


@contextlib.contextmanager
def _alone_in(folder: Path, report: Report, *, makes_it: bool) -> Iterator[None]:
    """Let one process at a time build in a folder; who makes none there does not wait."""
    is_made = False
    if makes_it:
        # Where it cannot be made, the build says so.
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True)
            is_made = True
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        while not _lock(descriptor):
            if not makes_it:
                raise EngineIncompatibleError(
                    f'Another process is at the engines in {folder}; wait until it is done.'
                )
            if not report('wait for another process that builds engines'):
                raise BuildCancelledError(f'Waiting for the engines in {folder} was cancelled.')
            time.sleep(_LOCK_PERIOD_S)
        yield
    finally:
        if is_made:
            # Empty where nothing came of it.
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a folder unless somebody else has; a file system without locks counts as locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _logger.warning('Engines are built without a lock: %s', error)
    return True


def pass_gate(plan: EnginePlan, manifest: EngineManifest, loaded: CoamModel) -> None:
    """Ask the gate about engines and note in their manifest what it found.

    Raises:
        EngineRefusedError: it refuses them, or has nothing to judge them by.
    """
    reference = CoamModel.load(plan.model, backend='onnxruntime')
    try:
        report = compare_backends(reference, loaded, fixed_pairs(manifest.options.image_size))
    except NothingToCompareError as error:
        raise EngineRefusedError(
            f'The gate cannot judge the engines in {plan.engines}: the model in {plan.model} '
            'finds no match in its pairs on the CPU either. Try the model with `coam match`, or '
            'use another.'
        ) from error
    finally:
        reference.close()
    # What was built ahead of time may fail on this GPU and not on the next.
    if report.is_accepted or manifest.target.gpu:
        try:
            replace(manifest, gate=asdict(report)).save(plan.engines)
        except OSError as error:
            _logger.warning('The gate will be asked again at the next start: %s', error)
    check_gate(report, plan.engines)


def check_gate(report: GateReport, engines: Path) -> None:
    """Raise what the gate found against engines.

    Raises:
        EngineRefusedError: it refuses them.
    """
    if not report.is_accepted:
        raise EngineRefusedError(
            f'The gate refuses the engines in {engines}: {"; ".join(report.failures)}. Build '
            'them in fp32 (enable_fp16 false), build them anew (force_engine_update), or use '
            'another backend.'
        )


def _load(plan: EnginePlan, manifest: EngineManifest) -> CoamModel:
    tensorrt = import_tensorrt(manifest.target.package)
    on_device = {*FEATURE_NAMES}
    on_device |= {f'{side}_{name}' for side in ('query', 'keyframe') for name in FEATURE_NAMES}
    loaded: list[TensorRTBackend] = []
    try:
        for file in (manifest.encoder, manifest.pair_matcher):
            data = (plan.engines / file.file).read_bytes()
            precision = manifest.options.precision
            loaded.append(TensorRTBackend(tensorrt, data, precision, on_device))
    except BaseException:
        for backend in loaded:
            backend.close()
        raise
    options = manifest.options
    return CoamModel(
        plan.manifest,
        *loaded,
        input_size=options.image_size,
        max_keyframes=options.max_keyframes,
    )


def _pair_shapes(outputs: dict[str, Shape]) -> dict[str, Shape]:
    """Give the inputs of the pair matcher that take features among the outputs; -1 = keyframes."""
    shapes: dict[str, Shape] = {'query_size': (1, 2), 'keyframe_size': (-1, 2)}
    for name in FEATURE_NAMES:
        if name in outputs:
            shapes[f'query_{name}'] = outputs[name]
            shapes[f'keyframe_{name}'] = (-1, *outputs[name][1:])
    return shapes
