"""A matcher with its time taken, its failures named, and its results kept on disk.

What was matched once is not matched again: an interrupted run continues, and another benchmark
or another estimator on the same images starts from the same matches.
"""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
import os
from pathlib import Path
import time

from coam_ros.evaluation.matchers.matcher import Matcher, MatcherError, no_correspondences
from coam_ros.evaluation.provenance import hash_bytes
from coam_ros.matching import Correspondences
import numpy as np
from numpy.typing import NDArray

_COLUMNS = ('points0', 'points1', 'scores', 'similarities', 'distinctiveness')


def default_cache_directory() -> Path:
    """Return where matches are kept when nobody says otherwise (XDG base directories)."""
    caches = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(caches) / 'coam_ros' / 'bench'


class MatchCache:
    """Matches by the content of what made them; deleting the folder loses nothing but time.

    Attributes:
        directory: holds a file for each matcher and pair of images.
    """

    def __init__(self, directory: Path, *, reads: bool = True) -> None:
        """Use a folder, which need not exist yet.

        Args:
            directory: the folder.
            reads: false writes alone, so that everything is matched anew.
        """
        self.directory = directory
        self._reads = reads

    def read(self, key: str) -> Correspondences | None:
        """Give the matches; None when they are not there."""
        if not self._reads:
            return None
        try:
            with np.load(self._path(key), allow_pickle=False) as content:
                columns = {name: content[name] for name in _COLUMNS if name in content}
                return Correspondences(**columns)
        # Not there; or damaged, by a full disk or by hand, whatever the parsers make of that, and
        # then made anew.
        except Exception:  # noqa: BLE001
            return None

    def write(self, key: str, found: Correspondences) -> None:
        """Keep matches, aside first and then renamed.

        Raises:
            OSError: they cannot be written.
        """
        path = self._path(key)
        columns = {name: getattr(found, name) for name in _COLUMNS}
        present = {name: x for name, x in columns.items() if x is not None}
        aside = path.with_name(f'{path.name}.{os.getpid()}.part')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open('wb') as stream:
                np.savez(stream, **present)
            aside.replace(path)
        except OSError as error:
            raise OSError(
                error.errno,
                f'Matches could not be kept in {path} ({error.strerror}); make room, or give '
                'another folder with --cache',
            ) from error
        finally:
            # Nothing is there, unless an error, or Ctrl-C, came between.
            with contextlib.suppress(OSError):
                aside.unlink()

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f'{key}.npz'


class CachedMatcher:
    """Another matcher, its time taken and its matches kept.

    It is a `Matcher` itself. Whatever goes wrong in the other one is a `MatcherError` of the pair
    at hand.

    Attributes:
        model_id: of the other one.
        content_hash: of all that makes its matches.
        duration_s: of the last pair [s]; None when its matches were kept: other threads, or
            another machine, may have made them.
        num_kept: pairs whose matches were there already.
    """

    def __init__(
        self, matcher: Matcher, made_of: Iterable[str] = (), cache: MatchCache | None = None
    ) -> None:
        """Take over a matcher.

        Args:
            matcher: to measure; closed by `close`.
            made_of: what its matches depend on beside its `model_id`: hashes, options.
            cache: where matches are kept; None keeps none.
        """
        self._matcher = matcher
        self._cache = cache
        self.model_id = matcher.model_id
        self.content_hash = hash_bytes(word.encode() for word in (self.model_id, *made_of))
        self.duration_s: float | None = None
        self.num_kept = 0

    def match(self, image0: NDArray[np.uint8], image1: NDArray[np.uint8]) -> Correspondences:
        """Match two images; see `Matcher`.

        Raises:
            MatcherError: the matcher raised whatever it may on this pair. Failures are not kept.
        """
        key = ''
        if self._cache is not None:
            key = self._key(image0, image1)
            kept = self._cache.read(key)
            if kept is not None:
                self.duration_s = None
                self.num_kept += 1
                return kept
        start = time.perf_counter()
        try:
            found = self._matcher.match(image0, image1)
        except MatcherError:
            raise
        except Exception as error:
            raise MatcherError(f'{type(error).__name__}: {error}') from error
        finally:
            self.duration_s = time.perf_counter() - start
        if self._cache is not None:
            self._cache.write(key, found)
        return found

    def match_or_fail(
        self, image0: NDArray[np.uint8], image1: NDArray[np.uint8]
    ) -> tuple[Correspondences, str | None]:
        """Match two images: nothing, and what the matcher said, where it fails; else None."""
        try:
            return self.match(image0, image1), None
        except MatcherError as error:
            return no_correspondences(), str(error)

    def close(self) -> None:
        """Free the other matcher."""
        self._matcher.close()

    def _key(self, *images: NDArray[np.uint8]) -> str:
        parts = [self.content_hash.encode()]
        for image in images:
            parts += [str(image.shape).encode(), np.ascontiguousarray(image).tobytes()]
        return hash_bytes(parts)
