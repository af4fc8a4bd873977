from __future__ import annotations

import dataclasses
import json

from coam_ros.geometry.camera import CalibrationError, PinholeCamera
import cv2
import numpy as np
import pytest

SIZE = {'width': 640, 'height': 480, 'fx': 500.0, 'fy': 505.0, 'cx': 322.0, 'cy': 238.0}
DISTORTIONS = {
    'none': ((), 'plumb_bob'),
    'zeros of an unnamed model': ((0.0,) * 5, ''),
    'plumb_bob': ((-0.28, 0.09, 0.001, -0.0007, -0.01), 'plumb_bob'),
    'plumb_bob of four': ((0.1, -0.05, 0.001, 0.002), 'plumb_bob'),
    'rational_polynomial': (
        (0.5, -0.1, 0.0003, 0.0002, 0.02, 0.8, -0.05, 0.01),
        'rational_polynomial',
    ),
    'equidistant': ((-0.02, 0.005, -0.003, 0.0006), 'equidistant'),
}


@pytest.fixture(params=DISTORTIONS.values(), ids=DISTORTIONS.keys())
def camera(request):
    distortion, model = request.param
    return PinholeCamera(**SIZE, distortion=distortion, distortion_model=model)


def image_pixels(camera):
    columns = np.linspace(0, camera.width - 1, 17)
    rows = np.linspace(0, camera.height - 1, 13)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


def test_unproject_then_project_gives_the_pixel_back(camera):
    pixels = image_pixels(camera)
    points_camera = camera.unproject(pixels, np.linspace(0.5, 9.0, len(pixels)))
    np.testing.assert_allclose(points_camera[:, 2], np.linspace(0.5, 9.0, len(pixels)))
    np.testing.assert_allclose(camera.project(points_camera), pixels, atol=0.01)


def test_undistorted_pixels_are_those_of_the_ideal_pinhole(camera):
    pixels = image_pixels(camera)
    points_camera = camera.unproject(pixels, 2.0)
    ideal = PinholeCamera(**SIZE)
    np.testing.assert_allclose(camera.undistort(pixels), ideal.project(points_camera), atol=1e-6)


@pytest.mark.parametrize('name', ['plumb_bob', 'rational_polynomial'])
def test_distortion_is_that_of_opencv(name):
    distortion, model = DISTORTIONS[name]
    camera = PinholeCamera(**SIZE, distortion=distortion, distortion_model=model)
    points = np.random.default_rng(2).uniform((-1, -1, 2), (1, 1, 4), (50, 3))
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), camera.K, np.array(distortion)
    )
    np.testing.assert_allclose(camera.project(points), expected[:, 0], atol=1e-8)


def test_fisheye_is_that_of_opencv():
    distortion, model = DISTORTIONS['equidistant']
    camera = PinholeCamera(**SIZE, distortion=distortion, distortion_model=model)
    points = np.random.default_rng(2).uniform((-3, -3, 2), (3, 3, 4), (50, 3))
    points[:2] = (0, 0, 2), (0.1, 0.05, 2)
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), camera.K, np.array(distortion)
    )
    np.testing.assert_allclose(camera.project(points), expected[:, 0], atol=1e-8)


def test_principal_point_is_seen_straight_ahead():
    camera = PinholeCamera(**SIZE)
    np.testing.assert_allclose(camera.unproject([[322.0, 238.0]], 3.0), [[0, 0, 3]], atol=1e-12)


def test_points_not_in_front_project_to_nan():
    camera = PinholeCamera(**SIZE)
    assert np.isnan(camera.project([[0, 0, -1], [1, 1, 0], [0, 0, np.nan]])).all()
    assert camera.project(np.empty((0, 3))).shape == (0, 2)
    assert camera.undistort(np.empty((0, 2))).shape == (0, 2)


FOLDING = [(-0.3, 0, 0, 0, 0), (-0.45, 0.3, 0, 0, -0.1), (-0.3, 0, 0.001, -0.001)]


@pytest.mark.parametrize('distortion', FOLDING)
def test_pixels_that_no_ray_reaches_undistort_to_nan(distortion):
    camera = PinholeCamera(**SIZE | {'fx': 350.0, 'fy': 350.0}, distortion=distortion)
    # r (1 + k1 r^2 + k2 r^4 + k3 r^6) grows up to the first root of its slope.
    k1, k2, *_, k3 = (*distortion, 0.0)[:5]
    slope = np.polynomial.Polynomial((1, 3 * k1, 5 * k2, 7 * k3))
    fold = min(np.sqrt(root.real) for root in slope.roots() if root.real > 0 == root.imag)
    limit_px = 350 * (fold + k1 * fold**3 + k2 * fold**5 + k3 * fold**7)
    grid = np.meshgrid(np.arange(0, 640, 4), np.arange(0, 480, 4))
    pixels = np.stack(grid, axis=-1).reshape(-1, 2)
    offsets_px, ideal_px = pixels - (322.0, 238.0), camera.undistort(pixels) - (322.0, 238.0)
    radius_px = np.linalg.norm(offsets_px, axis=1)
    # The tangential part, where there is one, moves the limit by less than two pixels.
    assert np.isnan(ideal_px[radius_px > limit_px + 2]).all()
    is_reached = radius_px < limit_px - 2
    assert ((ideal_px * offsets_px).sum(axis=1)[is_reached] >= 0).all()


@pytest.mark.parametrize('distortion', FOLDING)
def test_points_beyond_the_fold_of_the_lens_model_project_to_nan(distortion):
    camera = PinholeCamera(**SIZE | {'fx': 350.0, 'fy': 350.0}, distortion=distortion)
    # 22, 58 and 76 degrees off the axis; without a check the second one lands in the image, and
    # the third one on the other side of it.
    pixels = camera.project([[0.4, 0, 1], [1.6, 0, 1], [0, 4, 1]])
    assert np.isfinite(pixels[0]).all()
    assert np.isnan(pixels[1:]).all()


# Of a lens of 107 deg, the cameras of freiburg1 of TUM and cam0 of EuRoC.
@pytest.mark.parametrize(
    ('focal_px', 'distortion'),
    [
        (300.0, (-0.3, 0.1, 0, 0)),
        (517.3, (0.262383, -0.953104, -0.005358, 0.002628, 1.163314)),
        (458.7, (-0.28340811, 0.07395907, 0.00019359, 0.0000176187)),
    ],
)
def test_common_calibrations_keep_every_pixel(focal_px, distortion):
    camera = PinholeCamera(**SIZE | {'fx': focal_px, 'fy': focal_px}, distortion=distortion)
    pixels = image_pixels(camera)
    np.testing.assert_allclose(camera.project(camera.unproject(pixels, 2.0)), pixels, atol=0.01)


def test_jacobians_are_those_of_the_projection(camera):
    points = np.random.default_rng(3).uniform((-1, -1, 2), (1, 1, 4), (20, 3))
    jacobians = camera.projection_jacobians(points)
    for axis, step in enumerate(1e-5 * np.eye(3)):
        slope = (camera.project(points + step) - camera.project(points - step)) / 2e-5
        np.testing.assert_allclose(jacobians[:, :, axis], slope, atol=1e-3)
    assert np.isnan(camera.projection_jacobians([[0, 0, -1.0]])).any()


def test_tolerances_scale_with_the_root_of_the_area_however_the_image_lies():
    for width, height in ((1280, 960), (960, 1280), (640, 1920)):
        camera = PinholeCamera(**SIZE | {'width': width, 'height': height})
        assert camera.pixels_per_nominal == pytest.approx(2.0)


def test_intrinsic_matrix_round_trip():
    camera = PinholeCamera(**SIZE)
    assert PinholeCamera.from_K(camera.K, 640, 480) == camera
    assert PinholeCamera.from_K(camera.K.ravel().tolist(), 640, 480) == camera


def test_numbers_of_numpy_become_plain_ones():
    camera = PinholeCamera(*np.int64([640, 480]), *np.float32([500, 500, 320, 240]))
    assert json.loads(json.dumps(dataclasses.asdict(camera)))['fx'] == 500


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'fx': 0.0}, 'not calibrated'),
        ({'fy': -500.0}, 'not calibrated'),
        ({'cx': float('nan')}, 'not calibrated'),
        ({'width': 0}, '0 x 480'),
        ({'height': 0}, '640 x 0'),
        ({'distortion': (0.1, float('inf'), 0, 0, 0)}, 'not finite'),
        ({'distortion': (0.1, 0.2, 0.3)}, '3 coefficients'),
        ({'distortion': (0.1,) * 4, 'distortion_model': 'thin_prism'}, 'thin_prism'),
    ],
)
def test_refuses_numbers_that_are_no_camera(change, message):
    with pytest.raises(CalibrationError, match=message):
        PinholeCamera(**{**SIZE, **change})


def test_refuses_intrinsic_matrix_with_skew_of_another_form_or_of_wrong_size():
    with pytest.raises(CalibrationError, match='skew'):
        PinholeCamera.from_K([[500, 1, 320], [0, 500, 240], [0, 0, 1]], 640, 480)
    for other in ([[500, 0, 320], [1, 500, 240], [0, 0, 1]], np.diag([500, 500, 2])):
        with pytest.raises(CalibrationError, match='wanted fx 0 cx'):
            PinholeCamera.from_K(other, 640, 480)
    with pytest.raises(CalibrationError, match='shape'):
        PinholeCamera.from_K(np.eye(4), 640, 480)
    with pytest.raises(CalibrationError, match='not calibrated'):
        PinholeCamera.from_K(np.zeros(9), 640, 480)
