"""What /diagnostics says of attempts made by hand, at times set by hand."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy')

from attempt_samples import EVIDENCE, make_attempt
from coam_msgs.msg import RelocalizationStatus
from coam_ros.localization import LocalizationState, RelocalizationResult
from coam_ros.nodes.conversions import stamp_from_seconds
from coam_ros.nodes.diagnostics import DiagnosticsCollector, NodeFacts
from diagnostic_msgs.msg import DiagnosticStatus

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Report:
    """A collector with a clock, and the last thing that it said."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr('coam_ros.nodes.diagnostics.time.monotonic', lambda: self.now_s)
        self.collector = DiagnosticsCollector('coam/matcher')

    def record(self, *words, latency_s=0.5, **fields):
        self.collector.record(make_attempt(*words, **fields), latency_s)

    def of(self, task, lifecycle='active', num_received=0, **facts):
        """Level, message and values of one part of a report."""
        values = {
            'error': '',
            'image_topic': '/image',
            'num_dropped': 3,
            'engine': {'map': 'kitchen'},
            **facts,
        }
        facts = NodeFacts(lifecycle=lifecycle, num_received=num_received, **values)
        array = self.collector.report(facts, stamp_from_seconds(7.0))
        assert array.header.stamp.sec == 7
        (status,) = [s for s in array.status if s.name == f'coam/matcher: {task}']
        return status.level, status.message, {v.key: v.value for v in status.values}


@pytest.fixture
def report(monkeypatch):
    return Report(monkeypatch)


def test_attempts_are_counted_by_what_became_of_them(report):
    for count, reason in enumerate(
        (
            RelocalizationStatus.NONE,
            RelocalizationStatus.NOT_CONFIRMED,
            RelocalizationStatus.BAD_IMAGE,
            RelocalizationStatus.ENGINE_ERROR,
        ),
        start=1,
    ):
        for _ in range(count):
            report.record(reason)
    values = report.of('localization')[2]
    counts = [values[name] for name in ('localized', 'not localized', 'refused', 'errors')]
    assert counts == ['1', '2', '3', '4']


@pytest.mark.parametrize(
    ('reason', 'state', 'level'),
    [
        (RelocalizationStatus.NONE, LocalizationState.LOCALIZED, OK),
        # One image without a pose is no reason to worry about a robot that is localized.
        (RelocalizationStatus.TOO_FEW_INLIERS, LocalizationState.LOCALIZED, OK),
        (RelocalizationStatus.BAD_IMAGE, LocalizationState.LOCALIZED, WARN),
        (RelocalizationStatus.TOO_FEW_INLIERS, LocalizationState.SEARCHING, WARN),
        (RelocalizationStatus.TOO_FEW_INLIERS, LocalizationState.LOST, WARN),
        (RelocalizationStatus.ENGINE_ERROR, LocalizationState.LOCALIZED, ERROR),
    ],
)
def test_level_is_that_of_the_last_attempt_and_no_lower_when_nothing_follows(
    report, reason, state, level
):
    report.record(reason, state, message='3 inliers')
    found, message, values = report.of('localization')
    assert (found, message) == (level, state.value)
    assert values['inliers'] == str(EVIDENCE['num_inliers'])
    assert values['places with inliers'] == str(EVIDENCE['num_inlier_blocks'])
    assert values['matches'] == str(EVIDENCE['num_matches'])
    assert values['reason'] == '3 inliers'
    report.now_s += 3.0
    message = f'{state.value} 3 s ago, nothing since'
    assert report.of('localization')[:2] == (max(level, WARN), message)


def test_last_pose_is_older_than_the_last_attempt(report):
    assert 'seconds since last pose' not in report.of('localization')[2]
    report.record()
    report.now_s += 2.5
    report.record(RelocalizationStatus.TOO_FEW_INLIERS)
    assert report.of('localization')[2]['seconds since last pose'] == '2.5'


def test_node_that_cannot_work_says_so_whatever_the_last_attempt(report):
    report.record()
    assert report.of('localization', error='no such map')[:2] == (ERROR, 'no such map')
    level, message, values = report.of('localization', building='step 2 of 5')
    assert (level, message, values['progress']) == (WARN, 'building', 'step 2 of 5')
    assert report.of('localization', 'inactive')[:2] == (WARN, 'inactive')


def test_rate_is_that_since_the_last_report(report):
    report.of('input')
    report.now_s += 2.0
    values = report.of('input', num_received=10)[2]
    assert (values['rate [Hz]'], values['received']) == ('5.0', '10')
    assert (values['topic'], values['dropped for newer ones']) == ('/image', '3')
    report.now_s += 2.0
    assert report.of('input', num_received=14)[2]['rate [Hz]'] == '2.0'
    # After a new activation the node counts from 0.
    report.now_s += 2.0
    assert report.of('input', num_received=4)[2]['rate [Hz]'] == '0.0'


def test_images_that_stay_away_are_missed_while_the_node_is_active_alone(report):
    report.now_s += 1.9
    assert report.of('input')[:2] == (OK, 'ok')
    report.now_s += 0.2
    assert report.of('input')[:2] == (WARN, 'no image on /image for 2 s')
    assert report.of('input', num_received=1)[:2] == (OK, 'ok')
    report.now_s += 60.0
    assert report.of('input', 'inactive', num_received=1)[:2] == (OK, 'ok')
    # Activated just now, it has not waited yet.
    report.now_s += 1.0
    assert report.of('input', num_received=1)[:2] == (OK, 'ok')
    assert report.collector.silence == ''


def test_latency_is_of_the_last_50_images_in_milliseconds(report):
    for number in [4500] * 10 + list(range(1, 51)):
        result = RelocalizationResult(stage_durations_s={'match': 0.002 * number})
        report.record(result=result, latency_s=0.25)
    values = report.of('latency')[2]
    assert values['match [ms]'] == 'median 51, p95 95'
    assert values['image to publication [ms]'] == 'median 250, p95 250'


def test_engine_and_map_are_told_or_missed(report):
    assert report.of('engine and map') == (OK, 'loaded', {'map': 'kitchen'})
    assert report.of('engine and map', engine={})[:2] == (WARN, 'not loaded')
    building = report.of('engine and map', engine={}, building='step 2')
    assert building[:2] == (WARN, 'building: step 2')
