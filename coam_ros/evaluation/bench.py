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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
import shlex
import sys

from coam_ros.evaluation import aachen, benchmark_localization
from coam_ros.evaluation.benchmark_html import make_html, Picture
from coam_ros.evaluation.benchmark_kinds import PAIR_BENCHMARKS
from coam_ros.evaluation.benchmark_pairs import hash_pairs, ImagePair, match_pairs
from coam_ros.evaluation.benchmark_plots import draw_pair, plot_results
from coam_ros.evaluation.benchmark_report import (
    compare_results,
    format_figure,
    join_runs,
    make_result,
    make_tables,
    read_run,
    Result,
    verdict,
    write_file,
    write_report,
)
from coam_ros.evaluation.benchmark_statistics import (
    NUM_SAMPLES,
    NUM_SAMPLES_OF_RANKING,
    Outcome,
    STATISTICS,
    Summarise,
)
from coam_ros.evaluation.estimators import ESTIMATORS
from coam_ros.evaluation.image_collection import add_collection_arguments, open_collection
from coam_ros.evaluation.localization_sets import every_nth, LAYOUTS, open_localization_set
from coam_ros.evaluation.matcher_choice import (
    add_matcher_arguments,
    ALL,
    chosen_matchers,
    load_retrieval,
)
from coam_ros.evaluation.matchers import MatcherError
from coam_ros.evaluation.oracle_retrieval import OracleRetriever
from coam_ros.evaluation.provenance import (
    describe_run,
    hash_bytes,
    hash_files,
    require_distinct_names,
)
from coam_ros.evaluation.recorded_matcher import RecordedMatcher
from coam_ros.evaluation.sfm_figures import SFM_PROTOCOL, summarise_scene
from coam_ros.evaluation.sweep import NUM_PHOTOS, read_sweep
from coam_ros.localization import LocalizationConfig
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.rendering.photometric import encode_jpeg
import cv2
import numpy as np
from numpy.typing import NDArray
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


Preparing = Callable[[int, int], None]


@dataclass(frozen=True)
class _DataSet:
    """A folder under a benchmark.

    Attributes:
        name: for people.
        content_hash: of its images and of what is true of them.
        size: number of outcomes to come.
        run: what a matcher makes of it, one after the other; the second argument is called with
            (steps, of) of work that comes before the first outcome.
        draw: matches of the outcome of a name, (H, W, 3) uint8 RGB; None = no pictures.
    """

    name: str
    content_hash: str
    size: int
    run: Callable[[RecordedMatcher, Preparing], Iterator[Outcome]]
    draw: Callable[[RecordedMatcher, str], NDArray[np.uint8]] | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What a result says of it."""
        return {'data_set': self.name, 'data_hash': self.content_hash}


@dataclass(frozen=True)
class _Kind:
    """A benchmark: a sub-command.

    Attributes:
        summary: of the sub-command, for its help.
        protocol: what is measured, and how.
        open: what a folder holds.
        summarise: figures of all outcomes, as they are or as read from JSON.
        add_arguments: its own ones.
        error: what the `error` of its outcomes is, with its unit.
        num_samples: of the bootstrap and of the test.
        searches_views: whether our matcher does; see `CoamMatcher.load`.
    """

    summary: str
    protocol: str
    open: Callable[[Path, argparse.Namespace], _DataSet]
    summarise: Summarise
    add_arguments: Callable[[argparse.ArgumentParser], None]
    error: str = ''
    num_samples: int = NUM_SAMPLES
    searches_views: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    _add_report_arguments(parser, compare=[], out=None)
    kinds = parser.add_subparsers(metavar='KIND', dest='kind')
    for name, kind in _KINDS.items():
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


def _add_triangulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--triangulate',
        action='store_true',
        help='3D of the map from the matches of each matcher between the map images, at their '
        'poses, instead of depth images and points of a model; needs pycolmap',
    )


def _add_every(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help='take every N-th pair, for a quick look'
    )


def _add_estimator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--estimator',
        choices=ESTIMATORS,
        default='poselib',
        help='of all matchers: '
        + '; '.join(f'{name} = {e.description}' for name, e in ESTIMATORS.items())
        + ' (%(default)s)',
    )


def _add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    _add_every(parser)
    _add_estimator(parser)


def _add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--photos',
        type=int,
        default=NUM_PHOTOS,
        metavar='N',
        help='take N photos of the folder, evenly by name (%(default)s)',
    )
    _add_estimator(parser)


def _add_localize_arguments(parser: argparse.ArgumentParser) -> None:
    _add_every(parser)
    _add_triangulate(parser)
    parser.add_argument(
        '--num-keyframes',
        type=int,
        default=LocalizationConfig().num_keyframes,
        metavar='N',
        help='keyframes to match with each query (%(default)s)',
    )
    parser.add_argument(
        '--retrieval',
        choices=('ours', 'oracle'),
        default='ours',
        help='what chooses them: our global descriptors, or the true pose (%(default)s)',
    )
    parser.add_argument(
        '--thresholds',
        type=benchmark_localization.parse_threshold,
        nargs='+',
        default=benchmark_localization.THRESHOLDS,
        metavar='M,DEG',
        help='of the recalls, for example 0.05,5 0.25,2 (default: '
        + ' '.join(f'{m:g},{deg:g}' for m, deg in benchmark_localization.THRESHOLDS)
        + ')',
    )


def _add_aachen_arguments(parser: argparse.ArgumentParser) -> None:
    _add_every(parser)
    _add_triangulate(parser)
    parser.add_argument(
        '--num-keyframes',
        type=int,
        default=aachen.NUM_KEYFRAMES,
        metavar='N',
        help='map images to match with each query (%(default)s)',
    )
    parser.add_argument(
        '--pairs',
        type=Path,
        metavar='LIST',
        help='retrieved images, as of hloc: a query and a map image a line (default: our own)',
    )
    parser.add_argument(
        '--truth',
        type=Path,
        metavar='FILE',
        help='true poses, in the form of a submission, for the recalls',
    )
    parser.add_argument(
        '--submissions',
        type=Path,
        default=Path('submissions'),
        metavar='FOLDER',
        help='where the files for the benchmark are written, one a matcher (%(default)s)',
    )


def _add_sfm_arguments(parser: argparse.ArgumentParser) -> None:
    add_collection_arguments(parser)
    parser.add_argument(
        '--models',
        type=Path,
        metavar='FOLDER',
        help='where databases and models are kept, by scene and matcher (default: nowhere)',
    )


def run(args: argparse.Namespace) -> int:
    """Run every matcher on every data set, print the table and write the report."""
    runs = _read_runs(args)
    name = args.kind or next(iter(runs.values()))['benchmark']
    kind = _KINDS[name]
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
        'compared_with': {name: f'commit {run["commit"]}' for name, run in runs.items()},
        'absent': {},
        'comparisons': [],
    }
    results, pictures = [], []
    if args.kind:
        results, pictures = _measure_all(args, kind, report, runs, console)
    results = join_runs(results, runs)
    report['comparisons'] = compare_results(results, kind.summarise, kind.num_samples)
    _print(console, report, results)
    if args.out is not None:
        plot = plot_results(name, results)
        write_report(args.out, report, results)
        page = make_html(report, results, plot, pictures)
        write_file(args.out.with_suffix('.html'), page.encode())
        if plot is not None:
            write_file(args.out.with_suffix('.png'), plot)
        console.print(f'Report: {args.out} and {args.out.with_suffix(".html")}')
    broken = [r for r in results if r['summary']['failed_pairs'] == r['summary']['pairs']]
    for result in broken:
        console.print(f'{result["matcher"]} failed on every pair of {result["data_set"]}.')
    return _ALL_FAILED if broken else 0


def _read_runs(args: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Read the former reports by the name of their file, and check that all fit together."""
    runs = {}
    for path in args.compare:
        if path.stem in runs:
            raise ValueError(f'Reports of equal names: {path.stem} is there twice; rename one.')
        runs[path.stem] = read_run(path)
    kinds = {run['benchmark'] for run in runs.values()} | ({args.kind} if args.kind else set())
    if len(kinds) > 1:
        raise ValueError(f'Reports of several benchmarks: got {sorted(kinds)}, wanted one.')
    if not kinds:
        raise ValueError(
            f'Nothing to measure: wanted one of {", ".join(_KINDS)} with a folder, or --compare '
            'with reports; see coam bench --help.'
        )
    (kind,) = kinds
    if kind not in _KINDS:
        raise ValueError(f'Unknown benchmark {kind!r} in {args.compare}; wanted {list(_KINDS)}.')
    return runs


def _measure_all(
    args: argparse.Namespace,
    kind: _Kind,
    report: dict[str, object],
    runs: Mapping[str, Mapping[str, object]],
    console: Console,
) -> tuple[list[Result], list[Picture]]:
    """Run all matchers; what is absent goes into the report."""
    for option in ('every', 'photos', 'num_keyframes'):
        if getattr(args, option, 1) < 1:
            raise ValueError(
                f'--{option.replace("_", "-")} {getattr(args, option)}, wanted at least 1.'
            )
    if args.out is not None:
        _prepare_out(args.out)
    if args.threads:
        cv2.setNumThreads(args.threads)
    data_sets = _open_data_sets(args, kind)
    # Known now, not after an hour of matching.
    join_runs([{**data_set.identity, 'matcher': 'this run'} for data_set in data_sets], runs)
    results: list[Result] = []
    pictures: list[Picture] = []
    for choice in chosen_matchers(args, searches_views=kind.searches_views):
        try:
            matcher = choice.open(args)
        except MatcherError as error:
            if ALL not in (args.matcher or []):
                raise
            report['absent'][choice.name] = str(error)
            continue
        with closing(matcher):
            for data_set in data_sets:
                result = _measure(data_set, kind, choice.name, matcher, console)
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


def _open_data_sets(args: argparse.Namespace, kind: _Kind) -> list[_DataSet]:
    for directory in args.directories:
        if not directory.is_dir():
            raise FileNotFoundError(f'No folder {directory}; check the path.')
    require_distinct_names(args.directories)
    return [kind.open(directory, args) for directory in args.directories]


def _open_pairs(name: str, directory: Path, args: argparse.Namespace) -> _DataSet:
    return _pairs_as_data_set(
        name, directory, PAIR_BENCHMARKS[name].read(directory)[:: args.every], args
    )


def _open_sweep(directory: Path, args: argparse.Namespace) -> _DataSet:
    return _pairs_as_data_set('sweep', directory, read_sweep(directory, args.photos), args)


def _pairs_as_data_set(
    name: str, directory: Path, pairs: Sequence[ImagePair], args: argparse.Namespace
) -> _DataSet:
    benchmark = PAIR_BENCHMARKS[name]
    estimator = ESTIMATORS[args.estimator]
    groups = {pair.path0: number for number, pair in enumerate(pairs)}

    def run_matcher(matcher: RecordedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        for matched in match_pairs(pairs, matcher):
            yield {
                'name': matched.pair.name,
                'group': groups[matched.pair.path0],
                'num_matches': len(matched.found),
                'duration_s': matched.duration_s,
                'failure': matched.failure,
                **benchmark.judge(matched, estimator),
            }

    def draw(matcher: RecordedMatcher, name: str) -> NDArray[np.uint8]:
        pair = next(pair for pair in pairs if pair.name == name)
        return draw_pair(next(match_pairs([pair], matcher)))

    return _DataSet(directory.resolve().name, hash_pairs(pairs), len(pairs), run_matcher, draw)


def _open_localization(directory: Path, args: argparse.Namespace) -> _DataSet:
    data = open_localization_set(directory)
    data = replace(data, queries=every_nth(data.queries, args.every))
    retrieval = load_retrieval(args)
    keyframe_map = benchmark_localization.build_localization_map(
        data, retrieval, needs_3d=not args.triangulate or args.retrieval == 'oracle'
    )
    oracle = OracleRetriever(keyframe_map) if args.retrieval == 'oracle' else None

    def run_matcher(matcher: RecordedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        return benchmark_localization.localize_queries(
            data.queries,
            _map_for(matcher, keyframe_map, args, preparing),
            matcher,
            retrieval,
            args.num_keyframes,
            oracle=oracle,
            thresholds=args.thresholds,
        )

    return _DataSet(data.name, data.hash(), len(data.queries), run_matcher)


def _map_for(
    matcher: RecordedMatcher,
    keyframe_map: KeyframeMap,
    args: argparse.Namespace,
    preparing: Preparing,
) -> KeyframeMap:
    """Give the map that a matcher localizes in."""
    if not args.triangulate:
        return keyframe_map
    return benchmark_localization.triangulate_map(keyframe_map, matcher, args.threads, preparing)


def _open_aachen(directory: Path, args: argparse.Namespace) -> _DataSet:
    opened = aachen.open_aachen(directory, args.truth, args.pairs)
    data = replace(opened.data, queries=every_nth(opened.data.queries, args.every))
    opened = replace(opened, data=data)
    retrieval = load_retrieval(args)
    keyframe_map = benchmark_localization.build_localization_map(
        data, retrieval, needs_3d=not args.triangulate
    )

    def run_matcher(matcher: RecordedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        name = f'{data.name}_{matcher.model_id.replace(" ", "-")}.txt'
        return aachen.localize_aachen(
            opened,
            _map_for(matcher, keyframe_map, args, preparing),
            matcher,
            retrieval,
            args.num_keyframes,
            args.submissions / name,
        )

    lists = [path.read_bytes() for path in (args.truth, args.pairs) if path is not None]
    content = hash_bytes([data.hash().encode(), *lists])
    return _DataSet(data.name, content, len(data.queries), run_matcher)


def _open_sfm(directory: Path, args: argparse.Namespace) -> _DataSet:
    # COLMAP is an extra.
    from coam_ros.evaluation import sfm

    collection = open_collection(directory, args)
    name = directory.resolve().name

    def run_matcher(matcher: RecordedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        # One outcome: a scene is reconstructed from all of its pairs.
        yield sfm.reconstruct_scene(
            name, collection, matcher, args.merge_radius, args.models, args.threads
        )

    files = [collection.directory / image for image in collection.names]
    words = [' '.join(pair) for pair in collection.pairs]
    content = [hash_files(files, directory), hash_pairs(collection.posed_pairs), *words]
    return _DataSet(name, hash_bytes(word.encode() for word in content), 1, run_matcher)


def _measure(
    data_set: _DataSet, kind: _Kind, name: str, matcher: RecordedMatcher, console: Console
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
    data_set: _DataSet, kind: _Kind, result: Result, matcher: RecordedMatcher, number: int
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


def _pair_kind(name: str, summary: str, num_samples: int = NUM_SAMPLES) -> _Kind:
    benchmark = PAIR_BENCHMARKS[name]
    return _Kind(
        summary,
        benchmark.protocol,
        partial(_open_pairs, name),
        benchmark.summarise,
        _add_pair_arguments,
        benchmark.error,
        num_samples,
    )


_SWEEP = PAIR_BENCHMARKS['sweep']
_KINDS = {
    'pose': _pair_kind(
        'pose', 'relative pose of pairs: lists of SuperGlue, MegaDepth-1500, ScanNet-1500'
    ),
    'homography': _pair_kind(
        'homography', 'accuracy of matches and homographies: layout of HPatches'
    ),
    'localize': _Kind(
        'relocalization: 7-Scenes, TUM, Cambridge, COLMAP models with query lists',
        f'{benchmark_localization.PROTOCOL} {LAYOUTS}',
        _open_localization,
        benchmark_localization.summarise_queries,
        _add_localize_arguments,
        searches_views=False,
    ),
    'aachen': _Kind(
        'Aachen Day-Night: poses for the visual-localization benchmark',
        aachen.PROTOCOL,
        _open_aachen,
        aachen.summarise_aachen,
        _add_aachen_arguments,
        searches_views=False,
    ),
    'sfm': _Kind(
        'structure from motion by COLMAP: how much of a scene is reconstructed',
        SFM_PROTOCOL,
        _open_sfm,
        summarise_scene,
        _add_sfm_arguments,
    ),
    'sweep': _Kind(
        'where a matcher gives up: rotation, scale, tilt, overlap, blur, gamma, noise of photos',
        _SWEEP.protocol,
        _open_sweep,
        _SWEEP.summarise,
        _add_sweep_arguments,
        _SWEEP.error,
    ),
    'ranking': _pair_kind(
        'ranking', 'precision against recall; DIR as of pose or homography', NUM_SAMPLES_OF_RANKING
    ),
}
