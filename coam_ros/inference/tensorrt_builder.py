"""ONNX network to TensorRT engine; one path for `tensorrt` and `tensorrt_rtx`.

`tensorrt_rtx` builds for GPUs that are not here, on machines that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import contextlib
from dataclasses import dataclass
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

from coam_ros.inference.errors import BuildCancelledError, EngineIncompatibleError
from coam_ros.inference.files import write_aside
from coam_ros.inference.half_precision import to_half
from coam_ros.inference.tensorrt_package import start, tensorrt_logger
import onnx

# Called with what is being done; answers whether to go on.
Report = Callable[[str], bool]
Shape = tuple[int, ...]

# TensorRT takes all there is, which on a GPU that shares the memory of the CPU is the robot's.
# The included pair matcher takes 0.44 GB for ten keyframes of 640 x 480, 0.87 GB for twenty (as
# TensorRT RTX 1.7 says when it builds for 8.9).
_SHARED_WORKSPACE_BYTES = 1 << 30

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layer:
    """One layer of a network as TensorRT understood it.

    Attributes:
        name: of the ONNX node, mostly.
        kind: of TensorRT's layers, such as CONVOLUTION.
        element_type: of its first output, such as HALF.
        shape: of its first output; -1 is the number of keyframes or what follows from it.
    """

    name: str
    kind: str
    element_type: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Engine:
    """A built engine.

    Attributes:
        data: what TensorRT deserializes.
        layers: of the network that it was built from, in order.
        output_shapes: by name.
    """

    data: bytes
    layers: tuple[Layer, ...]
    output_shapes: dict[str, Shape]


@dataclass(frozen=True)
class BuildSettings:
    """How to build.

    Attributes:
        is_half: fp16 with fp32 islands, see `half_precision`; otherwise all is fp32.
        max_keyframes: largest batch of a free first axis.
        compute_capability: of the GPU, such as '8.9'. `tensorrt` builds for the one that is here.
        is_integrated: the GPU shares the memory of the CPU.
        timing_cache: file that keeps measured kernels for later builds.
    """

    is_half: bool
    max_keyframes: int
    compute_capability: str
    is_integrated: bool
    timing_cache: Path


def build(
    tensorrt: ModuleType,
    path: Path,
    input_shapes: Mapping[str, Shape],
    settings: BuildSettings,
    report: Report,
) -> Engine:
    """Build the engine of one ONNX file.

    Args:
        tensorrt: `tensorrt` or `tensorrt_rtx`.
        path: ONNX file in fp32.
        input_shapes: of every input, by name; -1 only as the first axis: 1 to
            `settings.max_keyframes`.
        settings: how to build.
        report: is told what is being done.

    Raises:
        EngineIncompatibleError: TensorRT cannot start, does not take the network, or cannot build
            for the GPU.
        BuildCancelledError: `report` said so.
    """
    # What was complained of before is no reason of what goes wrong now.
    tensorrt_logger(tensorrt).take_error()
    builder = start(tensorrt, 'Builder')
    config = builder.create_builder_config()
    # fp32 means fp32: TF32 has the digits of fp16.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    if tensorrt.__name__ == 'tensorrt_rtx':
        config.num_compute_capabilities = 1
        capability = _find_capability(tensorrt, settings.compute_capability)
        config.set_compute_capability(capability, 0)
        # Else it may allocate when it runs, which no CUDA graph can record.
        config.set_flag(tensorrt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if settings.is_integrated:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, _SHARED_WORKSPACE_BYTES)
    network = _parse(tensorrt, builder, _read(path, settings), path)
    free = {}
    for index in range(network.num_inputs):
        value = network.get_input(index)
        value.shape = shape = input_shapes[value.name]
        if shape[0] < 0:
            free[value.name] = shape
    if free:
        _add_profile(tensorrt, builder, config, free, settings.max_keyframes)
    config.progress_monitor = monitor = _make_monitor(tensorrt, path.stem, report)
    # TensorRT RTX measures nothing when it builds.
    measures = tensorrt.__name__ == 'tensorrt'
    if measures:
        _load_timing_cache(config, settings.timing_cache)
    data = builder.build_serialized_network(network, config)
    if monitor.is_cancelled:
        raise BuildCancelledError(f'Building the engine of {path} was cancelled.')
    if data is None:
        raise EngineIncompatibleError(
            f'{tensorrt.__name__} {tensorrt.__version__} cannot build {path} for compute '
            f'capability {settings.compute_capability} in '
            f'{"fp16" if settings.is_half else "fp32"}: {tensorrt_logger(tensorrt).take_error()}. '
            'Try the other precision (enable_fp16), fewer keyframes at once, smaller images, or '
            'another backend.'
        )
    if measures:
        _save_timing_cache(config, settings.timing_cache)
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return Engine(
        bytes(data),
        tuple(_layer(network.get_layer(index)) for index in range(network.num_layers)),
        {value.name: tuple(value.shape) for value in outputs},
    )


def capabilities(tensorrt: ModuleType) -> list[str]:
    """List the compute capabilities that `tensorrt_rtx` can build for, without such a GPU."""
    names = tensorrt.ComputeCapability.__members__
    numbers = sorted(int(name[2:]) for name in names if name.startswith('SM'))
    return [f'{number // 10}.{number % 10}' for number in numbers]


def _find_capability(tensorrt: ModuleType, wanted: str) -> Any:  # noqa: ANN401 - an enum of theirs
    known = capabilities(tensorrt)
    if wanted not in known:
        raise EngineIncompatibleError(
            f'{tensorrt.__name__} {tensorrt.__version__} builds for compute capability '
            f'{", ".join(known)} only, got {wanted}; build with '
            'the package `tensorrt` on the machine that has the GPU.'
        )
    return getattr(tensorrt.ComputeCapability, f'SM{wanted.replace(".", "")}')


def _read(path: Path, settings: BuildSettings) -> bytes:
    model = onnx.load(path)
    if settings.is_half:
        # TensorRT RTX 1.7 has no fp32 matrix product on Turing.
        model = to_half(model, has_float_products=settings.compute_capability != '7.5')
    return model.SerializeToString()


def _parse(
    tensorrt: ModuleType,
    builder: Any,  # noqa: ANN401 - of the package
    data: bytes,
    path: Path,
) -> Any:  # noqa: ANN401
    flag = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = tensorrt.OnnxParser(network, tensorrt_logger(tensorrt))
    if not parser.parse(data):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineIncompatibleError(
            f'{tensorrt.__name__} {tensorrt.__version__} does not take {path}: '
            f'{"; ".join(errors)}. Wanted a CoAM network as `coam export` writes it; export it '
            'again.'
        )
    return network


def _add_profile(
    tensorrt: ModuleType,
    builder: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    shapes: Mapping[str, Shape],
    max_keyframes: int,
) -> None:
    """Tell which batches the inputs with a free first axis take."""
    profile = builder.create_optimization_profile()
    batches = (1, min(3, max_keyframes), max_keyframes)
    for name, shape in shapes.items():
        profile.set_shape(name, *((batch, *shape[1:]) for batch in batches))
    if config.add_optimization_profile(profile) < 0:
        raise EngineIncompatibleError(
            f'{tensorrt.__name__} {tensorrt.__version__} does not take batches of 1 to '
            f'{max_keyframes} keyframes: {tensorrt_logger(tensorrt).take_error()}. Try another '
            'number (--max-keyframes), or another backend.'
        )


def _load_timing_cache(config: Any, path: Path) -> None:  # noqa: ANN401
    data = b''
    with contextlib.suppress(OSError):
        data = path.read_bytes()
    cache = config.create_timing_cache(data)
    # A damaged one is none, one of another version is of no use: the build then fills a new one.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b''), ignore_mismatch=False)


def _save_timing_cache(config: Any, path: Path) -> None:  # noqa: ANN401
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        _logger.warning('The next build will take as long as this one: %s', error)


def _layer(layer: Any) -> Layer:  # noqa: ANN401
    value = layer.get_output(0)
    return Layer(layer.name, layer.type.name, value.dtype.name, tuple(value.shape))


def _make_monitor(tensorrt: ModuleType, name: str, report: Report) -> Any:  # noqa: ANN401
    class Monitor(tensorrt.IProgressMonitor):
        """Reports the steps of the outermost phases, and cancels."""

        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.is_cancelled = False
            self._num_steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, num_steps: int) -> None:
            self._num_steps[phase] = num_steps
            self._report(f'{name}: {phase}')

        def phase_finish(self, phase: str) -> None:
            self._num_steps.pop(phase, None)

        def step_complete(self, phase: str, step: int) -> bool:
            self._report(f'{name}: {phase} {step + 1}/{self._num_steps.get(phase, 0)}')
            return not self.is_cancelled

        def _report(self, text: str) -> None:
            self.is_cancelled |= not report(text)

    return Monitor()
