"""The one thread that owns the model: newest frame in, attempt out."""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
import traceback

from coam_ros.inference import DeviceLostError
from coam_ros.nodes.attempt import Attempt, Frame, FrameLocalizer, Prior
from coam_ros.nodes.mailbox import Mailbox
from rclpy.executors import Executor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.task import Future


class AttemptRequest:
    """Someone who waits for the outcome of the next attempt; answered once, from any thread.

    Attributes:
        prior: that the attempt shall use, or None.
        begun_s: time.monotonic() of the request [s].
        future: its result is the attempt, or None when time ran out.
    """

    def __init__(self, executor: Executor, prior: Prior | None) -> None:
        """Begin to wait.

        Args:
            executor: runs the coroutine that awaits the future.
            prior: restricts the search.
        """
        self.prior = prior
        self.begun_s = time.monotonic()
        self.future = Future(executor=executor)
        self._executor = executor
        self._lock = threading.Lock()

    def answer(self, attempt: Attempt | None) -> None:
        """Give the outcome; only the first answer counts."""
        with self._lock:
            if self.future.done():
                return
            self.future.set_result(attempt)
        # rclpy looks at a pending coroutine only when something wakes the executor.
        self._executor.wake()


class AttemptWorker:
    """Runs attempts in a thread of its own.

    Attributes:
        mailbox: where callbacks leave frames.
    """

    def __init__(
        self,
        localizer: FrameLocalizer,
        publish: Callable[[Attempt], bool],
        logger: RcutilsLogger,
        give_up: Callable[[], None],
    ) -> None:
        """Start the thread.

        Args:
            localizer: used by the thread alone.
            publish: is called in the thread with every attempt; says whether that still holds,
                or else its image does not count.
            logger: of the node.
            give_up: is called in the thread when only a new process can go on.
        """
        self.mailbox: Mailbox[Frame] = Mailbox()
        self._localizer = localizer
        self._publish = publish
        self._logger = logger
        self._give_up = give_up
        self._lock = threading.Lock()
        self._requests: list[AttemptRequest] = []
        self._prior: Prior | None = None
        self._prior_end_s = 0.0
        self._thread = threading.Thread(target=self._run, name='coam_worker', daemon=True)
        self._thread.start()

    def use_prior(self, prior: Prior | None) -> None:
        """Narrow the search of the next attempts, until one is localized or time is over.

        Args:
            prior: where to search; None searches freely.
        """
        with self._lock:
            self._prior = prior
            self._prior_end_s = time.monotonic() + self._localizer.parameters.prior_lifetime_s

    def request(self, executor: Executor, prior: Prior | None) -> AttemptRequest:
        """Ask for the outcome of the first frame that comes from now on."""
        request = AttemptRequest(executor, prior)
        with self._lock:
            self._requests.append(request)
        self.mailbox.hurry()
        return request

    def discard(self, request: AttemptRequest) -> None:
        """Forget a request, answered or not."""
        with self._lock:
            self._requests = [other for other in self._requests if other is not request]

    def stop(self) -> None:
        """Finish the attempt under way, end the thread and turn away who still waits."""
        self.mailbox.close()
        self._thread.join()
        for request in self._requests:
            request.answer(None)

    def _run(self) -> None:
        next_s = 0.0
        while (frame := self.mailbox.take(0.0 if self._requests else next_s)) is not None:
            rate_hz = self._localizer.parameters.max_rate_hz
            next_s = time.monotonic() + (1.0 / rate_hz if rate_hz else 0.0)
            requests = self._take_requests(frame)
            attempt = self._attempt(frame, requests)
            if attempt is None:
                with self._lock:
                    self._requests = requests + self._requests
                continue
            for request in requests:
                request.answer(attempt)

    def _attempt(self, frame: Frame, requests: list[AttemptRequest]) -> Attempt | None:
        """Make and publish an attempt; nothing that goes wrong in it ends the thread.

        Args:
            frame: newest one.
            requests: whose attempt it is; their prior alone counts, be it none.

        Returns:
            None where it does not hold any more.
        """
        lost: DeviceLostError | None = None
        current_prior = self._current_prior()
        prior = requests[0].prior if requests else current_prior
        try:
            attempt = self._localizer.localize(frame, prior)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next frame may go well
            self._report('An attempt failed')
            attempt = self._localizer.fail(frame, error)
            lost = error if isinstance(error, DeviceLostError) else None
        holds = True
        try:
            holds = self._publish(attempt)
        except Exception:  # noqa: BLE001 - nor may what was found end the thread, and with it all
            self._report('The outcome of an attempt was not published')
        if holds and attempt.T_map_frame is not None:
            self._drop_prior(current_prior)
        if lost is not None:
            self._logger.fatal(f'The node ends, to be started again (use_respawn): {lost}')
            self._give_up()
        return attempt if holds else None

    def _report(self, what: str) -> None:
        self._logger.error(
            f'{what}, going on with the next image:\n{traceback.format_exc()}',
            throttle_duration_sec=5.0,
        )

    def _take_requests(self, frame: Frame) -> list[AttemptRequest]:
        """Take out who asked before the frame came; of different priors the first in line."""
        with self._lock:
            due = [request for request in self._requests if request.begun_s <= frame.received_s]
            due = [request for request in due if request.prior is due[0].prior]
            self._requests = [request for request in self._requests if request not in due]
            return due

    def _drop_prior(self, known: Prior | None) -> None:
        """Search freely again, unless a newer prior has come meanwhile."""
        with self._lock:
            if self._prior is known:
                self._prior = None

    def _current_prior(self) -> Prior | None:
        with self._lock:
            if time.monotonic() > self._prior_end_s:
                self._prior = None
            return self._prior
