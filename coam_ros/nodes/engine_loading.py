"""TensorRT engines of the matcher: which ones, and loading them while the node goes on."""

from __future__ import annotations

from concurrent.futures import Executor, Future
import logging
import threading

from coam_ros.inference import CoamModel, default_model_directory, EngineIncompatibleError
from coam_ros.inference import engines as tensorrt_engines
from coam_ros.inference.engine_manifest import EngineOptions
from coam_ros.inference.engines import EnginePlan
from coam_ros.inference.errors import GpuMissingError
from coam_ros.inference.files import expand_home
from coam_ros.nodes.parameters import MatcherParameters
from rclpy.impl.rcutils_logger import RcutilsLogger

_LOG_PERIOD_S = 2.0

_log = logging.getLogger(__name__)


def plan_engines(parameters: MatcherParameters) -> EnginePlan | None:
    """Choose engines as the parameters say.

    Returns:
        None where the model runs on the CPU; the log tells why it is not TensorRT.

    Raises:
        FileNotFoundError, EngineIncompatibleError: the model is damaged; or the parameters want
            TensorRT, which is not here.
    """
    if parameters.backend not in ('auto', 'tensorrt'):
        return None
    try:
        target = tensorrt_engines.this_machine()
    except EngineIncompatibleError as error:
        if parameters.backend == 'tensorrt':
            raise
        # Who has no GPU, or never set one up, is not alarmed; who did is.
        level = logging.INFO if isinstance(error, GpuMissingError) else logging.WARNING
        _log.log(level, 'No TensorRT: %s The CPU runs the model instead.', error)
        return None
    model = expand_home(parameters.model_file_path or default_model_directory())
    options = EngineOptions(
        'fp16' if parameters.enable_fp16 else 'fp32',
        (parameters.engine_width_px, parameters.engine_height_px),
    )
    folder = parameters.engine_file_path
    engines = expand_home(folder) if folder else None
    return EnginePlan.make(model, options, target, engines)


class EngineLoading:
    """Loads engines, built anew where they do not fit, in a thread of an executor.

    Attributes:
        progress: what is being done, in words.
    """

    def __init__(
        self, plan: EnginePlan, executor: Executor, logger: RcutilsLogger, *, must_build: bool
    ) -> None:
        """Begin; `must_build` builds engines where some are that fit, too."""
        self.progress = 'load the engines'
        self._plan = plan
        self._must_build = must_build
        self._logger = logger
        self._is_cancelled = threading.Event()
        self._future: Future[CoamModel] = executor.submit(self._load)

    @property
    def is_done(self) -> bool:
        """Whether `result` answers at once."""
        return self._future.done()

    def result(self) -> CoamModel:
        """Give the loaded model; raises what `inference.engines.load_engines` does."""
        return self._future.result()

    def cancel(self) -> None:
        """Stop at the next step, and free what comes of it."""
        self._is_cancelled.set()
        self._future.add_done_callback(_close)

    def _load(self) -> CoamModel:
        return tensorrt_engines.load_engines(self._plan, self._report, must_build=self._must_build)

    def _report(self, text: str) -> bool:
        self.progress = text
        self._logger.info(f'engine: {text}', throttle_duration_sec=_LOG_PERIOD_S)
        return not self._is_cancelled.is_set()


def _close(future: Future[CoamModel]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
