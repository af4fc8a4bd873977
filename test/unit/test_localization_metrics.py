from __future__ import annotations

import json
from pathlib import Path

from coam_ros.evaluation.files import write_json
from coam_ros.evaluation.metrics.localization import (
    evaluate_query,
    is_within,
    make_report,
    normalised_squared_errors,
    order_by_error,
    QueryOutcome,
    recall,
    summarise,
    summarise_latency,
)
from coam_ros.geometry.transforms import make_transform
from coam_ros.localization import FailureReason, RelocalizationResult
import cv2
import numpy as np
import pytest


def pose(x_m: float = 0.0, yaw_deg: float = 0.0) -> np.ndarray:
    R = cv2.Rodrigues(np.array([0, np.radians(yaw_deg), 0]))[0]
    return make_transform(R, [x_m, 0, 0])


def localized(x_m: float, yaw_deg: float = 0.0, name: str = 'q') -> QueryOutcome:
    result = RelocalizationResult(
        pose(x_m, yaw_deg),
        np.eye(6) * 1e-4,
        num_matches=50,
        num_inliers=40,
        stage_durations_s={'encode': 0.1, 'match': 0.2},
    )
    return evaluate_query(name, result, pose())


def failed(name: str = 'q') -> QueryOutcome:
    result = RelocalizationResult(
        failure=FailureReason.TOO_FEW_INLIERS, stage_durations_s={'encode': 0.1}
    )
    return evaluate_query(name, result, pose())


def test_errors_are_those_of_the_pose():
    outcome = localized(0.03, 4.0)
    assert outcome.translation_error_m == pytest.approx(0.03)
    assert outcome.rotation_error_deg == pytest.approx(4.0)
    assert outcome.is_localized
    assert outcome.failure is None
    assert outcome.num_inliers == 40


def test_query_without_a_pose_keeps_its_reason():
    outcome = failed()
    assert not outcome.is_localized
    assert outcome.failure == 'too_few_inliers'
    assert np.isnan(outcome.translation_error_m)


def test_squared_error_is_one_for_an_error_of_one_standard_deviation_in_each_axis():
    covariance = np.diag([0.01, 0.02, 0.03, 0.1, 0.1, 0.1]) ** 2
    rotation = np.full(3, 0.1)
    T_off = make_transform(cv2.Rodrigues(rotation)[0], [0.01, 0.02, 0.03])
    assert normalised_squared_errors(T_off, np.eye(4), covariance) == pytest.approx((1, 1))
    T_moved = make_transform(np.eye(3), [0.02, 0, 0])
    assert normalised_squared_errors(T_moved, np.eye(4), covariance) == pytest.approx(
        (4 / 3, 2 / 3)
    )


def test_squared_errors_of_gaussian_poses_average_to_one():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) * 0.01
    covariance = root @ root.T
    T_true = make_transform(cv2.Rodrigues(np.array([0.3, -1.0, 0.5]))[0], [1, 2, 3])
    values = []
    for _ in range(500):
        error = root @ rng.normal(size=6)
        R = cv2.Rodrigues(error[3:])[0] @ T_true[:3, :3]
        T_off = make_transform(R, T_true[:3, 3] + error[:3])
        values.append(normalised_squared_errors(T_off, T_true, covariance))
    # The mean of 500 chi-square values of 6 degrees of freedom, divided by 6: std 0.026.
    np.testing.assert_allclose(np.mean(values, axis=0), 1, atol=0.15)


def test_recall_counts_every_query_and_both_errors():
    outcomes = [localized(0.01), localized(0.01, 3.0), localized(0.2), failed()]
    assert recall([is_within(outcome.errors, (0.05, 2.0)) for outcome in outcomes]) == 0.25
    assert recall([is_within(outcome.errors, (0.05, 5.0)) for outcome in outcomes]) == 0.5
    assert recall([is_within(outcome.errors, (0.25, 5.0)) for outcome in outcomes]) == 0.75
    assert np.isnan(recall([]))
    assert is_within((0.05, 2.0), (0.05, 2.0))


def test_summary_has_the_figures_of_the_report():
    summary = summarise([localized(0.01), localized(0.03, 4.0), failed(), failed()])
    assert (summary['queries'], summary['localized']) == (4, 2)
    assert summary['recall_5cm_2deg'] == 0.25
    assert summary['recall_25cm_10deg'] == 0.5
    assert summary['median_error_of_localized_cm'] == pytest.approx(2)
    assert summary['max_error_cm'] == pytest.approx(3)
    assert summary['max_error_deg'] == pytest.approx(4)
    assert summary['failures'] == {'too_few_inliers': 2}
    assert summary['nees_position_per_dof'] == pytest.approx((1 / 3 + 9 / 3) / 2)
    rotation = np.radians(4.0) ** 2 / 1e-4
    assert summary['nees_per_dof'] == pytest.approx((1 / 6 + (9 + rotation) / 6) / 2)
    assert summary['latency_ms']['total']['median'] == pytest.approx(200)


def test_summary_without_any_pose_has_no_errors():
    summary = summarise([failed()])
    assert summary['median_error_of_localized_cm'] is None
    assert summary['nees_per_dof'] is None
    assert summarise([])['latency_ms'] == {}


def test_latency_of_a_stage_counts_the_queries_that_reached_it():
    latency = summarise_latency([{'a': 0.1, 'b': 0.5}, {'a': 0.3}])
    assert list(latency) == ['a', 'b', 'total']
    assert latency['a']['median'] == pytest.approx(200)
    assert latency['a']['p95'] == pytest.approx(290)
    assert latency['b']['p95'] == pytest.approx(500)
    assert latency['total']['median'] == pytest.approx(450)


def test_order_is_from_best_to_worst_with_failures_last():
    outcomes = [failed(), localized(0.3), localized(0.1)]
    assert order_by_error(outcomes) == [2, 1, 0]


def test_json_holds_every_query_and_no_nan(tmp_path: Path):
    outcomes = [localized(0.01, name='a'), failed('b')]
    write_json(tmp_path / 'report.json', make_report(summarise(outcomes), outcomes))
    text = (tmp_path / 'report.json').read_text()
    assert 'NaN' not in text
    report = json.loads(text)
    assert report['queries'] == 2
    assert [query['name'] for query in report['per_query']] == ['a', 'b']
    assert report['per_query'][1]['translation_error_m'] is None
    assert report['per_query'][0]['T_map_camera'][0][3] == 0.01
