"""Results of benchmarks: summary, JSON, table, plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from pathlib import Path

from coam_ros.evaluation.localization_report import to_json_values
import numpy as np
from rich.table import Table

Result = Mapping[str, object]


def make_result(
    identity: Mapping[str, object],
    outcomes: Sequence[Mapping[str, object]],
    figures: Mapping[str, object],
) -> Result:
    """Join what is known of one matcher on one data set.

    Args:
        identity: which ones; with `data_set` and `matcher`, their names.
        outcomes: of the pairs; each with `name`, `num_matches`, `duration_s`, `failure`.
        figures: of the benchmark.
    """
    failures = {o['name']: o['failure'] for o in outcomes if o['failure']}
    summary = {
        **figures,
        'pairs': len(outcomes),
        'failed_pairs': len(failures),
        'mean_matches': float(np.mean([o['num_matches'] for o in outcomes])),
        'median_ms_per_pair': 1000 * float(np.median([o['duration_s'] for o in outcomes])),
    }
    return {
        **identity,
        'summary': summary,
        'failures': failures,
        'per_pair': outcomes,
    }


def write_report(path: Path, header: Mapping[str, object], results: Sequence[Result]) -> None:
    """Write all results; a former file stays whole until the new one is."""
    report = to_json_values({**header, 'results': list(results)})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + '.part')
    unfinished.write_text(json.dumps(report, allow_nan=False) + '\n', encoding='utf-8')
    unfinished.replace(path)


def make_tables(results: Sequence[Result]) -> list[Table]:
    """Lay the matchers side by side, a table for each data set; shares are in percent."""
    tables = []
    for data_set in _data_sets(results):
        columns = [result for result in results if result['data_set'] == data_set]
        table = Table('', title=data_set)
        for result in columns:
            table.add_column(result['matcher'], justify='right')
        for key, value in columns[0]['summary'].items():
            if isinstance(value, int | float):
                table.add_row(
                    key.replace('_', ' '), *(_format(key, r['summary'][key]) for r in columns)
                )
        tables.append(table)
    return tables


def plot_rankings(path: Path, results: Sequence[Result]) -> None:
    """Draw precision against recall, a plot for each data set."""
    # matplotlib takes half a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data_sets = _data_sets(results)
    figure = Figure(figsize=(5.5 * len(data_sets), 4.5), layout='constrained')
    grid = figure.subplots(1, len(data_sets), squeeze=False)[0]
    for axes, data_set in zip(grid, data_sets, strict=True):
        for result in results:
            if result['data_set'] == data_set:
                summary = result['summary']
                for name, precision in summary['precision_by_ranking'].items():
                    axes.plot(summary['recall'], precision, label=f'{result["matcher"]}, {name}')
        axes.set(title=data_set, xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(str(path), dpi=110)


def _data_sets(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result['data_set'] for result in results))


def _format(key: str, value: float) -> str:
    if isinstance(value, int):
        return str(value)
    is_share = key.startswith(('auc', 'mma', 'recall')) or 'precision' in key
    return f'{100 * value:.1f}' if is_share else f'{value:.0f}' if value >= 10 else f'{value:.2f}'
