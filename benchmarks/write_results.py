#!/usr/bin/env python3
"""Writes the tables of docs/results.md and docs/failures.md from reports of `coam bench`.

benchmarks/write_results.py RUN.json ... [--data FOLDER] [--matcher ours] [--docs docs]

Only what stands between the two marks is replaced; what people wrote around it stays. Pictures of
the cases are in the HTML reports of runs with --pictures 20: photos of others are not committed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coam_ros.evaluation.benchmarks.image_pairs import CORNER_AUC_PX, POSE_AUC_DEG
from coam_ros.evaluation.files import write_file
from coam_ros.evaluation.reports.benchmark_report import (
    data_set_names,
    read_run,
    Result,
    tabulate,
    verdict,
)

BEGIN, END = '<!-- written by benchmarks/write_results.py -->', '<!-- end of what it wrote -->'
TITLES = {
    'results.md': '# Results on the development sets',
    'failures.md': '# Where it fails',
}
NUM_FAILURES = 20
# By benchmark: what `error` is, and from where on it does not matter how large it is.
ERRORS = {
    'pose': ('deg', POSE_AUC_DEG[-1]),
    'homography': ('px', CORNER_AUC_PX[-1]),
}


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', type=Path, nargs='+', metavar='RUN.json')
    parser.add_argument('--data', metavar='FOLDER', help='written as DATA where it occurs')
    parser.add_argument('--matcher', default='ours', help='whose failures (%(default)s)')
    parser.add_argument('--docs', type=Path, default=Path('docs'), help='(%(default)s)')
    args = parser.parse_args()
    runs = [read_run(path) for path in args.runs]
    parts = {
        'results.md': [line for run in runs for line in results_of(run)],
        'failures.md': list(failures_of(runs, args.matcher)),
    }
    for name, lines in parts.items():
        text = '\n'.join(lines)
        if args.data:
            text = text.replace(args.data.rstrip('/'), 'DATA')
        replace_part(args.docs / name, TITLES[name], text)


def results_of(run: Mapping[str, object]) -> Iterator[str]:
    """Give the lines of one run: where its figures come from, tables, comparisons."""
    yield f'## coam bench {run["benchmark"]}\n'
    yield f'Commit `{run["commit"]}`, {run["date"]}, {run["machine"]}:\n'
    yield f'```bash\n{run["command"]}\n```\n'
    yield f'{run["protocol"]} {run["statistics"]}\n'
    for data_set in data_set_names(run['results']):
        names, rows = tabulate(run['results'], data_set)
        yield from table([data_set, *names], rows)
        for comparison in run['comparisons']:
            if comparison['data_set'] == data_set:
                yield f'- {verdict(comparison)}'
        yield ''
    for name, model_id in dict.fromkeys((r['matcher'], r['model_id']) for r in run['results']):
        yield f'- {name}: {model_id}'
    yield ''
    for result in run['results']:
        for pair, reason in result['failures'].items():
            yield f'{result["matcher"]} failed on {result["data_set"]}, {pair}: {reason}\n'
    for name, reason in run['absent'].items():
        yield f'Left out: {name}. {reason}\n'


def failures_of(runs: Sequence[Mapping[str, object]], matcher: str) -> Iterator[str]:
    """Give the table of the worst pairs of a matcher, those first that another one solves.

    Of a data set that stands in several runs, the first one counts.
    """
    cases, seen = [], set()
    for run in runs:
        if run['benchmark'] not in ERRORS:
            continue
        unit, limit = ERRORS[run['benchmark']]
        for result in run['results']:
            key = run['benchmark'], result['data_set']
            if result['matcher'] == matcher and key not in seen:
                seen.add(key)
                others = [
                    other
                    for other in run['results']
                    if other['data_set'] == result['data_set'] and other is not result
                ]
                cases += _cases(result, others, unit, limit)
    cases.sort(key=lambda case: case[0])
    yield from table(
        ['data set', 'pair', 'error', 'matches', 'best other matcher', 'its error'],
        [row for _, row in cases[:NUM_FAILURES]],
    )


def _cases(
    result: Result, others: Sequence[Result], unit: str, limit: float
) -> Iterator[tuple[tuple[float, float], tuple[str, ...]]]:
    """Give each pair with a key by which the worst come first."""
    by_name = [(o['matcher'], {p['name']: p['error'] for p in o['per_pair']}) for o in others]
    for pair in result['per_pair']:
        answers = [(_capped(e.get(pair['name']), limit), name) for name, e in by_name]
        best = min((error for error, _ in answers), default=limit)
        # Where all are lost none is best.
        name = '-' if best >= limit else next(name for error, name in answers if error == best)
        own = _capped(pair['error'], limit)
        row = (
            result['data_set'],
            pair['name'],
            _as_text(own, unit, limit),
            str(pair['num_matches']),
            name,
            _as_text(best, unit, limit) if answers else '-',
        )
        yield (-own / limit, best / limit), row


def _capped(error: float | None, limit: float) -> float:
    return limit if error is None else min(error, limit)


def _as_text(error: float, unit: str, limit: float) -> str:
    return f'over {limit:g} {unit}' if error >= limit else f'{error:.1f} {unit}'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give the lines of a table in Markdown, and an empty one."""
    for cells in (header, ['---'] * len(header), *rows):
        yield f'| {" | ".join(cell.replace("|", "/") for cell in cells)} |'
    yield ''


def replace_part(path: Path, title: str, text: str) -> None:
    """Put a text between the marks of a file; a new file gets a title and marks."""
    content = (
        path.read_text(encoding='utf-8') if path.is_file() else f'{title}\n\n{BEGIN}\n{END}\n'
    )
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f'{path} lacks the marks {BEGIN!r} and {END!r}; add them on own lines.')
    write_file(path, f'{before}{BEGIN}\n\n{text}\n{END}{after}'.encode())


if __name__ == '__main__':
    main()
