"""The kinds of `coam bench`: the arguments of each, what a folder of it holds, its figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from coam_ros.evaluation.benchmarks import aachen, localization, sfm
from coam_ros.evaluation.benchmarks.estimators import ESTIMATORS
from coam_ros.evaluation.benchmarks.image_pairs import PAIR_BENCHMARKS, PairBenchmark
from coam_ros.evaluation.benchmarks.matching import match_pairs
from coam_ros.evaluation.benchmarks.oracle_retrieval import OracleRetriever
from coam_ros.evaluation.data.aachen import open_aachen
from coam_ros.evaluation.data.image_collection import add_collection_arguments, open_collection
from coam_ros.evaluation.data.image_pairs import hash_pairs, ImagePair, read_planar_pairs
from coam_ros.evaluation.data.localization_sets import (
    every_nth,
    LAYOUTS,
    LocalizationSet,
    open_localization_set,
)
from coam_ros.evaluation.data.pair_lists import read_any_pairs, read_pair_lists
from coam_ros.evaluation.data.sweep import NUM_PHOTOS, read_sweep
from coam_ros.evaluation.files import output_folder
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.matchers.choice import load_retrieval
from coam_ros.evaluation.metrics.statistics import (
    NUM_SAMPLES,
    NUM_SAMPLES_OF_RANKING,
    Outcome,
    Summarise,
)
from coam_ros.evaluation.provenance import hash_bytes, hash_files
from coam_ros.evaluation.reports.benchmark_plots import draw_pair
from coam_ros.localization import LocalizationConfig
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import CoamMatcher
import numpy as np
from numpy.typing import NDArray

Preparing = Callable[[int, int], None]
ReadPairs = Callable[[Path, argparse.Namespace], Sequence[ImagePair]]


@dataclass(frozen=True)
class DataSet:
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
    run: Callable[[CachedMatcher, Preparing], Iterator[Outcome]]
    draw: Callable[[CachedMatcher, str], NDArray[np.uint8]] | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What a result says of it."""
        return {'data_set': self.name, 'data_hash': self.content_hash}


@dataclass(frozen=True)
class Kind:
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
    open: Callable[[Path, argparse.Namespace], DataSet]
    summarise: Summarise
    add_arguments: Callable[[argparse.ArgumentParser], None]
    error: str = ''
    num_samples: int = NUM_SAMPLES
    searches_views: bool = True


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
        type=localization.parse_threshold,
        nargs='+',
        default=localization.THRESHOLDS,
        metavar='M,DEG',
        help='of the recalls, for example 0.05,5 0.25,2 (default: '
        + ' '.join(f'{m:g},{deg:g}' for m, deg in localization.THRESHOLDS)
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
        type=output_folder,
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


def _open_pairs(
    benchmark: PairBenchmark, read: ReadPairs, directory: Path, args: argparse.Namespace
) -> DataSet:
    pairs = read(directory, args)
    estimator = ESTIMATORS[args.estimator]()
    groups = {pair.path0: number for number, pair in enumerate(pairs)}

    def run_matcher(matcher: CachedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        for matched in match_pairs(pairs, matcher):
            yield {
                'name': matched.pair.name,
                'group': groups[matched.pair.path0],
                'num_matches': len(matched.found),
                'duration_s': matched.duration_s,
                'failure': matched.failure,
                **benchmark.judge(matched, estimator),
            }

    def draw(matcher: CachedMatcher, name: str) -> NDArray[np.uint8]:
        pair = next(pair for pair in pairs if pair.name == name)
        return draw_pair(next(match_pairs([pair], matcher)))

    return DataSet(directory.resolve().name, hash_pairs(pairs), len(pairs), run_matcher, draw)


def _open_localization(directory: Path, args: argparse.Namespace) -> DataSet:
    data, retrieval, keyframe_map = _make_map(open_localization_set(directory), args)
    oracle = OracleRetriever(keyframe_map) if args.retrieval == 'oracle' else None

    def run_matcher(matcher: CachedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        searched, failures = _map_for(matcher, keyframe_map, args, preparing)
        outcomes = localization.localize_queries(
            data.queries,
            searched,
            matcher,
            retrieval,
            args.num_keyframes,
            oracle=oracle,
            thresholds=args.thresholds,
        )
        return _with_failures_of_the_map(outcomes, failures)

    return DataSet(data.name, data.hash(), len(data.queries), run_matcher)


def _make_map(
    data: LocalizationSet, args: argparse.Namespace
) -> tuple[LocalizationSet, CoamMatcher, KeyframeMap]:
    """Give the data set with the queries to take, what retrieves for them, and the map."""
    data = replace(data, queries=every_nth(data.queries, args.every))
    _check_triangulation(args)
    retrieval = load_retrieval(args)
    keyframe_map = localization.build_localization_map(
        data, retrieval, needs_3d=not args.triangulate
    )
    return data, retrieval, keyframe_map


def _map_for(
    matcher: CachedMatcher,
    keyframe_map: KeyframeMap,
    args: argparse.Namespace,
    preparing: Preparing,
) -> tuple[KeyframeMap, list[str]]:
    """Give the map that a matcher localizes in, and what failed in making it."""
    if not args.triangulate:
        return keyframe_map, []
    return localization.triangulate_map(keyframe_map, matcher, args.threads, preparing)


def _check_triangulation(args: argparse.Namespace) -> None:
    """Refuse before any work what --triangulate cannot do."""
    if not args.triangulate:
        return
    if getattr(args, 'retrieval', '') == 'oracle':
        raise ValueError(
            '--retrieval oracle looks at the 3D that the data set has, --triangulate does without '
            'it; give one of them.'
        )
    # COLMAP is an extra.
    import coam_ros.mapping.triangulation  # noqa: F401


def _with_failures_of_the_map(
    outcomes: Iterator[Outcome], failures: Sequence[str]
) -> Iterator[Outcome]:
    """Name in the first outcome what failed before it."""
    for outcome in outcomes:
        named = [*failures, *([outcome['failure']] if outcome['failure'] else [])]
        yield {**outcome, 'failure': '; '.join(named) or None}
        failures = ()


def _open_aachen(directory: Path, args: argparse.Namespace) -> DataSet:
    opened = open_aachen(directory, args.truth, args.pairs)
    data, retrieval, keyframe_map = _make_map(opened.data, args)
    opened = replace(opened, data=data)

    def run_matcher(matcher: CachedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        # All that makes other poses, so that no run writes over another one's.
        settings = [f'K{args.num_keyframes}', *(['triangulated'] if args.triangulate else [])]
        settings += [args.pairs.stem if args.pairs else retrieval.descriptor_model_id]
        settings += [f'every{args.every}'] if args.every > 1 else []
        name = '_'.join([data.name, matcher.model_id.replace(' ', '-'), *settings]) + '.txt'
        searched, failures = _map_for(matcher, keyframe_map, args, preparing)
        outcomes = aachen.localize_aachen(
            opened, searched, matcher, retrieval, args.num_keyframes, args.submissions / name
        )
        return _with_failures_of_the_map(outcomes, failures)

    lists = [path.read_bytes() for path in (args.truth, args.pairs) if path is not None]
    content = hash_bytes([data.hash().encode(), *lists])
    return DataSet(data.name, content, len(data.queries), run_matcher)


def _open_sfm(directory: Path, args: argparse.Namespace) -> DataSet:
    # COLMAP is an extra: when it is missing that shows now, not after the matching.
    import coam_ros.mapping.colmap_database  # noqa: F401

    collection = open_collection(directory, args)
    name = directory.resolve().name

    def run_matcher(matcher: CachedMatcher, preparing: Preparing) -> Iterator[Outcome]:
        # One outcome: a scene is reconstructed from all of its pairs.
        yield sfm.reconstruct_scene(
            name, collection, matcher, args.merge_radius, args.models, args.threads
        )

    files = [collection.directory / image for image in collection.names]
    words = [' '.join(pair) for pair in collection.pairs]
    content = [hash_files(files, directory), hash_pairs(collection.posed_pairs), *words]
    return DataSet(name, hash_bytes(word.encode() for word in content), 1, run_matcher)


def _pair_kind(
    name: str,
    summary: str,
    read: ReadPairs,
    add_arguments: Callable[[argparse.ArgumentParser], None] = _add_pair_arguments,
    num_samples: int = NUM_SAMPLES,
) -> Kind:
    benchmark = PAIR_BENCHMARKS[name]
    return Kind(
        summary,
        benchmark.protocol,
        partial(_open_pairs, benchmark, read),
        benchmark.summarise,
        add_arguments,
        benchmark.error,
        num_samples,
    )


KINDS = {
    'pose': _pair_kind(
        'pose',
        'relative pose of pairs: lists of SuperGlue, MegaDepth-1500, ScanNet-1500',
        lambda directory, args: read_pair_lists(directory)[:: args.every],
    ),
    'homography': _pair_kind(
        'homography',
        'accuracy of matches and homographies: layout of HPatches',
        lambda directory, args: read_planar_pairs(directory)[:: args.every],
    ),
    'localize': Kind(
        'relocalization: 7-Scenes, TUM, Cambridge, COLMAP models with query lists',
        f'{localization.PROTOCOL} {LAYOUTS}',
        _open_localization,
        localization.summarise_queries,
        _add_localize_arguments,
        searches_views=False,
    ),
    'aachen': Kind(
        'Aachen Day-Night: poses for the visual-localization benchmark',
        aachen.PROTOCOL,
        _open_aachen,
        aachen.summarise_aachen,
        _add_aachen_arguments,
        searches_views=False,
    ),
    'sfm': Kind(
        'structure from motion by COLMAP: how much of a scene is reconstructed',
        sfm.PROTOCOL,
        _open_sfm,
        sfm.summarise_scene,
        _add_sfm_arguments,
    ),
    'sweep': _pair_kind(
        'sweep',
        'where a matcher gives up: rotation, scale, tilt, overlap, blur, gamma, noise of photos',
        lambda directory, args: read_sweep(directory, args.photos),
        _add_sweep_arguments,
    ),
    'ranking': _pair_kind(
        'ranking',
        'precision against recall; DIR as of pose or homography',
        lambda directory, args: read_any_pairs(directory)[:: args.every],
        num_samples=NUM_SAMPLES_OF_RANKING,
    ),
}
