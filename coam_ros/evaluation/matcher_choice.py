"""Which matchers a command line names, and how each is made."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import coam_ros
from coam_ros.evaluation import matchers
from coam_ros.evaluation.matchers import (
    Matcher,
    PEER_PYTHON,
    PEER_WORKER,
    PeerMatcher,
    PEERS,
    SiftMatcher,
)
from coam_ros.evaluation.provenance import hash_files
from coam_ros.evaluation.recorded_matcher import (
    default_cache_directory,
    MatchCache,
    RecordedMatcher,
)
from coam_ros.matching import CoamMatcher

OURS, SIFT, ALL = 'ours', 'sift', 'all'
_PACKAGE = Path(coam_ros.__file__).parent
# Files whose change makes other matches of the same model.
_OUR_CODE = (_PACKAGE / 'matching', _PACKAGE / 'inference')
_OPENCV_CODE = (Path(matchers.__file__),)


@dataclass(frozen=True)
class MatcherChoice:
    """A matcher that was asked for.

    Attributes:
        name: for people.
        make: loads it; raises `MatcherError` when it is absent.
        code: files whose content decides, with its `model_id`, what it answers.
    """

    name: str
    make: Callable[[], Matcher]
    code: tuple[Path, ...]

    def open(self, args: argparse.Namespace) -> RecordedMatcher:
        """Load it, measured, with the cache that the command line asks for.

        Raises:
            MatcherError: it is absent.
        """
        code_hash = hash_files(self.code, _PACKAGE.parent)
        cache = MatchCache(args.cache, reads=not args.fresh)
        return RecordedMatcher(self.make(), [code_hash], cache)


def add_matcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which matchers to measure, and how they run."""
    parser.add_argument(
        '--matcher',
        action='append',
        choices=[OURS, SIFT, *PEERS, ALL],
        help='may be given several times (default: ours); all skips, and names, what is absent',
    )
    parser.add_argument(
        '--model',
        type=Path,
        action='append',
        metavar='FOLDER',
        help='of ours; may be given several times (default: the included one)',
    )
    parser.add_argument(
        '--threads', type=int, metavar='N', help='CPU threads (default: of each library)'
    )
    parser.add_argument(
        '--peers',
        type=Path,
        default=PEER_PYTHON,
        metavar='PYTHON',
        help='interpreter of the environment of the matchers of others (.venv-peers/bin/python)',
    )
    parser.add_argument(
        '--cache',
        type=Path,
        default=default_cache_directory(),
        metavar='FOLDER',
        help='where matches are kept, by the content of matcher and images: an interrupted run '
        'continues there (%(default)s)',
    )
    parser.add_argument(
        '--fresh',
        action='store_true',
        help='match anew what is kept already, to take the time on this machine',
    )


def chosen_matchers(args: argparse.Namespace) -> Iterator[MatcherChoice]:
    """Name the matchers asked for, ours once for each model."""
    asked = set(args.matcher or [OURS])
    models = args.model or [None]
    if {OURS, ALL} & asked:
        for model in models:
            name = OURS if len(models) == 1 else f'{OURS} {model}'
            yield MatcherChoice(
                name,
                lambda model=model: CoamMatcher.load(model, num_threads=args.threads),
                _OUR_CODE,
            )
    if {SIFT, ALL} & asked:
        yield MatcherChoice(SIFT, SiftMatcher, _OPENCV_CODE)
    for peer in PEERS:
        if {peer, ALL} & asked:
            yield MatcherChoice(
                peer,
                lambda peer=peer: PeerMatcher(peer, args.threads, python=args.peers),
                (PEER_WORKER,),
            )
