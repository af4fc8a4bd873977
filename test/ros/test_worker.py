"""The thread of the matcher: who asked is answered, and nothing that goes wrong ends it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip('rclpy')

from attempt_samples import make_attempt
from coam_msgs.msg import RelocalizationStatus
from coam_ros.nodes.attempt import Frame, Prior
from coam_ros.nodes.parameters import MatcherParameters
from coam_ros.nodes.worker import AttemptRequest, AttemptWorker
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from ros_harness import wait_until
from sensor_msgs.msg import Image

HERE, THERE = (Prior(np.eye(4), radius_m) for radius_m in (1.0, 2.0))


class Localizer:
    """Stands in for the model: answers what it is told, and keeps the priors that it was given."""

    parameters = MatcherParameters(prior_lifetime_s=3600.0, max_rate_hz=0.0)

    def __init__(self):
        self.priors = []
        self.reason = RelocalizationStatus.NONE
        self.meanwhile = lambda: None

    def localize(self, frame, prior):
        self.priors.append(prior)
        self.meanwhile()
        return make_attempt(self.reason)


class Work:
    """A worker, what it publishes, and whether that holds."""

    def __init__(self):
        self.localizer = Localizer()
        self.published = []
        self.holds = lambda: True
        logger = get_logger('worker')
        self.worker = AttemptWorker(self.localizer, self._publish, logger, give_up=pytest.fail)

    def send_image(self):
        """Let an image be localized to the end."""
        number = len(self.localizer.priors)
        self.worker.mailbox.put(Frame(Image(), None, np.inf))
        wait_until(lambda: len(self.published) > number, timeout_s=10.0)

    def _publish(self, attempt):
        try:
            return self.holds()
        finally:
            self.published.append(attempt)


@pytest.fixture
def work(ros):
    work = Work()
    yield work
    work.worker.stop()


def test_a_fault_in_publishing_ends_neither_the_thread_nor_the_waiting_for_an_answer(work):
    work.holds = lambda: 1 / 0
    request = work.worker.request(SingleThreadedExecutor(), None)
    work.send_image()
    wait_until(request.future.done, timeout_s=10.0)
    work.holds = lambda: True
    work.send_image()
    assert len(work.published) == 2


def test_prior_counts_until_a_pose_that_holds(work):
    work.worker.use_prior(HERE)
    work.localizer.reason = RelocalizationStatus.TOO_FEW_INLIERS
    work.send_image()
    work.localizer.reason = RelocalizationStatus.NONE
    # In a map that was replaced meanwhile.
    work.holds = lambda: False
    work.send_image()
    work.holds = lambda: True
    work.send_image()
    work.send_image()
    assert work.localizer.priors == [HERE, HERE, HERE, None]


def test_prior_that_comes_during_an_attempt_is_not_dropped_with_the_former(work):
    work.worker.use_prior(HERE)
    work.localizer.meanwhile = lambda: work.worker.use_prior(THERE)
    work.send_image()
    work.localizer.meanwhile = lambda: None
    work.send_image()
    assert work.localizer.priors == [HERE, THERE]


def test_who_asked_first_is_first_again_when_an_attempt_did_not_hold(work):
    executor = SingleThreadedExecutor()
    first = work.worker.request(executor, HERE)
    second = work.worker.request(executor, THERE)
    work.holds = lambda: False
    work.send_image()
    work.holds = lambda: True
    for request in (first, second):
        work.send_image()
        wait_until(request.future.done, timeout_s=10.0)
    assert work.localizer.priors == [HERE, HERE, THERE]


def test_answer_from_another_thread_wakes_who_awaits_it(ros):
    executor = SingleThreadedExecutor()
    request = AttemptRequest(executor, None)
    has_begun = threading.Event()

    async def ask():
        has_begun.set()
        return await request.future

    task = executor.create_task(ask)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    assert has_begun.wait(10.0)
    first = make_attempt()
    # A little later, when the executor sleeps.
    threading.Timer(0.2, request.answer, [first]).start()
    wait_until(task.done, timeout_s=10.0)
    # Only the first answer counts.
    request.answer(make_attempt())
    assert task.result() is request.future.result() is first
    executor.shutdown()
    thread.join(10.0)
