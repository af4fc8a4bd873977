"""The gate: does a backend find the matches that the fp32 ONNX reference finds?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from coam_ros.inference.model import CoamModel, MIN_SCORE
import numpy as np
from numpy.typing import NDArray

PRECISION_THRESHOLDS_PX = (1.0, 3.0, 5.0)
_MIN_RETENTION = 0.98
# Of the share of right matches, at each threshold.
_MAX_PRECISION_LOSS = 0.01
# Another one finds other keyframes in a map that the reference has described.
_MIN_DESCRIPTOR_COSINE = 0.99
# Both ends of a match may move by this much and it is still the same match.
_SAME_MATCH_PX = 1.0


class NothingToCompareError(ValueError):
    """The reference finds no match."""


@dataclass(frozen=True, eq=False)
class GatePair:
    """Two images and the geometry between them.

    Attributes:
        name: of the pair.
        query: (H, W, 3) uint8 RGB, H and W multiples of the model's.
        keyframe: the same, of a size of its own.
        errors_px: query pixels (N, 2) and keyframe pixels (N, 2) -> (N,) distance from what is
            true [px]; NaN where nothing is.
        query_size: (width, height) of what of the query is no padding [px]; None = all.
        batch: the keyframe is matched as the last of so many.
    """

    name: str
    query: NDArray[np.uint8]
    keyframe: NDArray[np.uint8]
    errors_px: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]]
    query_size: tuple[int, int] | None = None
    batch: int = 1


@dataclass(frozen=True)
class GateReport:
    """What became of the matches of the reference.

    Attributes:
        reference: name of the backend that is right by definition.
        candidate: name of the backend under test.
        num_pairs: pairs that both matched.
        num_reference_matches: over all pairs.
        num_candidate_matches: over all pairs.
        retention: share of the reference's matches that the candidate has too, both ends within
            1 px.
        reference_precision: share of the reference's matches that are right to
            `PRECISION_THRESHOLDS_PX`.
        candidate_precision: the same of the candidate's.
        emptied_pairs: names of the pairs whose matches the candidate lost to the last one.
        num_outside: the candidate's matches of which an end lies outside its image.
        descriptor_cosine: least of the global descriptors of all images by both.
    """

    reference: str
    candidate: str
    num_pairs: int
    num_reference_matches: int
    num_candidate_matches: int
    retention: float
    reference_precision: tuple[float, ...]
    candidate_precision: tuple[float, ...]
    emptied_pairs: tuple[str, ...]
    num_outside: int
    descriptor_cosine: float

    @property
    def failures(self) -> list[str]:
        """What speaks against the candidate, each with the value got and the value wanted."""
        failures = []
        if self.retention < _MIN_RETENTION:
            failures.append(
                f'{self.retention:.1%} of the matches retained, wanted {_MIN_RETENTION:.0%}'
            )
        for threshold, wanted, found in zip(
            PRECISION_THRESHOLDS_PX,
            self.reference_precision,
            self.candidate_precision,
            strict=True,
        ):
            if found < wanted - _MAX_PRECISION_LOSS:
                failures.append(
                    f'{found:.1%} of the matches right to {threshold:g} px, wanted '
                    f'{wanted - _MAX_PRECISION_LOSS:.1%} or more'
                )
        if self.emptied_pairs:
            failures.append(f'no match left in {", ".join(self.emptied_pairs)}')
        if self.num_outside:
            failures.append(f'{self.num_outside} matches outside the images, wanted none')
        # Asked so that NaN fails.
        if not self.descriptor_cosine >= _MIN_DESCRIPTOR_COSINE:
            failures.append(
                f'global descriptors with a cosine of {self.descriptor_cosine:.4f} to the '
                f'reference, wanted {_MIN_DESCRIPTOR_COSINE} or more'
            )
        return failures

    @property
    def is_accepted(self) -> bool:
        """Whether the candidate may replace the reference."""
        return not self.failures


@dataclass(frozen=True, eq=False)
class _Matches:
    query_points: NDArray[np.float32]
    keyframe_points: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    num_outside: int

    def __len__(self) -> int:
        return len(self.query_points)


def compare_backends(
    reference: CoamModel, candidate: CoamModel, pairs: Iterable[GatePair]
) -> GateReport:
    """Match pairs with one model on two backends.

    Args:
        reference: the fp32 ONNX networks in ONNX Runtime.
        candidate: the same networks, or rounded ones, on the backend under test.
        pairs: on which the reference finds matches.

    Raises:
        NothingToCompareError: there are no pairs, or the reference finds nothing in any of them.
    """
    num_pairs = num_retained = num_outside = 0
    reference_errors: list[NDArray[Any]] = []
    candidate_errors: list[NDArray[Any]] = []
    emptied, cosines = [], []
    for pair in pairs:
        num_pairs += 1
        wanted, found = _match(reference, pair), _match(candidate, pair)
        num_retained += _count_retained(wanted, found)
        num_outside += found.num_outside
        reference_errors.append(pair.errors_px(wanted.query_points, wanted.keyframe_points))
        candidate_errors.append(pair.errors_px(found.query_points, found.keyframe_points))
        cosines.append((wanted.descriptors * found.descriptors).sum(axis=-1).min())
        if len(wanted) and not len(found):
            emptied.append(pair.name)
    num_matches = sum(map(len, reference_errors))
    if not num_matches:
        raise NothingToCompareError(
            f'Nothing to compare: {reference.backend_name} finds no match in {num_pairs} pairs; '
            'wanted pairs of images that overlap. Give others.'
        )
    return GateReport(
        reference=reference.backend_name,
        candidate=candidate.backend_name,
        num_pairs=num_pairs,
        num_reference_matches=num_matches,
        num_candidate_matches=sum(map(len, candidate_errors)),
        retention=num_retained / num_matches,
        reference_precision=_precision(reference_errors),
        candidate_precision=_precision(candidate_errors),
        emptied_pairs=tuple(emptied),
        num_outside=num_outside,
        descriptor_cosine=float(np.min(cosines)),
    )


def _match(model: CoamModel, pair: GatePair) -> _Matches:
    (query, descriptor0), (keyframe, descriptor1) = map(model.encode, (pair.query, pair.keyframe))
    query_size, keyframe_size = (image.shape[1::-1] for image in (pair.query, pair.keyframe))
    query_size = pair.query_size or query_size
    raw = model.match(query, query_size, [keyframe] * pair.batch, [keyframe_size] * pair.batch)
    is_kept = raw.scores[-1] >= MIN_SCORE
    query_points, keyframe_points = raw.query_points[-1][is_kept], raw.keyframe_points[-1][is_kept]
    is_on_image = _is_on_image(query_points, query_size)
    is_on_image &= _is_on_image(keyframe_points, keyframe_size)
    return _Matches(
        query_points,
        keyframe_points,
        np.stack([descriptor0, descriptor1]),
        num_outside=int((~is_on_image).sum()),
    )


def _is_on_image(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    # `geometry` has it too, which the inference does without.
    return ((points >= 0) & (points <= np.array(size) - 1)).all(axis=1)


def _count_retained(wanted: _Matches, found: _Matches) -> int:
    """Count the matches of one that have one of the other at both ends."""
    if not len(found):
        return 0
    is_same = _is_near(wanted.query_points, found.query_points)
    is_same &= _is_near(wanted.keyframe_points, found.keyframe_points)
    return int(is_same.any(axis=1).sum())


def _is_near(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell (N, M) which points (N, 2) lie at which others (M, 2)."""
    distances_px = np.hypot(*(points[:, None, axis] - others[None, :, axis] for axis in (0, 1)))
    return distances_px <= _SAME_MATCH_PX


def _precision(errors_px: list[NDArray[Any]]) -> tuple[float, ...]:
    together = np.concatenate(errors_px)
    shares = [(together <= t).mean() if len(together) else 0.0 for t in PRECISION_THRESHOLDS_PX]
    return tuple(map(float, shares))
