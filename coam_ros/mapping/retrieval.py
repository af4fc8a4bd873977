"""Which keyframes of a map look most like a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe_map import KeyframeMap
import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

# Similar images to match each one with: as many as hloc takes for its reconstructions of Aachen
# and Cambridge.
NUM_NEIGHBOURS = 20


class KeyframeRetriever:
    """Finds the keyframes with the most similar global descriptors, exactly.

    Follows the map: keyframes added, changed or removed meanwhile count at the next call. One
    object serves one thread.
    """

    def __init__(self, keyframe_map: KeyframeMap) -> None:
        """Prepare for a map, which may still be empty."""
        self._map = keyframe_map
        self._revision = -1
        self._ids = np.empty(0, np.int64)
        self._positions_map = np.empty((0, 3))
        self._index: faiss.IndexFlatIP | None = None

    def retrieve(
        self,
        descriptor: NDArray[np.float32],
        k: int,
        prior_position_map: ArrayLike | None = None,
        radius_m: float | None = None,
    ) -> list[tuple[int, float]]:
        """Find the most similar keyframes.

        Args:
            descriptor: (D,) of unit length, of the query, by the model that made the map's.
            k: how many at most, at least 1.
            prior_position_map: (3,) of the camera in the map frame [m]; only keyframes within
                `radius_m` of it count. None searches the whole map.
            radius_m: needed with a prior position.

        Returns:
            (id, cosine similarity in [-1, 1]) of at most `k` keyframes, most similar first; fewer
            when fewer have a descriptor or lie within the radius.

        Raises:
            ValueError: `k` below 1, or a prior position without a radius.
            MapFormatError: the map's descriptors have another length than the query's.
        """
        if k < 1 or (prior_position_map is not None and radius_m is None):
            raise ValueError(
                f'Retrieval of k={k} with radius_m={radius_m}, wanted k of at least 1 and a '
                'radius with every prior position; correct the call'
            )
        self._follow_map()
        if self._index is None:
            return []
        query = np.ascontiguousarray(descriptor, dtype=np.float32).reshape(1, -1)
        if query.shape[1] != self._index.d:
            raise MapFormatError(
                f'Descriptors of map {self._map.map_id} have length {self._index.d} (made by '
                f'{self._map.descriptor_model_id!r}), those of this matcher {query.shape[1]}. '
                'Make the map again with `coam map build`, or compute its descriptors again.'
            )
        parameters = None
        if prior_position_map is not None:
            offset = self._positions_map - np.asarray(prior_position_map, dtype=np.float64)
            rows = np.flatnonzero(np.linalg.norm(offset, axis=1) <= radius_m)
            # As an argument, so that faiss keeps the selector alive; its stubs do not know it.
            parameters = faiss.SearchParameters(  # type: ignore[call-arg]
                sel=faiss.IDSelectorBatch(rows)
            )
        similarity, row = self._index.search(query, min(k, len(self._ids)), params=parameters)
        # Rows that the selector left out come as -1, at the end.
        return [
            (int(self._ids[i]), float(s))
            for i, s in zip(row[0], similarity[0], strict=True)
            if i >= 0
        ]

    def _follow_map(self) -> None:
        if self._map.revision == self._revision:
            return
        self._revision, _, keyframes = self._map.snapshot()
        described = [
            (k, k.global_descriptor) for k in keyframes if k.global_descriptor is not None
        ]
        self._ids = np.array([k.id for k, _ in described], dtype=np.int64)
        self._index = None
        if not described:
            return
        self._positions_map = np.stack([k.T_map_camera[:3, 3] for k, _ in described])
        descriptors = np.stack([descriptor for _, descriptor in described])
        self._index = faiss.IndexFlatIP(descriptors.shape[1])
        self._index.add(descriptors)


def most_similar_pairs(
    descriptors: NDArray[np.float32],
    choose: Callable[[int], Sequence[int]],
    is_allowed: NDArray[np.bool_] | None = None,
) -> list[tuple[int, int]]:
    """Pair images with similar ones.

    Args:
        descriptors: (N, D) of unit length.
        choose: says of n others, the most similar first, with which an image is paired, by their
            places below n.
        is_allowed: (N, N), which pairs may be; None = all.

    Returns:
        (i, j), i < j, each pair once, sorted.
    """
    similarity = descriptors @ descriptors.T
    if is_allowed is not None:
        similarity[~is_allowed] = -np.inf
    np.fill_diagonal(similarity, -np.inf)
    pairs = set()
    for i, row in enumerate(similarity):
        order = [j for j in np.argsort(-row, kind='stable').tolist() if np.isfinite(row[j])]
        chosen = [order[place] for place in choose(len(order))]
        pairs |= {(min(i, j), max(i, j)) for j in chosen}
    return sorted(pairs)
