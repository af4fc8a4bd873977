"""Which matchers a command line names, and how each is made."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import sys

import coam_ros
from coam_ros.evaluation.matchers import matcher as matcher_module
from coam_ros.evaluation.matchers.cached import (
    CachedMatcher,
    default_cache_directory,
    MatchCache,
)
from coam_ros.evaluation.matchers.matcher import (
    Matcher,
    NETWORK_WORKER,
    OPENCV,
    OpenCvMatcher,
    PEER_PYTHON,
    PEER_WORKER,
    PeerMatcher,
    PEERS,
)
from coam_ros.evaluation.provenance import hash_files
from coam_ros.inference import default_model_directory
from coam_ros.inference.manifest import MANIFEST_NAME
from coam_ros.inference.model import BACKENDS
from coam_ros.matching import CoamMatcher

OURS, ALL = 'ours', 'all'
# Robots are upright, and have no time for it: relocalization goes without.
VIEW_SEARCH = 'view search'
ALIGNMENT = 'alignment'
# Ours with a part switched off, run in PyTorch.
ABLATIONS = {'ours-no-coattention': 'coattention', 'ours-no-distinctiveness': 'distinctiveness'}
_VISMATCH = 'vismatch:'
_WEIGHTS, _CHECKPOINT_SUFFIX = 'weights.pt', '.pt'
_PACKAGE = Path(coam_ros.__file__).parent
# Files whose change makes other matches of the same model.
_OUR_CODE = (_PACKAGE / 'geometry', _PACKAGE / 'matching', _PACKAGE / 'inference')
_NETWORK_CODE = (*_OUR_CODE, _PACKAGE / 'training', NETWORK_WORKER, PEER_WORKER)
_OPENCV_CODE = (Path(matcher_module.__file__),)


@dataclass(frozen=True)
class MatcherChoice:
    """A matcher that was asked for.

    Attributes:
        name: for people.
        make: loads it; raises `MatcherError` when it is absent.
        code: files whose content decides, with its `model_id`, what it answers.
        without: parts of it that are switched off and that its `model_id` does not tell.
    """

    name: str
    make: Callable[[], Matcher]
    code: tuple[Path, ...]
    without: tuple[str, ...] = ()

    def open(self, args: argparse.Namespace) -> CachedMatcher:
        """Load it, measured, with the cache that the command line asks for.

        Raises:
            MatcherError: it is absent.
        """
        matcher = self.make()
        backend = matcher.backend_name if isinstance(matcher, CoamMatcher) else ''
        code_hash = hash_files(self.code, _PACKAGE.parent)
        cache = MatchCache(args.cache, reads=not args.fresh)
        cached = CachedMatcher(matcher, [backend, code_hash, *self.without], cache)
        if backend:
            cached.model_id += f' on {backend}'
        cached.model_id += ''.join(f' without {part}' for part in self.without)
        return cached


def add_matcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which matchers to measure, and how they run."""
    names = [OURS, *ABLATIONS, *OPENCV, *PEERS]
    parser.add_argument(
        '--matcher',
        action='append',
        type=_matcher_name,
        metavar='NAME',
        help=f'{", ".join(names)}, {_VISMATCH}MODEL (what vismatch wraps, where --peers has it), '
        'or all: every one of these but vismatch and ours-*, where what is absent is skipped and '
        'named. May be given several times (default: ours). ours-* run the weights of --model in '
        'PyTorch with a part switched off, not trained anew: what the trained network owes to it',
    )
    parser.add_argument(
        '--model',
        type=Path,
        action='append',
        metavar='FOLDER',
        help='of ours: a folder that `coam export` wrote, or a checkpoint (.pt), as of the '
        'networks of the paper, which runs in PyTorch; may be given several times (default: the '
        'included one)',
    )
    parser.add_argument(
        '--network-alone',
        action='store_true',
        help='of ours: the matches as the network gives them, without alignment and search of '
        'views, to compare networks',
    )
    parser.add_argument(
        '--backend', choices=BACKENDS, default='auto', help='that runs model folders (%(default)s)'
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
        help='match anew what is kept already: times are of pairs matched in this very run',
    )


def _matcher_name(word: str) -> str:
    known = [OURS, *ABLATIONS, *OPENCV, *PEERS, ALL]
    if word in known or (word.startswith(_VISMATCH) and word != _VISMATCH):
        return word
    raise argparse.ArgumentTypeError(
        f'unknown matcher {word!r}, wanted {", ".join(known)} or {_VISMATCH}MODEL'
    )


def chosen_matchers(
    args: argparse.Namespace, *, searches_views: bool = True
) -> Iterator[MatcherChoice]:
    """Name the matchers asked for, ours once for each model.

    Args:
        args: of `add_matcher_arguments`.
        searches_views: whether ours may; see `CoamMatcher.load`.
    """
    without: tuple[str, ...] = ()
    if args.network_alone:
        without = (ALIGNMENT, VIEW_SEARCH)
    elif not searches_views:
        without = (VIEW_SEARCH,)
    asked = dict.fromkeys(args.matcher or [OURS])
    if ALL in asked:
        asked = dict.fromkeys([OURS, *OPENCV, *PEERS, *asked])
        del asked[ALL]
    models = args.model or [None]
    for word in asked:
        if word == OURS or word in ABLATIONS:
            for model in models:
                name = word if len(models) == 1 else f'{word} {model}'
                part_off = [ABLATIONS[word]] if word in ABLATIONS else []
                yield _choose_ours(name, model, (*part_off, *without), args)
        elif word in OPENCV:
            yield MatcherChoice(word, partial(OpenCvMatcher, word), _OPENCV_CODE)
        else:
            make = partial(PeerMatcher, word, args.threads, python=args.peers)
            yield MatcherChoice(word, make, (PEER_WORKER,))


def load_retrieval(args: argparse.Namespace) -> CoamMatcher:
    """Load the matcher whose global descriptors retrieve: the first model folder of --model.

    Raises:
        FileNotFoundError, ValueError: see `CoamMatcher.load`.
    """
    folders = [path for path in args.model or [] if path.suffix != _CHECKPOINT_SUFFIX]
    return CoamMatcher.load(
        folders[0] if folders else None, backend=args.backend, num_threads=args.threads
    )


def _choose_ours(
    name: str, model: Path | None, without: tuple[str, ...], args: argparse.Namespace
) -> MatcherChoice:
    path = model or default_model_directory()
    is_checkpoint = path.suffix == _CHECKPOINT_SUFFIX
    if not is_checkpoint and set(without) <= {ALIGNMENT, VIEW_SEARCH}:
        make = partial(
            CoamMatcher.load,
            path,
            backend=args.backend,
            num_threads=args.threads,
            aligns=ALIGNMENT not in without,
            searches_views=VIEW_SEARCH not in without,
        )
        # The model id tells the networks in float32 alone, the manifest the one in int8 too.
        return MatcherChoice(name, make, (*_OUR_CODE, path / MANIFEST_NAME), without)

    def run_checkpoint() -> PeerMatcher:
        checkpoint = path if is_checkpoint else path / _WEIGHTS
        if not checkpoint.is_file():
            raise FileNotFoundError(f'No checkpoint {checkpoint} for {name}; check --model.')
        words = [str(checkpoint), *without]
        return PeerMatcher(
            name, args.threads, python=Path(sys.executable), worker=NETWORK_WORKER, words=words
        )

    return MatcherChoice(name, run_checkpoint, _NETWORK_CODE)
