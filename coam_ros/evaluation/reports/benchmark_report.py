"""Results of benchmarks: summary, comparison, JSON, table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
import json
from pathlib import Path
import re

from coam_ros.evaluation.files import to_json_values, write_json
from coam_ros.evaluation.metrics.statistics import (
    bootstrap_intervals,
    compare,
    Outcome,
    SIGNIFICANT,
    Summarise,
)
import numpy as np
from rich.table import Table

Result = Mapping[str, object]


def make_result(
    identity: Mapping[str, object],
    outcomes: Sequence[Outcome],
    summarise: Summarise,
    num_samples: int,
) -> Result:
    """Join what is known of one matcher on one data set, in values that JSON has.

    Args:
        identity: which ones; with `data_set` and `matcher`, their names, and `data_hash`.
        outcomes: of the pairs; each with `name`, `num_matches`, `duration_s`, `failure`, and
            where pairs can be ranked `error`.
        summarise: figures of the benchmark.
        num_samples: of the bootstrap.
    """
    failures = {o['name']: o['failure'] for o in outcomes if o['failure']}
    all_figures = _with_costs(summarise)
    summary = {
        **all_figures(outcomes),
        'pairs': len(outcomes),
        'failed_pairs': len(failures),
    }
    result = {
        **identity,
        'summary': summary,
        'intervals': bootstrap_intervals(outcomes, all_figures, num_samples),
        'failures': failures,
        'per_pair': outcomes,
    }
    return to_json_values(result)


def _with_costs(summarise: Summarise) -> Summarise:
    """Add to the figures of a benchmark what every matcher has: number of matches and time.

    The time is that of the pairs matched in this very run; kept matches say nothing of it.
    """

    def summarise_all(outcomes: Sequence[Outcome]) -> dict[str, object]:
        return {
            **summarise(outcomes),
            'mean_matches': float(np.mean([o['num_matches'] for o in outcomes])),
            'median_ms_per_pair': _median_ms(outcomes),
        }

    return summarise_all


def _median_ms(outcomes: Sequence[Outcome]) -> float | None:
    durations_s = [o['duration_s'] for o in outcomes if o['duration_s'] is not None]
    return 1000 * float(np.median(durations_s)) if durations_s else None


def compare_results(
    results: Sequence[Result], summarise: Summarise, num_samples: int
) -> list[dict[str, object]]:
    """Compare the first matcher with each other one, a data set after the other.

    Args:
        results: of one benchmark; those of one data set are of the same pairs.
        summarise: figures of the benchmark.
        num_samples: of the bootstrap and of the test.

    Returns:
        For each two: `data_set`, names `a` and `b`, and `figures`: by name the difference a - b,
        its interval and its p_value.
    """
    comparisons = []
    for data_set in data_set_names(results):
        first, *others = (result for result in results if result['data_set'] == data_set)
        for other in others:
            figures = compare(
                first['per_pair'], other['per_pair'], _with_costs(summarise), num_samples
            )
            if first.get('run') != other.get('run'):
                # Of another machine, or of this one busy with something else.
                figures.pop('median_ms_per_pair', None)
            comparisons.append(
                {
                    'data_set': data_set,
                    'a': first['matcher'],
                    'b': other['matcher'],
                    'figures': {name: asdict(figure) for name, figure in figures.items()},
                }
            )
    return comparisons


def verdict(comparison: Mapping[str, object]) -> str:
    """Say in a sentence in what A is better than B, and in what it is worse."""
    better, worse, rest = [], [], 0
    for name, figure in comparison['figures'].items():
        difference = figure['difference']
        # More matches are neither better nor worse.
        if not is_shown(name) or name == 'mean_matches':
            continue
        if figure['p_value'] > SIGNIFICANT:
            rest += 1
            continue
        sign = '-' if difference < 0 else '+'
        text = f'{name} ({sign}{format_figure(name, abs(difference))}, p {figure["p_value"]:.3f})'
        gain = -difference if _is_less_better(name) else difference
        (better if gain > 0 else worse).append(text)
    parts = [
        f'{word} in {", ".join(names)}'
        for word, names in (('better', better), ('worse', worse))
        if names
    ]
    if rest:
        parts.append(f'no difference shown in {rest} figures')
    return (
        f'{comparison["data_set"]}: {comparison["a"]} against {comparison["b"]}: '
        f'{"; ".join(parts) or "too few pairs to tell"}.'
    )


def _is_less_better(name: str) -> bool:
    return 'error' in name or '_ms_' in name


def read_run(path: Path) -> dict[str, object]:
    """Read a report that `write_report` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no report of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(f'No report {path}; give a file that --out wrote.')
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        wanted = {'data_set', 'data_hash', 'matcher', 'summary', 'intervals', 'per_pair'}
        missing = {'benchmark', 'commit', 'results'} - report.keys()
        for result in () if missing else report['results']:
            missing |= wanted - result.keys()
    except (ValueError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is no report of `coam bench`: {error}.') from error
    if missing:
        raise ValueError(
            f'{path} is no report of this version of `coam bench`: it lacks '
            f'{", ".join(sorted(missing))}; measure again.'
        )
    return report


def join_runs(results: Sequence[Result], runs: Mapping[str, Mapping[str, object]]) -> list[Result]:
    """Lay the results of former runs beside new ones.

    Args:
        results: new ones; may be none.
        runs: reports by name; the name joins that of the matcher, and is its `run`.

    Raises:
        ValueError: a data set has the same name and other content.
    """
    joined = list(results)
    for name, run in runs.items():
        for result in run['results']:
            joined.append({**result, 'matcher': f'{result["matcher"]} ({name})', 'run': name})
    for data_set in data_set_names(joined):
        hashes = {r['matcher']: r['data_hash'] for r in joined if r['data_set'] == data_set}
        if len(set(hashes.values())) > 1:
            raise ValueError(
                f'Data set {data_set} is not the same in all runs (content, or --every): got '
                f'{hashes}; measure again on one of them.'
            )
    return joined


def write_report(path: Path, header: Mapping[str, object], results: Sequence[Result]) -> None:
    """Write all results as JSON; see `write_json`."""
    write_json(path, {**header, 'results': list(results)}, indent=None)


def make_tables(results: Sequence[Result]) -> list[Table]:
    """Lay the matchers side by side, a table for each data set; shares are in percent."""
    tables = []
    for data_set in data_set_names(results):
        names, rows = tabulate(results, data_set)
        table = Table('', title=data_set)
        for name in names:
            table.add_column(name, justify='right', overflow='fold')
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def tabulate(results: Sequence[Result], data_set: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """Give the names of the matchers, and rows of a figure's name and its values as text."""
    columns = [result for result in results if result['data_set'] == data_set]
    figures = dict.fromkeys(
        name
        for result in columns
        for name, value in result['summary'].items()
        if (value is None or isinstance(value, int | float)) and is_shown(name)
    )
    rows = [
        (name.replace('_', ' '), *(_cell(name, result) for result in columns)) for name in figures
    ]
    return [result['matcher'] for result in columns], rows


def _cell(name: str, result: Result) -> str:
    value = result['summary'].get(name)
    if value is None:
        return '-'
    text = format_figure(name, value)
    if name in result['intervals']:
        low, high = result['intervals'][name]
        text += f' ±{format_figure(name, (high - low) / 2)}'
    return text


def is_shown(figure: str) -> bool:
    """Say whether a figure belongs in a table: levels of a sweep and most MMAs are for plots."""
    return ' at ' not in figure and not re.match(r'mma_[246789]px', figure)


def data_set_names(results: Sequence[Result]) -> list[str]:
    """Name the data sets of results, in their order."""
    return list(dict.fromkeys(result['data_set'] for result in results))


def format_figure(name: str, value: float) -> str:
    """Write a figure as in tables; shares in percent."""
    if isinstance(value, int):
        return str(value)
    is_share = name.startswith(('auc', 'mma', 'success', 'share')) or any(
        word in name for word in ('precision', 'recall')
    )
    return f'{100 * value:.1f}' if is_share else f'{value:.0f}' if value >= 10 else f'{value:.2f}'
