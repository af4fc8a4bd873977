"""Structure from motion with the matches of any matcher: how much of a scene is reconstructed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from coam_ros.evaluation.benchmarks.sfm_figures import POSE_AUC_DEG
from coam_ros.evaluation.data.image_collection import ImageCollection, match_collection
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.metrics.image_pairs import error_auc, relative_pose_error_deg
from coam_ros.evaluation.metrics.statistics import mean_of_known
from coam_ros.mapping.colmap_database import reconstruct, relative_poses, write_database
from coam_ros.mapping.shared_keypoints import MERGE_RADIUS_PX, share_keypoints, SharedKeypoints
import numpy as np

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
        'registered_images': 0 if model is None else model.num_reg_images(),
        'points': 0 if model is None else model.num_points3D(),
        'observations': 0 if model is None else model.compute_num_observations(),
        'mean_track_length': float('nan') if model is None else model.compute_mean_track_length(),
        'reprojection_error_px': float('nan')
        if model is None
        else model.compute_mean_reprojection_error(),
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
