"""How sure a figure is: bootstrap intervals, and a paired test for "A is better than B"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Outcome = Mapping[str, object]
Summarise = Callable[[Sequence[Outcome]], Mapping[str, object]]

LEVEL = 0.95
NUM_SAMPLES = 1000
# Each sorts the matches of all pairs.
NUM_SAMPLES_OF_RANKING = 100
# Below this a difference is called one.
SIGNIFICANT = 0.05
STATISTICS = (
    f'Intervals: {LEVEL:.0%}, percentile bootstrap, {NUM_SAMPLES} samples, '
    f'{NUM_SAMPLES_OF_RANKING} for ranking '
    '(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13); pairs that share '
    'their first image, and queries that follow each other, five at a time, are drawn together. '
    'p: two-sided paired permutation test of as many samples, the outcomes of such groups '
    'exchanged between the two matchers (Good, Permutation Tests, 2000, ch. 3); not corrected for '
    'the number of comparisons.'
)


@dataclass(frozen=True)
class Comparison:
    """One figure of matcher A beside that of matcher B on the same pairs.

    Attributes:
        difference: A - B.
        interval: of the difference, low and high.
        p_value: how often chance alone makes a difference as large.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Give the mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def bootstrap_intervals(
    outcomes: Sequence[Outcome], summarise: Summarise, num_samples: int = NUM_SAMPLES
) -> dict[str, tuple[float, float]]:
    """Give the interval of every number that a summary holds.

    Args:
        outcomes: of pairs, with `name`; equal `group`s are drawn together.
        summarise: figures of outcomes.
        num_samples: how often pairs are drawn.

    Returns:
        By figure, low and high; nothing for fewer than two groups, which say nothing of others.
    """
    groups = _group(outcomes)
    if len(groups) < 2:
        return {}
    samples = [
        _numbers(summarise([outcome for i in drawn for outcome in groups[i]]))
        for drawn in _draws(len(groups), num_samples)
    ]
    return _intervals(samples)


def compare(
    outcomes_a: Sequence[Outcome],
    outcomes_b: Sequence[Outcome],
    summarise: Summarise,
    num_samples: int = NUM_SAMPLES,
) -> dict[str, Comparison]:
    """Compare two matchers on the pairs that both have.

    Args:
        outcomes_a: of matcher A, as in `bootstrap_intervals`.
        outcomes_b: of matcher B.
        summarise: figures of outcomes.
        num_samples: of the bootstrap and of the permutation test.

    Returns:
        By figure; nothing for fewer than two common groups.
    """
    by_name = {outcome['name']: outcome for outcome in outcomes_b}
    groups = [
        [(outcome, by_name[outcome['name']]) for outcome in group if outcome['name'] in by_name]
        for group in _group(outcomes_a)
    ]
    groups = [group for group in groups if group]
    if len(groups) < 2:
        return {}
    found = _differences(groups, summarise)
    intervals = _intervals(
        [
            _differences([groups[i] for i in drawn], summarise)
            for drawn in _draws(len(groups), num_samples)
        ]
    )
    by_chance = [
        _differences(exchanged, summarise) for exchanged in _exchanges(groups, num_samples)
    ]
    return {
        name: Comparison(
            difference,
            intervals[name],
            # The pairs as they are count as one of the samples.
            (1 + sum(_is_as_large(sample.get(name, np.nan), difference) for sample in by_chance))
            / (1 + num_samples),
        )
        for name, difference in found.items()
        if name in intervals
    }


def _is_as_large(value: float, difference: float) -> bool:
    # NaN, a median of nothing, says nothing against chance: it counts for it.
    return not abs(value) < abs(difference) * (1 - 1e-9)


def _group(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    groups: dict[object, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.get('group', outcome['name']), []).append(outcome)
    return list(groups.values())


def _draws(size: int, num_samples: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    for _ in range(num_samples):
        yield rng.integers(0, size, size)


def _exchanges(
    groups: Sequence[list[tuple[Outcome, Outcome]]], num_samples: int
) -> Iterator[list[list[tuple[Outcome, Outcome]]]]:
    rng = np.random.default_rng(0)
    for _ in range(num_samples):
        is_exchanged = rng.integers(0, 2, len(groups)).astype(bool)
        yield [
            [(b, a) for a, b in group] if exchanges else group
            for group, exchanges in zip(groups, is_exchanged, strict=True)
        ]


def _differences(
    groups: Sequence[list[tuple[Outcome, Outcome]]], summarise: Summarise
) -> dict[str, float]:
    columns = zip(*(pair for group in groups for pair in group), strict=True)
    figures_a, figures_b = (_numbers(summarise(column)) for column in columns)
    return {
        name: _difference(figures_a[name], figures_b[name])
        for name in figures_a
        if name in figures_b
    }


def _difference(a: float, b: float) -> float:
    # A median of lost queries is infinite: two of them are not equal, and not absent either.
    return np.inf if np.isinf(a) and np.isinf(b) else a - b


def _numbers(summary: Mapping[str, object]) -> dict[str, float]:
    return {name: float(x) for name, x in summary.items() if isinstance(x, int | float)}


def _intervals(samples: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    intervals = {}
    # One that many samples lack, as of few queries by night, is an interval of the others.
    for name in dict.fromkeys(name for sample in samples for name in sample):
        values = np.array([sample.get(name, np.nan) for sample in samples])
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        # Between a number and infinity nothing can be interpolated.
        low = np.quantile(values, (1 - LEVEL) / 2, method='lower')
        high = np.quantile(values, (1 + LEVEL) / 2, method='higher')
        # Where so many samples have lost the median it has no interval.
        if np.isfinite((low, high)).all():
            intervals[name] = (float(low), float(high))
    return intervals
