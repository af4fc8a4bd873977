import tracemalloc

from coam_ros.geometry import transforms
import numpy as np
import pytest
from rotations import rotation_from_vector
from synthetic_scene import random_pose


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_inverse_composes_to_identity(rng):
    T_a_b = random_pose(rng)
    np.testing.assert_allclose(T_a_b @ transforms.invert(T_a_b), np.eye(4), atol=1e-12)


def test_transform_points_agrees_with_homogeneous_product(rng):
    T_a_b, points = random_pose(rng), rng.normal(size=(5, 3))
    expected = (T_a_b @ np.column_stack([points, np.ones(5)]).T).T[:, :3]
    np.testing.assert_allclose(transforms.transform_points(T_a_b, points), expected, atol=1e-12)
    assert transforms.transform_points(T_a_b, np.empty((0, 3))).shape == (0, 3)


def test_is_rigid_tells_rotations_from_the_rest(rng):
    T_a_b = random_pose(rng)
    mirrored, scaled, unset, projective = (T_a_b.copy() for _ in range(4))
    mirrored[:3, 0] *= -1
    scaled[:3, :3] *= 1.001
    unset[0, 3] = np.nan
    projective[3, 0] = 0.01
    assert transforms.is_rigid(T_a_b)
    others = (mirrored, scaled, unset, projective, T_a_b[:3], np.zeros(4))
    assert not any(transforms.is_rigid(other) for other in others)


def test_quaternion_of_known_rotations():
    quarter_about_z = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    s = np.sqrt(0.5)
    np.testing.assert_allclose(
        transforms.quaternion_xyzw_from_rotation(quarter_about_z), [0, 0, s, s], atol=1e-12
    )
    half_about_x = np.diag([1, -1, -1])
    np.testing.assert_allclose(
        np.abs(transforms.quaternion_xyzw_from_rotation(half_about_x)), [1, 0, 0, 0], atol=1e-12
    )


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('angle', [0.0, 1e-12, 1e-7, 0.3, 2.0, np.pi - 1e-7])
def test_quaternion_and_vector_round_trips_at_any_angle(rng, angle, sign):
    axis = sign * rng.normal(size=3)
    vector = angle * axis / np.linalg.norm(axis)
    R = rotation_from_vector(vector)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(transforms.rotation_vector(R), vector, atol=1e-9)
    quaternion = transforms.quaternion_xyzw_from_rotation(R)
    assert quaternion[3] >= 0
    np.testing.assert_allclose(
        transforms.rotation_from_quaternion_xyzw(3 * quaternion), R, atol=1e-12
    )


def test_refuses_quaternion_without_direction():
    for quaternion in ([0, 0, 0, 0], [np.nan, 0, 0, 1], [0, 0, 1]):
        with pytest.raises(ValueError, match='No rotation'):
            transforms.rotation_from_quaternion_xyzw(quaternion)


def test_skew_is_the_cross_product(rng):
    a, b = rng.normal(size=(2, 4, 3))
    np.testing.assert_allclose(
        (transforms.skew(a) @ b[..., None])[..., 0], np.cross(a, b), atol=1e-12
    )


def test_pose_error_measures_metres_and_degrees(rng):
    T_true = random_pose(rng)
    step = transforms.make_transform(rotation_from_vector([0, np.radians(3), 0]), [0.3, 0.4, 0])
    np.testing.assert_allclose(transforms.pose_error(T_true @ step, T_true), (0.5, 3.0), atol=1e-9)


def test_covariance_of_the_base_is_that_of_many_drawn_poses(rng):
    T_map_camera = random_pose(rng)
    scatter = rng.normal(size=(6, 6)) * np.repeat([[0.01], [0.005]], 3, axis=0)
    covariance = scatter @ scatter.T
    T_camera_base = transforms.make_transform(
        rotation_from_vector([0.1, 0.2, 1.0]), [0.5, -1.0, 2.0]
    )
    errors = rng.multivariate_normal(np.zeros(6), covariance, 20_000)
    base = T_map_camera @ T_camera_base
    drawn = []
    for error in errors:
        noisy = T_map_camera.copy()
        noisy[:3, 3] += error[:3]
        noisy[:3, :3] = rotation_from_vector(error[3:]) @ noisy[:3, :3]
        drawn.append((noisy @ T_camera_base)[:3, 3] - base[:3, 3])
    moved = transforms.move_covariance(covariance, base[:3, 3] - T_map_camera[:3, 3])
    # 20,000 samples give a covariance to about 1 %, and the rotations are small but not tiny.
    np.testing.assert_allclose(
        moved[:3, :3], np.cov(np.transpose(drawn)), atol=0.05 * moved[:3, :3].max()
    )
    np.testing.assert_allclose(moved[3:, 3:], covariance[3:, 3:])


def test_main_axes_are_those_of_the_floor_that_the_camera_moved_on(rng):
    points = rng.normal(size=(100, 3)) * (0.01, 2, 1) + (50, 0, 0)  # flat along x, far off
    axes = transforms.main_axes(points)
    assert abs(axes[0, 1]) > 0.9
    assert np.abs(axes[:2, 0]).max() < 0.02
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    np.testing.assert_array_equal(transforms.main_axes(np.empty((0, 3))), np.eye(3))
    assert np.linalg.det(transforms.main_axes(np.zeros((2, 3)))) == pytest.approx(1.0)


def test_main_axes_of_many_points_take_little_memory(rng):
    points = rng.normal(size=(2000, 3))
    tracemalloc.start()
    try:
        transforms.main_axes(points)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The points are 48 kB; a matrix of points by points is 32 MB.
    assert peak_bytes < 1e6
