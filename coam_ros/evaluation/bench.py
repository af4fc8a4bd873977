"""Measure matchers side by side: ours, SIFT, XFeat, ALIKED + LightGlue.

Examples:
  coam bench pose redkitchen outdoor/castle-P30 --matcher all --out pose.json
  coam bench homography hpatches --matcher ours --model runs/a/model --model runs/b/model
  coam bench localize redkitchen --matcher all
  coam bench ranking hpatches --plot ranking.png

The matchers of others run in an environment of their own, which benchmarks/setup_peers.sh of the
checkout makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from coam_ros.evaluation import benchmark_localization
from coam_ros.evaluation.benchmark_kinds import PAIR_BENCHMARKS
from coam_ros.evaluation.benchmark_pairs import hash_pairs, match_pairs
from coam_ros.evaluation.benchmark_report import (
    make_result,
    make_tables,
    plot_rankings,
    Result,
    write_report,
)
from coam_ros.evaluation.matcher_choice import (
    add_matcher_arguments,
    ALL,
    chosen_matchers,
)
from coam_ros.evaluation.matchers import MatcherError
from coam_ros.evaluation.provenance import describe_run, hash_files
from coam_ros.evaluation.recorded_matcher import RecordedMatcher
from coam_ros.localization import LocalizationConfig
from coam_ros.mapping.builder import build_map
from coam_ros.mapping.importers.seven_scenes import read_frames
from coam_ros.matching import CoamMatcher
import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Outcome = Mapping[str, object]


@dataclass(frozen=True)
class _DataSet:
    """A folder under a benchmark.

    Attributes:
        name: for people.
        content_hash: of its images and of what is true of them.
        size: number of outcomes to come.
        run: what a matcher makes of it, one after the other.
        summarise: figures of all outcomes.
    """

    name: str
    content_hash: str
    size: int
    run: Callable[[RecordedMatcher], Iterator[Outcome]]
    summarise: Callable[[Sequence[Outcome]], dict[str, object]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    kinds = parser.add_subparsers(required=True, metavar='KIND', dest='kind')
    _add_kind(kinds, 'pose', 'relative pose of pairs: DIR/pairs.txt as of SuperGlue')
    _add_kind(kinds, 'homography', 'accuracy of matches and homographies: layout of HPatches')
    localize = _add_kind(kinds, 'localize', 'relocalization: 7-Scenes, map.txt and query.txt')
    localize.add_argument(
        '--num-keyframes',
        type=int,
        default=LocalizationConfig().num_keyframes,
        metavar='N',
        help='keyframes to match with each query (%(default)s)',
    )
    ranking = _add_kind(kinds, 'ranking', 'precision against recall; DIR as of pose or homography')
    ranking.add_argument('--plot', type=Path, metavar='FILE', help='picture of the curves')


def _add_kind(
    kinds: argparse._SubParsersAction, name: str, summary: str
) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=summary, description=_protocol(name))
    parser.add_argument('directories', type=Path, nargs='+', metavar='DIR', help='data set')
    add_matcher_arguments(parser)
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help='take every N-th pair, for a quick look'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='report to write, JSON')
    return parser


def _protocol(kind: str) -> str:
    if kind in PAIR_BENCHMARKS:
        return PAIR_BENCHMARKS[kind].protocol
    return benchmark_localization.PROTOCOL


def run(args: argparse.Namespace) -> int:
    """Run every matcher on every data set, print the table and write the report."""
    if args.every < 1:
        raise ValueError(f'--every {args.every}, wanted at least 1; 1 takes all pairs.')
    console = Console()
    if args.threads:
        cv2.setNumThreads(args.threads)
    data_sets = _open_data_sets(args)
    header = {
        **describe_run(),
        'benchmark': args.kind,
        'protocol': _protocol(args.kind),
        'settings': {
            name: getattr(args, name)
            for name in ('every', 'threads', 'num_keyframes')
            if hasattr(args, name)
        },
        'absent': {},
    }
    results: list[Result] = []
    for choice in chosen_matchers(args):
        try:
            matcher = choice.open(args)
        except MatcherError as error:
            if ALL not in (args.matcher or []):
                raise
            header['absent'][choice.name] = str(error)
            continue
        with closing(matcher):
            for data_set in data_sets:
                results.append(_measure(data_set, choice.name, matcher, console))
                if args.out is not None:
                    write_report(args.out, header, results)

    console.print(_protocol(args.kind))
    for table in make_tables(results):
        console.print(table)
    for result in results:
        for pair, reason in result['failures'].items():
            console.print(f'{result["matcher"]} failed on {result["data_set"]}, {pair}: {reason}')
    for name, reason in header['absent'].items():
        console.print(f'Left out: {name}. {reason}')
    if args.out is not None:
        write_report(args.out, header, results)  # once more: what is absent was not known before
        console.print(f'Report: {args.out}')
    if getattr(args, 'plot', None) is not None:
        plot_rankings(args.plot, results)
        console.print(f'Plot: {args.plot}')
    return 0


def _open_data_sets(args: argparse.Namespace) -> list[_DataSet]:
    for directory in args.directories:
        if not directory.is_dir():
            raise FileNotFoundError(f'No folder {directory}; check the path.')
    names = [directory.resolve().name for directory in args.directories]
    if len(set(names)) < len(names):
        raise ValueError(f'Data sets of equal names: got {names}; measure them in two calls.')
    if args.kind == 'localize':
        model = (args.model or [None])[0]
        retrieval = CoamMatcher.load(model, num_threads=args.threads)
        return [_open_recording(directory, retrieval, args) for directory in args.directories]
    return [_open_pairs(directory, args) for directory in args.directories]


def _open_pairs(directory: Path, args: argparse.Namespace) -> _DataSet:
    benchmark = PAIR_BENCHMARKS[args.kind]
    pairs = benchmark.read(directory)[:: args.every]

    def run_matcher(matcher: RecordedMatcher) -> Iterator[Outcome]:
        for matched in match_pairs(pairs, matcher):
            yield {
                'name': matched.pair.name,
                'num_matches': len(matched.found),
                'duration_s': matched.duration_s,
                'failure': matched.failure,
                **benchmark.judge(matched),
            }

    return _DataSet(
        directory.resolve().name,
        hash_pairs(pairs),
        len(pairs),
        run_matcher,
        benchmark.summarise,
    )


def _open_recording(directory: Path, retrieval: CoamMatcher, args: argparse.Namespace) -> _DataSet:
    queries = read_frames(directory, 'query.txt')
    keyframe_map = build_map(read_frames(directory, 'map.txt'), retrieval)

    def run_matcher(matcher: RecordedMatcher) -> Iterator[Outcome]:
        return benchmark_localization.localize_queries(
            queries, args.every, keyframe_map, matcher, retrieval, args.num_keyframes
        )

    return _DataSet(
        directory.resolve().name,
        hash_files(_frame_files(directory), directory),
        len(range(0, len(queries), args.every)),
        run_matcher,
        benchmark_localization.summarise_queries,
    )


def _frame_files(directory: Path) -> list[Path]:
    """List what decides a result on a recording."""
    lists = [directory / name for name in ('map.txt', 'query.txt', 'intrinsics.txt')]
    return [*lists, *directory.glob('frame-*')]


def _measure(data_set: _DataSet, name: str, matcher: RecordedMatcher, console: Console) -> Result:
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    kept_before = matcher.num_kept
    with Progress(*columns, console=console, transient=True) as progress:
        iterator = data_set.run(matcher)
        description = f'{data_set.name}: {name}'
        outcomes = list(progress.track(iterator, total=data_set.size, description=description))
    identity = {
        'data_set': data_set.name,
        'data_hash': data_set.content_hash,
        'matcher': name,
        'model_id': matcher.model_id,
        'matcher_hash': matcher.content_hash,
        'kept_matches': matcher.num_kept - kept_before,
    }
    return make_result(identity, outcomes, data_set.summarise(outcomes))
