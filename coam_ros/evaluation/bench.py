"""Measure matchers side by side: ours, SIFT, ORB, and those of others.

Examples:
  coam bench pose redkitchen outdoor/castle-P30 --matcher all --out pose.json
  coam bench homography hpatches --matcher ours --matcher sift --estimator opencv
  coam bench homography hpatches --model runs/a/model --model runs/b/model --out ab.json
  coam bench sweep photos --matcher all --out sweep.json
  coam bench localize redkitchen --matcher all --out localize.json
  coam bench localize cambridge/ShopFacade --triangulate
  coam bench localize cambridge/ShopFacade --retrieval oracle --thresholds 0.05,5 0.25,2
  coam bench aachen aachen_v1.1 --pairs pairs-query-netvlad50.txt --num-keyframes 20
  coam bench sfm fountain --matcher all --out sfm.json
  coam bench ranking hpatches --out ranking.json
  coam bench --compare monday.json tuesday.json --out both.json

--out RUN.json writes beside it RUN.html, one file with tables, plots and pictures, and RUN.png,
the plots. Matches are kept (--cache), so that an interrupted command continues when it is given
again. The matchers of others run in an environment of their own, which benchmarks/setup_peers.sh
of the checkout makes; what is absent is named.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
import shlex
import sys

from coam_ros.evaluation.bench_kinds import DataSet, Kind, KINDS
from coam_ros.evaluation.files import write_file
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.matchers.choice import add_matcher_arguments, ALL, chosen_matchers
from coam_ros.evaluation.matchers.matcher import MatcherError
from coam_ros.evaluation.metrics.statistics import STATISTICS
from coam_ros.evaluation.provenance import describe_run, require_distinct_names
from coam_ros.evaluation.reports.benchmark_html import make_html, Picture
from coam_ros.evaluation.reports.benchmark_plots import plot_results
from coam_ros.evaluation.reports.benchmark_report import (
    compare_results,
    format_figure,
    join_runs,
    make_result,
    make_tables,
    read_run,
    Result,
    verdict,
    write_report,
)
from coam_ros.matching.image_files import encode_jpeg
import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_JPEG_QUALITY = 80
_MAX_FAILURES_SHOWN = 5
# Exit status when a matcher answered nothing at all: its figures say nothing about it.
_ALL_FAILED = 1
# Arguments that a report records, of the kinds that have them.
_SETTINGS = (
    'every',
    'photos',
    'estimator',
    'num_keyframes',
    'retrieval',
    'triangulate',
    'network_alone',
    'neighbours',
    'merge_radius',
    'threads',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    _add_report_arguments(parser, compare=[], out=None)
    kinds = parser.add_subparsers(metavar='KIND', dest='kind')
    for name, kind in KINDS.items():
        child = kinds.add_parser(
            name, help=kind.summary, description=f'{kind.protocol} {STATISTICS}'
        )
        child.add_argument('directories', type=Path, nargs='+', metavar='DIR', help='data set')
        kind.add_arguments(child)
        add_matcher_arguments(child)
        child.add_argument(
            '--pictures',
            type=int,
            default=3,
            metavar='N',
            help='how many of the worst and of the best pairs the HTML report shows (%(default)s)',
        )
        # What was said before KIND stays when it is not said again.
        _add_report_arguments(child, compare=argparse.SUPPRESS, out=argparse.SUPPRESS)


def _add_report_arguments(parser: argparse.ArgumentParser, compare: object, out: object) -> None:
    parser.add_argument(
        '--compare',
        type=Path,
        nargs='+',
        default=compare,
        metavar='RUN',
        help='former reports (JSON) to lay beside this run; without KIND, side by side alone',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=out,
        metavar='RUN.json',
        help='report to write; RUN.html and RUN.png come beside it',
    )


def run(args: argparse.Namespace) -> int:
    """Run every matcher on every data set, print the table and write the report."""
    if args.out is not None:
        _prepare_out(args.out)
    runs = _read_runs(args)
    name = args.kind or next(iter(runs.values()))['benchmark']
    kind = KINDS[name]
    console = Console(markup=False)  # units stand in brackets
    report = {
        **describe_run(),
        'command': shlex.join(['coam', *sys.argv[1:]]),
        'benchmark': name,
        'protocol': kind.protocol,
        'statistics': STATISTICS,
        'settings': {
            setting: getattr(args, setting) for setting in _SETTINGS if hasattr(args, setting)
        },
        'compared_with': {name: _describe_former(run) for name, run in runs.items()},
        'absent': {},
        'comparisons': [],
    }
    results, pictures = [], []
    if args.kind:
        results, pictures = _measure_all(args, kind, report, runs, console)
    results = join_runs(results, runs)
    try:
        report['comparisons'] = compare_results(results, kind.summarise, kind.num_samples)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'What {", ".join(runs)} measured is not what this version of `coam bench {name}` '
            f'compares ({type(error).__name__} {error}); measure again.'
        ) from error
    _print(console, report, results)
    if args.out is not None:
        plot = plot_results(name, results)
        write_report(args.out, report, results)
        page = make_html(report, results, plot, pictures)
        write_file(args.out.with_suffix('.html'), page.encode())
        if plot is not None:
            write_file(args.out.with_suffix('.png'), plot)
        console.print(f'Report: {args.out} and {args.out.with_suffix(".html")}')
    broken = [result for result in results if _failed_throughout(result)]
    for result in broken:
        console.print(f'{result["matcher"]} failed on every pair of {result["data_set"]}.')
    return _ALL_FAILED if broken else 0


def _failed_throughout(result: Result) -> bool:
    # A scene, or a query, counts as one pair here but has several; one of them failing is not all.
    summary = result['summary']
    return summary['failed_pairs'] == summary['pairs'] and not summary['mean_matches']


def _describe_former(run: Mapping[str, object]) -> str:
    settings = ', '.join(f'{name} {value}' for name, value in run.get('settings', {}).items())
    machine = run.get('machine', 'machine unknown')
    return f'commit {run["commit"]}, {machine}, {settings or "settings unknown"}'


def _read_runs(args: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Read the former reports by the name of their file, and check that all fit together."""
    runs = {}
    for path in args.compare:
        if path.stem in runs:
            raise ValueError(f'Reports of equal names: {path.stem} is there twice; rename one.')
        runs[path.stem] = read_run(path)
    kinds = {run['benchmark'] for run in runs.values()} | ({args.kind} if args.kind else set())
    if len(kinds) > 1:
        raise ValueError(
            f'Reports of several benchmarks: got {sorted(kinds)}, wanted one; leave some out.'
        )
    if not kinds:
        raise ValueError(
            f'Nothing to measure: wanted one of {", ".join(KINDS)} with a folder, or --compare '
            'with reports; see coam bench --help.'
        )
    (kind,) = kinds
    if kind not in KINDS:
        raise ValueError(f'Unknown benchmark {kind!r} in {args.compare}; wanted {list(KINDS)}.')
    return runs


def _measure_all(
    args: argparse.Namespace,
    kind: Kind,
    report: dict[str, object],
    runs: Mapping[str, Mapping[str, object]],
    console: Console,
) -> tuple[list[Result], list[Picture]]:
    """Run all matchers; what is absent goes into the report."""
    for option in ('every', 'photos', 'num_keyframes'):
        if getattr(args, option, 1) < 1:
            raise ValueError(
                f'--{option.replace("_", "-")} {getattr(args, option)}, wanted at least 1; '
                'correct it.'
            )
    if args.threads:
        cv2.setNumThreads(args.threads)
    data_sets = _open_data_sets(args, kind)
    # Known now, not after an hour of matching.
    join_runs([{**data_set.identity, 'matcher': 'this run'} for data_set in data_sets], runs)
    results: list[Result] = []
    pictures: list[Picture] = []
    with ExitStack() as stack:
        # What is absent shows before the first one is measured.
        matchers: list[tuple[str, CachedMatcher]] = []
        for choice in chosen_matchers(args, searches_views=kind.searches_views):
            try:
                matcher = choice.open(args)
            except MatcherError as error:
                if ALL not in (args.matcher or []):
                    raise
                report['absent'][choice.name] = str(error)
                continue
            stack.callback(matcher.close)
            matchers.append((choice.name, matcher))
        for name, matcher in matchers:
            for data_set in data_sets:
                result = _measure(data_set, kind, name, matcher, console)
                results.append(result)
                if args.out is not None:
                    # A run that is interrupted leaves what it has.
                    write_report(args.out, report, results)
                    pictures += _draw(data_set, kind, result, matcher, args.pictures)
    return results, pictures


def _prepare_out(out: Path) -> None:
    """Make the folder of the report, before the work that would be lost without it."""
    if out.suffix != '.json':
        raise ValueError(f'--out {out}, wanted a name that ends with .json.')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f'--out {out}: its folder cannot be made ({error.strerror})'
        ) from error


def _print(console: Console, report: Mapping[str, object], results: Sequence[Result]) -> None:
    console.print(report['protocol'])
    for table in make_tables(results):
        console.print(table)
    for name, model_id in dict.fromkeys((r['matcher'], r['model_id']) for r in results):
        console.print(f'{name}: {model_id}')
    for comparison in report['comparisons']:
        console.print(verdict(comparison))
    for result in results:
        _print_failures(console, result)
    for name, reason in report['absent'].items():
        console.print(f'Left out: {name}. {reason}')


def _print_failures(console: Console, result: Result) -> None:
    where = f'{result["matcher"]} failed on {result["data_set"]}'
    failures = list(result['failures'].items())
    for pair, reason in failures[:_MAX_FAILURES_SHOWN]:
        console.print(f'{where}, {pair}: {reason}')
    if len(failures) > _MAX_FAILURES_SHOWN:
        console.print(f'{where}, {len(failures)} pairs in all; the report names them.')


def _open_data_sets(args: argparse.Namespace, kind: Kind) -> list[DataSet]:
    for directory in args.directories:
        if not directory.is_dir():
            raise FileNotFoundError(f'No folder {directory}; check the path.')
    require_distinct_names(args.directories)
    return [kind.open(directory, args) for directory in args.directories]


def _measure(
    data_set: DataSet, kind: Kind, name: str, matcher: CachedMatcher, console: Console
) -> Result:
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    kept_before = matcher.num_kept
    with Progress(*columns, console=console, transient=True) as progress:
        description = f'{data_set.name}: {name}'
        task = progress.add_task(description, total=data_set.size)

        def preparing(done: int, total: int) -> None:
            progress.update(task, description=f'{description}, map', completed=done, total=total)

        iterator = data_set.run(matcher, preparing)
        progress.reset(task, description=description, total=data_set.size)
        outcomes = list(progress.track(iterator, task_id=task))
    identity = {
        **data_set.identity,
        'matcher': name,
        'model_id': matcher.model_id,
        'matcher_hash': matcher.content_hash,
        'kept_matches': matcher.num_kept - kept_before,
    }
    return make_result(identity, outcomes, kind.summarise, kind.num_samples)


def _draw(
    data_set: DataSet, kind: Kind, result: Result, matcher: CachedMatcher, number: int
) -> Iterator[Picture]:
    """Draw the worst and the best pairs; the matches are those kept."""
    if data_set.draw is None or number < 1:
        return
    outcomes = [o for o in result['per_pair'] if not o['failure']]
    ranked = sorted(outcomes, key=lambda o: np.inf if o['error'] is None else o['error'])
    half = min(number, len(ranked) // 2)
    chosen = {'worst': ranked[len(ranked) - half :][::-1], 'best': ranked[:half]}
    for word, part in chosen.items():
        for outcome in part:
            error = outcome['error']
            caption = (
                f'among the {word}: {outcome["name"]}, {outcome["num_matches"]} matches, '
                f'{kind.error} {"none" if error is None else format_figure("error", error)}'
            )
            picture = data_set.draw(matcher, outcome['name'])
            jpeg = encode_jpeg(picture, _JPEG_QUALITY)
            yield Picture(data_set.name, result['matcher'], caption, jpeg)
