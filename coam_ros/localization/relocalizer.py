"""One image in, a pose with its evidence out; knows nothing of the images before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import logging
import math
import time

from coam_ros.geometry.absolute_pose import (
    AbsolutePose,
    estimate_absolute_pose,
    GroupErrors,
)
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import pose_error
from coam_ros.localization.config import LocalizationConfig
from coam_ros.localization.gates import (
    add_map_uncertainty,
    find_weakness,
    inlier_blocks,
    measure_coverage,
)
from coam_ros.localization.result import FailureReason, KeyframeMatches, RelocalizationResult
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.feature_cache import CachedKeyframe, KeyframeFeatureCache
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.retrieval import KeyframeRetriever
from coam_ros.matching.image_matcher import Encoded, ImageMatcher
import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

# Of this many times num_keyframes candidates, those are matched first that are not near one chosen
# before: views that are nearly equal add little. Measured on redkitchen with 3 keyframes: inliers
# of the hardest query 83 -> 233, right within 10 cm and 5 deg 95 -> 97 %.
_NUM_CANDIDATES = 2
_NEAR_DISTANCE_M = 0.25
_NEAR_ANGLE_DEG = 12.0


@dataclass(frozen=True, eq=False)
class PosePrior:
    """Where the camera is believed to be.

    Attributes:
        position_map: (3,) of the camera in the map frame [m].
        radius_m: keyframes farther from it are not searched, poses farther from it not accepted.
    """

    position_map: NDArray[np.float64]
    radius_m: float


class Relocalizer:
    """Finds the camera in a map from one image.

    Keyframes may come to and go from the map at any time, also while an image is localized. One
    object serves one thread.

    Attributes:
        config: may be exchanged for another between two images.
    """

    def __init__(
        self,
        matcher: ImageMatcher,
        keyframe_map: KeyframeMap,
        config: LocalizationConfig | None = None,
        *,
        feature_cache_bytes: int = 512 * 2**20,
    ) -> None:
        """Prepare.

        Args:
            matcher: stays the caller's, who closes it.
            keyframe_map: to localize in.
            config: None takes the defaults.
            feature_cache_bytes: bound of the memory for the keyframes' features.
        """
        self.config = config or LocalizationConfig()
        self.feature_cache = KeyframeFeatureCache(matcher, feature_cache_bytes)
        self._matcher = matcher
        self._map = keyframe_map
        self._retriever = KeyframeRetriever(keyframe_map)

    def relocalize(
        self,
        image: NDArray[np.uint8],
        camera: PinholeCamera,
        prior: PosePrior | None = None,
    ) -> RelocalizationResult:
        """Localize an image.

        Args:
            image: (H, W, 3) RGB or (H, W) grey.
            camera: of the image.
            prior: restricts the search; None searches the whole map.

        Returns:
            A pose, or the reason why there is none; never a pose that did not pass every gate.

        A keyframe that does not decode is removed from the map, and the log says so.

        Raises:
            ValueError: when the image has another size than the camera.
            MapFormatError: when another model made the map's descriptors.
        """
        if image.shape[:2] != (camera.height, camera.width):
            raise ValueError(
                f'Image of {image.shape[1]} x {image.shape[0]} px with a camera of '
                f'{camera.width} x {camera.height} px; wanted equal sizes. Pass the calibration '
                'of this very image size.'
            )
        if not len(self._map):
            return RelocalizationResult(
                failure=FailureReason.NO_KEYFRAMES,
                message='The map has no keyframes. Load a map.',
            )
        self._check_descriptors()
        durations: dict[str, float] = {}
        with _timed('encode', durations):
            query = self._matcher.encode(image)
        with _timed('retrieve', durations):
            keyframes = self._retrieve(query, prior)
        with _timed('match', durations):
            matches, positions_map = self._match(query, keyframes)
        with _timed('pose', durations):
            result = (
                self._locate(matches, positions_map, camera, prior)
                if matches
                else self._without_keyframe(keyframes, prior)
            )
        return replace(result, stage_durations_s=durations)

    def _check_descriptors(self) -> None:
        made_by, wanted = self._map.descriptor_model_id, self._matcher.descriptor_model_id
        # Of an unknown model there may be none, and without descriptors nothing is retrieved.
        if made_by and made_by != wanted:
            raise MapFormatError(
                f'Descriptors of map {self._map.map_id} were made by {made_by!r}, wanted '
                f'{wanted!r}; compute them again with `coam map describe`.'
            )

    def _retrieve(self, query: Encoded, prior: PosePrior | None) -> list[Keyframe]:
        found = self._retriever.retrieve(
            query.global_descriptor,
            _NUM_CANDIDATES * self.config.num_keyframes,
            prior_position_map=None if prior is None else prior.position_map,
            radius_m=None if prior is None else prior.radius_m,
        )
        # A keyframe may have left the map since it was retrieved.
        candidates = [self._map.get(keyframe_id) for keyframe_id, _ in found]
        return _spread([k for k in candidates if k is not None], self.config.num_keyframes)

    def _match(
        self, query: Encoded, keyframes: list[Keyframe]
    ) -> tuple[list[KeyframeMatches], NDArray[np.float64]]:
        """Match the keyframes that decode; returns their positions (K, 3) in the map too."""
        cached = self._encode_all(keyframes)
        results = self._matcher.match_encoded(query, [entry.encoded for _, entry in cached])
        positions = [keyframe.T_map_camera[:3, 3] for keyframe, _ in cached]
        matches = [
            KeyframeMatches(
                keyframe.id,
                correspondences.points0,
                correspondences.points1,
                correspondences.scores,
                keyframe.lift(correspondences.points1, entry.depth_m),
                np.zeros(len(correspondences.scores), dtype=bool),
            )
            for (keyframe, entry), correspondences in zip(cached, results, strict=True)
        ]
        return matches, np.reshape(positions, (-1, 3))

    def _encode_all(self, keyframes: list[Keyframe]) -> list[tuple[Keyframe, CachedKeyframe]]:
        cached = []
        for keyframe in keyframes:
            try:
                cached.append((keyframe, self.feature_cache.get(keyframe)))
            except MapFormatError as error:
                # It would break every image that looks like it.
                _log.warning('removed from the map: %s', error)
                self._map.discard(keyframe)
        return cached

    def _without_keyframe(
        self, retrieved: list[Keyframe], prior: PosePrior | None
    ) -> RelocalizationResult:
        """Say why no keyframe was there to match."""
        if retrieved:
            message = (
                'The keyframes that look like the image do not decode and were removed from the '
                'map. Make the map again.'
            )
        elif not any(k.global_descriptor is not None for k in self._map):
            message = 'No keyframe has a global descriptor. Run `coam map describe` on the map.'
        elif prior is not None:
            message = (
                f'No keyframe within {prior.radius_m:.2f} m of the prior pose. Give a better one, '
                'or none.'
            )
        else:
            message = 'The keyframes that look like the image have just left the map. Try again.'
        return RelocalizationResult(failure=FailureReason.NO_KEYFRAMES, message=message)

    def _locate(
        self,
        matches: list[KeyframeMatches],
        positions_map: NDArray[np.float64],
        camera: PinholeCamera,
        prior: PosePrior | None,
    ) -> RelocalizationResult:
        config = self.config
        query_pixels = np.concatenate([part.query_pixels for part in matches])
        points_map = np.concatenate([part.points_map for part in matches])
        num_matches = int(np.isfinite(points_map).all(axis=1).sum())
        result = RelocalizationResult(
            num_matches=num_matches,
            keyframe_ids=tuple(part.keyframe_id for part in matches),
            keyframe_matches=tuple(matches),
        )
        if num_matches < config.min_inliers:
            reason = (
                'nothing here looks like the map. Go to a mapped place, or check for a covered '
                'camera.'
                if len(query_pixels) < config.min_inliers
                else 'the map has too little 3D here. Bring depth images, or see coam map '
                'triangulate.'
            )
            return replace(
                result,
                failure=FailureReason.TOO_FEW_MATCHES,
                message=f'{num_matches} of {len(query_pixels)} matches with known depth, wanted '
                f'{config.min_inliers} (min_inliers): {reason}',
            )
        pose = estimate_pose(matches, positions_map, camera, config)
        if pose is None:
            return replace(
                result,
                failure=FailureReason.POSE_NOT_FOUND,
                message=f'No pose agrees with the {num_matches} matches. Go to a mapped place.',
            )
        result = _with_support(result, pose, query_pixels, camera)
        covariance = add_map_uncertainty(pose.covariance, config)
        weakness = find_weakness(result, covariance, config)
        if weakness is not None:
            return replace(result, failure=weakness[0], message=weakness[1])
        if prior is not None:
            distance_m = np.linalg.norm(pose.T_map_camera[:3, 3] - prior.position_map)
            if distance_m > prior.radius_m:
                return replace(
                    result,
                    failure=FailureReason.DISAGREES_WITH_PRIOR,
                    message=f'The pose is {distance_m:.2f} m from the prior, wanted at most '
                    f'{prior.radius_m:.2f} m. Give a better prior, or none.',
                )
        return replace(result, T_map_camera=pose.T_map_camera, covariance=covariance)


def estimate_pose(
    matches: Sequence[KeyframeMatches],
    positions_map: NDArray[np.float64],
    camera: PinholeCamera,
    config: LocalizationConfig,
) -> AbsolutePose | None:
    """Estimate the pose that the matches of an image with some keyframes give, before all gates.

    Args:
        matches: K of them, at least one.
        positions_map: (K, 3) of the keyframes [m].
        camera: of the image.
        config: with the tolerance of inliers and the keyframes' own errors.

    Returns:
        The pose, its covariance without what the map as a whole does not know; None when no pose
        agrees with the matches.
    """
    return estimate_absolute_pose(
        np.concatenate([part.query_pixels for part in matches]),
        np.concatenate([part.points_map for part in matches]),
        camera,
        scores=np.concatenate([part.scores for part in matches]),
        groups=np.repeat(np.arange(len(matches)), [len(part.scores) for part in matches]),
        group_errors=GroupErrors(
            config.keyframe_position_std_m,
            math.radians(config.keyframe_rotation_std_deg),
            positions_map,
        ),
        max_reprojection_error_px=config.max_reprojection_error_px * camera.pixels_per_nominal,
    )


def _spread(candidates: list[Keyframe], num_keyframes: int) -> list[Keyframe]:
    """Choose the first candidates that are not near one another, then the first of the rest."""
    apart: list[Keyframe] = []
    near: list[Keyframe] = []
    for candidate in candidates:
        errors = (pose_error(candidate.T_map_camera, k.T_map_camera) for k in apart)
        is_near = any(m < _NEAR_DISTANCE_M and deg < _NEAR_ANGLE_DEG for m, deg in errors)
        (near if is_near else apart).append(candidate)
    return (apart + near)[:num_keyframes]


def _with_support(
    result: RelocalizationResult,
    pose: AbsolutePose,
    query_pixels: NDArray[np.float32],
    camera: PinholeCamera,
) -> RelocalizationResult:
    """Fill in how well the matches support the pose."""
    ends = np.cumsum([len(part.scores) for part in result.keyframe_matches])
    masks = np.split(pose.inlier_mask, ends[:-1])
    num_inliers = int(pose.inlier_mask.sum())
    blocks = inlier_blocks(query_pixels[pose.inlier_mask], camera)
    errors_px = pose.reprojection_errors_px[pose.inlier_mask]
    return replace(
        result,
        num_inliers=num_inliers,
        inlier_ratio=num_inliers / result.num_matches,
        num_inlier_blocks=len(blocks),
        coverage=measure_coverage(blocks, camera),
        reprojection_error_px=float(np.median(errors_px)) if num_inliers else float('nan'),
        keyframe_matches=tuple(
            replace(part, inlier_mask=mask)
            for part, mask in zip(result.keyframe_matches, masks, strict=True)
        ),
    )


@contextmanager
def _timed(stage: str, durations_s: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    durations_s[stage] = time.perf_counter() - start
