"""Intervals and the paired test against closed forms and against their own promise."""

from __future__ import annotations

from coam_ros.evaluation.metrics.statistics import bootstrap_intervals, compare
import numpy as np
import pytest


def outcomes(values, groups=None) -> list[dict]:
    named = [{'name': str(i), 'value': float(value)} for i, value in enumerate(values)]
    for outcome, group in zip(named, groups if groups is not None else [], strict=False):
        outcome['group'] = group
    return named


def mean(sample) -> dict:
    values = [outcome['value'] for outcome in sample]
    return {'mean': float(np.mean(values)), 'curve': [1.0, 2.0], 'name': 'x'}


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(5, 2, 400)
    intervals = bootstrap_intervals(outcomes(values), mean, 2000)
    assert list(intervals) == ['mean']
    half = 1.96 * values.std() / np.sqrt(400)
    # The two ends are quantiles of 2000 samples: 4% of the width.
    np.testing.assert_allclose(
        intervals['mean'], values.mean() + half * np.array([-1, 1]), atol=0.03
    )


def test_intervals_hold_the_truth_as_often_as_they_promise():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_intervals(outcomes(rng.normal(0, 1, 40)), mean, 200)['mean']
        hits += low <= 0 <= high
    # 95% of 200 = 190, of which the standard deviation is 3; small samples lose 1 to 2 percent.
    assert 178 <= hits <= 199


def test_pairs_of_a_group_are_one_observation():
    values = np.repeat(np.random.default_rng(3).normal(0, 1, 30), 10)
    groups = np.repeat(np.arange(30), 10).tolist()
    alone = np.ptp(bootstrap_intervals(outcomes(values), mean)['mean'])
    together = np.ptp(bootstrap_intervals(outcomes(values, groups), mean)['mean'])
    # Ten equal ones are no ten observations: wider by the root of ten.
    assert together / alone == pytest.approx(np.sqrt(10), rel=0.15)


def test_one_group_says_nothing_of_others():
    assert bootstrap_intervals(outcomes([1, 2], ['a', 'a']), mean) == {}
    assert compare(outcomes([1, 2], ['a', 'a']), outcomes([2, 3]), mean) == {}


def median_of_positive(sample) -> dict:
    positive = [outcome['value'] for outcome in sample if outcome['value'] > 0]
    return {'median': float(np.median(positive)) if positive else float('nan')}


def test_figures_that_are_no_numbers_in_a_sample_are_left_out_of_it():
    low, high = bootstrap_intervals(outcomes([1, -1]), median_of_positive)['median']
    assert (low, high) == (1, 1)


def test_exchanges_without_a_figure_say_nothing_against_chance():
    # Of four exchanges two leave one matcher without a positive value, two differ by 2.
    comparison = compare(outcomes([3, -1]), outcomes([-1, 1]), median_of_positive)['median']
    assert (comparison.difference, comparison.p_value) == (2, 1)


def test_a_figure_that_few_samples_have_keeps_its_interval_and_its_comparison():
    def by_night(sample) -> dict:
        night = [o['value'] for o in sample if o['value'] < 0]
        return {'night': float(np.mean(night))} if night else {}

    # With seed 0 the first draw of these holds no night.
    values = outcomes([1, 1, 1, 1, -1])
    assert bootstrap_intervals(values, by_night)['night'] == (-1, -1)
    assert compare(values, values, by_night)['night'].difference == 0


def median_of_all(sample) -> dict:
    return {'median': float(np.median([o['value'] for o in sample]))}


def test_a_median_that_many_samples_lose_has_no_interval():
    lost = outcomes([1.0] * 21 + [np.inf] * 19)
    assert not bootstrap_intervals(lost, median_of_all)
    assert not compare(lost, lost, median_of_all)
    found = outcomes([1.0] * 38 + [np.inf] * 2)
    assert bootstrap_intervals(found, median_of_all)['median'] == (1, 1)


def test_a_constant_gain_is_certain_though_the_pairs_differ_much():
    easy_and_hard = np.random.default_rng(4).normal(0, 10, 50)
    comparison = compare(outcomes(easy_and_hard + 1), outcomes(easy_and_hard), mean)['mean']
    assert comparison.difference == pytest.approx(1)
    np.testing.assert_allclose(comparison.interval, 1)
    # Exchanging any pair makes the difference smaller: only the pairs as they are count.
    assert comparison.p_value == pytest.approx(1 / 1001)


def test_the_test_of_two_groups_is_the_one_that_can_be_counted():
    # Differences 1 and 3: of the signs ++ +- -+ -- two are as large as the sum of 4.
    comparison = compare(outcomes([1, 3]), outcomes([0, 0]), mean, 4000)['mean']
    assert comparison.p_value == pytest.approx(0.5, abs=0.03)


def test_equal_matchers_are_found_different_as_seldom_as_promised():
    rng = np.random.default_rng(5)
    p_values = [
        compare(*(outcomes(rng.normal(0, 1, 20)) for _ in range(2)), mean, 200)['mean'].p_value
        for _ in range(200)
    ]
    # 5% of 200 = 10, of which the standard deviation is 3.
    assert 2 <= sum(p <= 0.05 for p in p_values) <= 20


def test_the_same_outcomes_have_no_difference():
    same = outcomes([1, 2, 3])
    comparison = compare(same, same, mean)['mean']
    assert (comparison.difference, comparison.interval) == (0, (0, 0))
    assert comparison.p_value == 1


def test_only_common_pairs_are_compared():
    a, b = outcomes([1, 2, 30]), outcomes([0, 0])
    assert compare(a, b, mean)['mean'].difference == pytest.approx(1.5)
    other = [{'name': 'elsewhere', 'value': 1.0}]
    assert compare(a, other, mean) == {}
