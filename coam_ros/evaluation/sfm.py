"""Structure from motion with the matches of any matcher: how much of a scene is reconstructed."""

from __future__ import annotations

from pathlib import Path

from coam_ros.evaluation.benchmark_metrics import error_auc, relative_pose_error_deg
from coam_ros.evaluation.colmap_database import reconstruct, relative_poses, write_database
from coam_ros.evaluation.image_collection import ImageCollection
from coam_ros.evaluation.shared_keypoints import MERGE_RADIUS_PX, SharedKeypoints
import numpy as np

DATABASE, MODEL = 'database.db', 'sparse'
POSE_AUC_DEG = (1, 3, 5)
PROTOCOL = (
    'Matches of all pairs, images at an area of 640 x 480 px; points of an image within '
    f'{MERGE_RADIUS_PX} px become one key point. Geometric verification and incremental mapping '
    'of COLMAP, defaults, seed 0; intrinsics of a pair list are fixed, others refined. Of the '
    'largest model: reprojection error in pixels of the images as they are. AUC: of the larger of '
    'the errors of rotation and translation direction of the pairs of a list with poses; a pair '
    'with a missing image counts as lost.'
)


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
        estimated = relative_poses(model, [tuple(pair.name.split()) for pair in posed])
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
