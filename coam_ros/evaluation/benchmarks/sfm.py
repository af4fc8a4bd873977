"""Structure from motion with the matches of any matcher: how much of a scene is reconstructed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from coam_ros.evaluation.benchmarks.matching import match_collection
from coam_ros.evaluation.data.image_collection import ImageCollection
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.metrics.image_pairs import error_auc, relative_pose_error_deg
from coam_ros.evaluation.metrics.statistics import mean_of_known
from coam_ros.mapping.shared_keypoints import MERGE_RADIUS_PX, share_keypoints, SharedKeypoints
import numpy as np

POSE_AUC_DEG = (1, 3, 5)
PROTOCOL = (
    'Matches of all pairs, images at an area of 640 x 480 px; points of an image within '
    f'{MERGE_RADIUS_PX} px (or --merge-radius) become one key point. Geometric verification and '
    'incremental mapping of COLMAP, defaults, seed 0; intrinsics of a pair list are fixed, others '
    'refined. Of the largest model: reprojection error in pixels of the images as they are. AUC: '
    'of the larger of the errors of rotation and translation direction of the pairs of a list '
    'with poses; a pair with a missing image counts as lost.'
)
DATABASE, MODEL = 'database.db', 'sparse'


def reconstruct_scene(
    name: str,
    collection: ImageCollection,
    matcher: CachedMatcher,
    merge_radius_px: float = MERGE_RADIUS_PX,
    models: Path | None = None,
    num_threads: int | None = None,
) -> dict[str, object]:
    """Match and reconstruct a scene.

    Args:
        name: of the scene.
        collection: its images and pairs.
        matcher: to measure.
        merge_radius_px: as of `share_keypoints`.
        models: keeps database and model in a folder by the scene and the matcher; None = nowhere.
        num_threads: CPU threads of COLMAP; None takes all.

    Returns:
        The outcome of the scene; number of matches and time are means of its pairs.
    """
    matched = list(match_collection(collection, matcher))
    shared = share_keypoints(matched, merge_radius_px)
    with TemporaryDirectory() as temporary:
        kept = Path(temporary) if models is None else models / name / matcher.content_hash
        figures = measure_reconstruction(collection, shared, kept, num_threads)
    failures = [f'{" ".join(pair.names)}: {pair.failure}' for pair in matched if pair.failure]
    return {
        'name': name,
        'figures': figures,
        'num_matches': float(np.mean([len(pair.found) for pair in matched])),
        'duration_s': mean_of_known([pair.duration_s for pair in matched]),
        'failure': '; '.join(failures) or None,
    }


def measure_reconstruction(
    collection: ImageCollection,
    shared: SharedKeypoints,
    folder: Path,
    num_threads: int | None = None,
) -> dict[str, object]:
    """Reconstruct a scene, and say how much of it there is.

    Args:
        collection: with its true poses, where known.
        shared: its key points and matches.
        folder: takes the database and the model.
        num_threads: CPU threads; None takes all.

    Returns:
        JSON-ready figures.
    """
    # COLMAP is an extra.
    from coam_ros.mapping.colmap_database import reconstruct, relative_poses, write_database

    database = folder / DATABASE
    write_database(database, collection.directory, shared, collection.intrinsics)
    model = reconstruct(
        database,
        collection.directory,
        folder / MODEL,
        refine_intrinsics=not collection.intrinsics,
        num_threads=num_threads,
    )
    figures: dict[str, object] = {
        'images': len(shared.image_sizes),
        'registered_images': 0,
        'points': 0,
        'observations': 0,
        'mean_track_length': float('nan'),
        'reprojection_error_px': float('nan'),
    }
    if model is not None:
        figures |= {
            'registered_images': model.num_reg_images(),
            'points': model.num_points3D(),
            'observations': model.compute_num_observations(),
            'mean_track_length': model.compute_mean_track_length(),
            'reprojection_error_px': model.compute_mean_reprojection_error(),
        }
    posed = collection.posed_pairs
    if posed:
        estimated = relative_poses(model, collection.posed_names)
        errors_deg = [
            np.inf if T_1_0 is None else relative_pose_error_deg(T_1_0, pair.T_1_0)
            for T_1_0, pair in zip(estimated, posed, strict=True)
        ]
        areas = error_auc(np.array(errors_deg), POSE_AUC_DEG)
        figures |= {
            'median_pose_error_deg': float(np.median(errors_deg)),
            **{f'auc_{t}deg': area for t, area in zip(POSE_AUC_DEG, areas, strict=True)},
        }
    return figures


def summarise_scene(outcomes: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Give the figures of a scene (means, should there be several)."""
    return {
        name: float(np.mean([outcome['figures'][name] for outcome in outcomes]))
        for name in outcomes[0]['figures']
    }
