from coam_ros.geometry import epipolar
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import invert, make_transform
import numpy as np
import pytest
from rotations import rotation_from_vector
from synthetic_scene import camera_points, make_scene, VGA

# Another camera than VGA, which is that of image 0: a mix-up of the two would show.
CAMERA1 = PinholeCamera(320, 240, 300.0, 310.0, 150.0, 125.0)
T_1_0 = make_transform(rotation_from_vector([0.05, -0.2, 0.1]), [0.4, 0.1, -0.05])


def pixel_pairs():
    points0 = camera_points(make_scene(3, 100))
    points1 = points0 @ T_1_0[:3, :3].T + T_1_0[:3, 3]
    return VGA.project(points0), CAMERA1.project(points1)


def test_exact_pairs_have_no_residual_and_order_of_images_does_not_matter():
    pixels0, pixels1 = pixel_pairs()
    fundamental = epipolar.fundamental_from_pose(T_1_0, VGA.K, CAMERA1.K)
    fundamental_back = epipolar.fundamental_from_pose(invert(T_1_0), CAMERA1.K, VGA.K)
    for distance in (epipolar.symmetric_epipolar_distance_px, epipolar.sampson_distance_px):
        np.testing.assert_allclose(distance(pixels0, pixels1, fundamental), 0, atol=1e-6)
        moved = pixels1 + np.array([0.0, 3.0])
        np.testing.assert_allclose(
            distance(pixels0, moved, fundamental),
            distance(moved, pixels0, fundamental_back),
            atol=1e-9,
        )


def test_distance_to_a_horizontal_epipolar_line_is_the_row_difference():
    # A sideways step leaves every point in its row; the two errors are 3 and 3 / sqrt(2).
    fundamental = epipolar.fundamental_from_pose(
        make_transform(np.eye(3), [1, 0, 0]), VGA.K, VGA.K
    )
    pair = [[100.0, 200.0]], [[50.0, 203.0]]
    np.testing.assert_allclose(epipolar.symmetric_epipolar_distance_px(*pair, fundamental), 3.0)
    np.testing.assert_allclose(epipolar.sampson_distance_px(*pair, fundamental), 3.0 / np.sqrt(2))


def test_symmetric_distance_is_the_larger_one():
    # The same step between an image and one of twice its resolution: 3 px there are 1.5 px here.
    finer = np.diag([2, 2, 1]) @ VGA.K
    fundamental = epipolar.fundamental_from_pose(
        make_transform(np.eye(3), [1, 0, 0]), VGA.K, finer
    )
    pair = [[100.0, 200.0]], [[50.0, 403.0]]
    back = pair[::-1]
    assert epipolar.symmetric_epipolar_distance_px(*pair, fundamental) == pytest.approx(3.0)
    assert epipolar.symmetric_epipolar_distance_px(*back, fundamental.T) == pytest.approx(3.0)


def test_cameras_in_one_place_have_no_epipolar_line():
    fundamental = epipolar.fundamental_from_pose(np.eye(4), VGA.K, VGA.K)
    assert np.isnan(epipolar.symmetric_epipolar_distance_px([[1, 2]], [[3, 4]], fundamental)).all()
    assert np.isnan(epipolar.sampson_distance_px([[1, 2]], [[3, 4]], fundamental)).all()
    assert epipolar.sampson_distance_px(np.empty((0, 2)), np.empty((0, 2)), fundamental).shape == (
        0,
    )
