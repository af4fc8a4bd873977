from coam_ros.geometry.absolute_pose import estimate_absolute_pose, GroupErrors
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import (
    make_transform,
    pose_error,
    rotation_vector,
    transform_points,
)
import numpy as np
import pytest
from rotations import rotation_from_vector
from synthetic_scene import make_scene, VGA

FISHEYE = PinholeCamera(
    640, 480, 350.0, 350.0, 322.0, 238.0, (-0.02, 0.005, -0.003, 0.0006), 'equidistant'
)


def estimate(scene, **options):
    return estimate_absolute_pose(scene.pixels, scene.points_map, scene.camera, **options)


def pose_difference(T_estimated, T_true):
    rotation_error = rotation_vector(T_estimated[:3, :3] @ T_true[:3, :3].T)
    return np.concatenate([T_estimated[:3, 3] - T_true[:3, 3], rotation_error])


def normalized_error_squared(pose, T_true):
    """Squared error over the claimed covariance, per degree of freedom."""
    error = pose_difference(pose.T_map_camera, T_true)
    return error @ np.linalg.solve(pose.covariance, error) / 6


@pytest.mark.parametrize('camera', [VGA, FISHEYE], ids=['pinhole', 'fisheye'])
def test_exact_matches_give_the_exact_pose(camera):
    scene = make_scene(0, camera=camera)
    pose = estimate(scene)
    translation_m, rotation_deg = pose_error(pose.T_map_camera, scene.T_map_camera)
    assert translation_m < 1e-4
    assert rotation_deg < 1e-3
    assert pose.inlier_mask.all()
    assert pose.reprojection_errors_px.max() < 0.05
    # No camera agrees with a map like this: it is taken for 0.1 px, not for certain.
    assert np.sqrt(np.linalg.eigvalsh(pose.covariance)[0]) > 1e-6


def test_finds_the_pose_among_outliers_and_names_them():
    scene = make_scene(1, 1000, noise_px=1.0, outlier_ratio=0.7)
    pose = estimate(scene)
    translation_m, rotation_deg = pose_error(pose.T_map_camera, scene.T_map_camera)
    assert translation_m < 0.01
    assert rotation_deg < 0.1
    assert pose.inlier_mask[~scene.is_outlier].mean() > 0.99
    assert pose.inlier_mask[scene.is_outlier].mean() < 0.02
    assert ((pose.reprojection_errors_px <= 12.0) == pose.inlier_mask).all()


def test_a_map_far_from_its_origin_gives_the_same_pose():
    scene = make_scene(1, 600, noise_px=1.0, outlier_ratio=0.5)
    expected = estimate(scene)
    T_moved_map = make_transform(np.eye(3), (5e5, 5e6, 100.0))  # as in UTM
    scene.points_map[:] = transform_points(T_moved_map, scene.points_map)
    pose = estimate(scene)
    moved_m, turned_deg = pose_error(pose.T_map_camera, T_moved_map @ expected.T_map_camera)
    # A tenth of what the noise does: 0.7 mm, 0.02 deg.
    assert moved_m < 1e-4
    assert turned_deg < 2e-3
    np.testing.assert_allclose(pose.covariance, expected.covariance, rtol=0.01)


def test_matches_that_are_a_little_wrong_hardly_move_the_pose():
    # Within the threshold of an inlier, but twenty times the noise of the others.
    errors_m = {True: [], False: []}
    for seed in range(10):
        scene = make_scene(seed, 600, noise_px=0.5)
        rng = np.random.default_rng(seed)
        is_off = rng.random(600) < 0.4
        scene.pixels[is_off] += rng.uniform(-10, 10, (is_off.sum(), 2))
        errors_m[True].append(pose_error(estimate(scene).T_map_camera, scene.T_map_camera)[0])
        scene.points_map[is_off] = np.nan
        errors_m[False].append(pose_error(estimate(scene).T_map_camera, scene.T_map_camera)[0])
    assert np.mean(errors_m[True]) < 2 * np.mean(errors_m[False])


def test_same_input_and_seed_give_the_same_answer():
    scene = make_scene(2, noise_px=1.0, outlier_ratio=0.5)
    first, second = estimate(scene, seed=7), estimate(scene, seed=7)
    np.testing.assert_array_equal(first.T_map_camera, second.T_map_camera)
    np.testing.assert_array_equal(first.covariance, second.covariance)


def test_landmarks_that_are_missing_take_no_part():
    scene = make_scene(3, 100)
    scene.points_map[::3] = np.nan
    pose = estimate(scene)
    assert pose_error(pose.T_map_camera, scene.T_map_camera)[0] < 1e-4
    assert not pose.inlier_mask[::3].any()
    assert np.isnan(pose.reprojection_errors_px[::3]).all()
    assert pose.inlier_mask.sum() == 66


def test_scores_find_the_pose_when_few_matches_are_right():
    scene = make_scene(12, 1500, noise_px=1.0, outlier_ratio=0.96)
    rng = np.random.default_rng(12)
    scores = rng.uniform(0.0, 1.0, 1500) + np.where(scene.is_outlier, 0.0, 0.5)
    for seed in range(5):
        pose = estimate(scene, scores=scores, seed=seed, max_iterations=500)
        assert pose_error(pose.T_map_camera, scene.T_map_camera)[0] < 0.05
        assert pose.inlier_mask[~scene.is_outlier].mean() > 0.95


@pytest.mark.parametrize('num_points', [0, 1, 3])
def test_too_few_points_give_no_pose(num_points):
    assert estimate(make_scene(4, num_points)) is None


# Rounding makes the least eigenvalue of the Hessian negative for one, positive for the others.
@pytest.mark.parametrize('seed', [5, 3, 7])
def test_points_on_one_line_give_no_pose(seed):
    scene = make_scene(seed, 50)
    line = scene.points_map[0] + np.linspace(0, 1, 50)[:, None] * (
        scene.points_map[1] - scene.points_map[0]
    )
    pixels = VGA.project((line - scene.T_map_camera[:3, 3]) @ scene.T_map_camera[:3, :3])
    assert estimate_absolute_pose(pixels, line, VGA) is None


def test_one_point_many_times_gives_no_pose():
    scene = make_scene(6, 50)
    scene.points_map[:], scene.pixels[:] = scene.points_map[0], scene.pixels[0]
    assert estimate(scene) is None


def test_fewer_than_four_inliers_in_the_image_give_no_pose():
    # Towards its corners this lens stretches the errors that the undistorted pixels have.
    lens = PinholeCamera(640, 480, 300.0, 300.0, 320.0, 240.0, (0.5, 0.2, 0, 0, 0))
    for seed in range(15):
        pose = estimate(make_scene(seed, 8, camera=lens, outlier_ratio=1.0, noise_px=1.0))
        assert pose is None or pose.inlier_mask.sum() >= 4


def test_landmarks_behind_the_camera_are_no_inliers():
    # Mirrored through the centre, every landmark still lies on its pixel's ray.
    scene = make_scene(7, 200)
    scene.points_map[:] = 2 * scene.T_map_camera[:3, 3] - scene.points_map
    pose = estimate(scene)
    assert pose is None or pose.inlier_mask.mean() < 0.15


def test_matches_by_chance_find_no_support():
    pose = estimate(make_scene(8, 1000, outlier_ratio=1.0))
    assert pose is None or pose.inlier_mask.sum() < 20


def test_nothing_but_missing_landmarks_gives_no_pose():
    scene = make_scene(9, 50)
    scene.points_map[:] = np.nan
    assert estimate(scene) is None


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'\(5, 2\).*\(4, 3\)'):
        estimate_absolute_pose(np.zeros((5, 2)), np.zeros((4, 3)), VGA)
    with pytest.raises(ValueError, match='scores'):
        estimate_absolute_pose(np.zeros((5, 2)), np.zeros((5, 3)), VGA, scores=np.ones(4))


@pytest.mark.parametrize(
    ('spoilt', 'most'),
    [
        ({'noise_px': 1.0, 'num_points': 100}, 1.0),
        ({'noise_px': 2.0, 'num_points': 1000, 'outlier_ratio': 0.5}, 1.0),
        ({'noise_px': 0.5, 'smooth_noise_px': 1.0, 'smooth_cell_px': 40.0}, 1.5),
        ({'noise_px': 0.5, 'smooth_noise_px': 1.0, 'smooth_cell_px': 80.0}, 1.5),
        ({'noise_px': 0.5, 'smooth_noise_px': 1.0, 'smooth_cell_px': 160.0}, 3.0),
    ],
    ids=['few', 'outliers', 'shared over 40 px', 'shared over 80 px', 'shared over 160 px'],
)
def test_covariance_tells_the_real_error(spoilt, most):
    values = []
    for seed in range(40):
        scene = make_scene(seed, **{'num_points': 1000, **spoilt})
        values.append(normalized_error_squared(estimate(scene), scene.T_map_camera))
    # Of honest covariances the mean has a standard deviation of 0.09.
    assert 0.5 < np.mean(values) < most


def move_groups(scene, groups, std_m, std_rad, rng, distance_m=0.0):
    """Put the landmarks of each group where a keyframe that is a little off sees them.

    Returns:
        (G, 3) where the keyframes are: at a distance from the camera.
    """
    num_groups = groups.max() + 1
    directions = rng.normal(size=(num_groups, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    centres = scene.T_map_camera[:3, 3] + distance_m * directions
    for group, centre in enumerate(centres):
        offset = make_transform(
            rotation_from_vector(std_rad * rng.normal(size=3)), std_m * rng.normal(size=3)
        )
        rows = groups == group
        scene.points_map[rows] = centre + transform_points(offset, scene.points_map[rows] - centre)
    return centres


def test_covariance_tells_the_error_of_keyframes_that_disagree():
    # Three keyframes, each some millimetres and tenths of a degree off in the map.
    with_groups, without = [], []
    for seed in range(40):
        scene = make_scene(seed, 900, noise_px=0.7)
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, 3, 900)
        move_groups(scene, groups, 0.005, np.radians(0.1), rng)
        for options, values in (({'groups': groups}, with_groups), ({}, without)):
            values.append(normalized_error_squared(estimate(scene, **options), scene.T_map_camera))
    assert 0.3 < np.mean(with_groups) < 3.0
    assert np.mean(without) > 3.0


def test_keyframes_that_agree_cost_nothing():
    ratios = []
    for seed in range(10):
        scene = make_scene(seed, 900, noise_px=1.0)
        groups = np.random.default_rng(seed).integers(0, 10, 900)
        with_groups, without = estimate(scene, groups=groups), estimate(scene)
        ratios.append(np.trace(with_groups.covariance) / np.trace(without.covariance))
    assert np.mean(ratios) < 1.2


@pytest.mark.parametrize('distance_m', [0.0, 5.0])
@pytest.mark.parametrize('counts', [(900,), (880, 10, 10), (800, 50, 50), (300, 300, 300)])
def test_covariance_tells_the_error_that_one_keyframe_has_alone(counts, distance_m):
    # The others are too few to tell how far off it is.
    stds = (0.03, np.radians(0.3))
    with_stds, without = [], []
    for seed in range(40):
        scene = make_scene(seed, sum(counts), noise_px=1.0)
        rng = np.random.default_rng(seed)
        groups = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        centres = move_groups(scene, groups, *stds, rng, distance_m)
        errors = GroupErrors(*stds, centres)
        for options, values in (({'group_errors': errors}, with_stds), ({}, without)):
            pose = estimate(scene, groups=groups, **options)
            values.append(normalized_error_squared(pose, scene.T_map_camera))
    # Where the keyframes weigh alike their disagreement counts twice: measured, and as stated.
    assert 0.2 < np.median(with_stds) < 3.0
    if max(counts) > 500:
        assert np.median(without) > 50


def test_error_of_keyframes_is_what_their_moves_do_to_the_pose():
    # One is seen on the left, the other on the right: what each does alone has no simple form.
    scene = make_scene(13, 900, noise_px=1.0)
    groups = (scene.pixels[:, 0] > 420).astype(int)
    centres = scene.T_map_camera[:3, 3] + [[0, 0, 4.0], [3.0, 0, 0]]
    stds = (0.001, np.radians(0.02))
    without = estimate(scene, groups=groups)
    found = estimate(scene, groups=groups, group_errors=GroupErrors(*stds, centres))
    moves = []
    for group, centre in enumerate(centres):
        rows = groups == group
        for move in np.diag(np.repeat(stds, 3)):
            offset = make_transform(rotation_from_vector(move[3:]), move[:3])
            points_map = scene.points_map.copy()
            points_map[rows] = centre + transform_points(offset, points_map[rows] - centre)
            moved = estimate_absolute_pose(scene.pixels, points_map, scene.camera)
            moves.append(pose_difference(moved.T_map_camera, without.T_map_camera))
    added, expected = found.covariance - without.covariance, np.transpose(moves) @ moves
    # To first order, and with weights that change a little.
    units = np.sqrt(np.diag(expected))
    assert (np.abs(added - expected) < 0.1 * np.outer(units, units)).all()


def test_keyframe_without_landmarks_changes_nothing():
    scene = make_scene(3, 600, noise_px=1.0)
    groups = np.repeat([0, 1, 2], 200)
    scene.points_map[groups == 0] = np.nan
    # From afar a keyframe's orientation means much.
    centres = scene.T_map_camera[:3, 3] + [[0, 0, 100.0], [0, 0, 1.0], [2.0, 0, 0]]
    stds = (0.01, np.radians(0.2))
    pose = estimate(scene, groups=groups, group_errors=GroupErrors(*stds, centres))
    others = np.maximum(groups - 1, 0)
    expected = estimate(scene, groups=others, group_errors=GroupErrors(*stds, centres[1:]))
    np.testing.assert_allclose(pose.covariance, expected.covariance)


def test_wide_lens_is_judged_in_the_pixels_of_its_image():
    # 75 deg off the axis at the corners, where an undistorted image stretches a pixel fifteenfold.
    lens = PinholeCamera(640, 480, 305.0, 305.0, 319.5, 239.5, (0.001, 0, 0, 0), 'equidistant')
    values = []
    for seed in range(20):
        scene = make_scene(seed, 900, camera=lens, noise_px=2.0)
        pose = estimate(scene)
        values.append(normalized_error_squared(pose, scene.T_map_camera))
        assert pose.inlier_mask.mean() > 0.99
        assert np.median(pose.reprojection_errors_px) == pytest.approx(2.0 * 1.18, rel=0.1)
    # Of honest covariances the mean has a standard deviation of 0.13.
    assert 0.5 < np.mean(values) < 1.2


def test_covariance_turns_with_the_map():
    # The same room in a map that is turned: axes of the error turn along.
    scene = make_scene(10, 300, noise_px=1.0, region=(0.0, 0.0, 0.5, 0.7))
    T_turned_map = make_transform(rotation_from_vector([0.5, -0.8, 1.0]), [3.0, -1.0, 2.0])
    turned_points = transform_points(T_turned_map, scene.points_map)
    turned = estimate_absolute_pose(scene.pixels, turned_points, VGA)
    both_turned = np.kron(np.eye(2), T_turned_map[:3, :3])
    expected = both_turned @ estimate(scene).covariance @ both_turned.T
    np.testing.assert_allclose(turned.covariance, expected, atol=1e-3 * expected.max())


def test_weak_geometry_is_told_by_the_covariance():
    strong = estimate(make_scene(11, 300, noise_px=1.0))
    weak = estimate(
        make_scene(11, 300, noise_px=1.0, depth_m=(20.0, 22.0), region=(0.4, 0.4, 0.6, 0.6))
    )
    assert np.trace(weak.covariance[:3, :3]) > 100 * np.trace(strong.covariance[:3, :3])
