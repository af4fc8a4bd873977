from __future__ import annotations

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import invert
from coam_ros.rendering import (
    camera_pose,
    CameraEffects,
    Lighting,
    load_photographs,
    Room,
    RoomConfig,
)
from coam_ros.rendering.lighting import PointLight
from coam_ros.rendering.photometric import (
    adjust_exposure,
    defocus_blur,
    motion_blur,
    sensor_noise,
    vignette,
)
from coam_ros.rendering.rectangles import Rectangle, RectangleRenderer
from coam_ros.rendering.textures import PhotographDeck
import cv2
import numpy as np
import pytest

CAMERA = PinholeCamera(320, 240, 260.0, 265.0, 161.3, 118.4)
DISTORTED = PinholeCamera(320, 240, 260.0, 265.0, 161.3, 118.4, (-0.2, 0.05, 0.001, -0.002))
SMALL = RoomConfig(size_m=(5.0, 4.0, 2.5), texels_per_m=80.0)


@pytest.fixture(scope='module')
def room():
    return Room.generate(3, SMALL)


def facing_wall(texture, size_m=(4.0, 3.0)):
    """A wall at x = 2, centred on the x axis, seen by a camera that looks along x."""
    width, height = size_m
    return Rectangle(
        np.array([2.0, width / 2, height / 2]),
        np.array([0.0, -width, 0.0]),
        np.array([0.0, 0.0, -height]),
        texture,
    )


def points_room_of(depth_m, T_room_camera, camera):
    rows, columns = np.indices(depth_m.shape)
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    points = camera.unproject(pixels, depth_m.ravel().astype(np.float64))
    return points @ T_room_camera[:3, :3].T + T_room_camera[:3, 3]


def test_camera_pose_looks_along_yaw_with_y_down():
    T_room_camera = camera_pose((1.0, 2.0, 3.0), np.pi / 2)
    np.testing.assert_allclose(T_room_camera[:3, 2], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(T_room_camera[:3, 1], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(T_room_camera[:3, 0], [1, 0, 0], atol=1e-12)
    tilted = camera_pose((0, 0, 0), 0.3, 0.4, 0.5)
    np.testing.assert_allclose(tilted[:3, :3] @ tilted[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(tilted[:3, :3]) == pytest.approx(1.0)
    assert tilted[2, 2] == pytest.approx(np.sin(0.4))
    # Clockwise: what lies to the right of the camera is lower.
    assert tilted[2, 0] == pytest.approx(-np.sin(0.5) * np.cos(0.4))


def test_wall_reads_the_right_way_round_and_is_invisible_from_behind():
    texture = np.zeros((100, 100, 3), np.uint8)
    texture[:50, :50], texture[:50, 50:], texture[50:, :50] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    renderer = RectangleRenderer([facing_wall(texture)])
    image, depth_m = renderer.render(camera_pose((0, 0, 0), 0.0), CAMERA)
    assert image[60, 60].tolist() == [255, 0, 0]
    assert image[60, 260].tolist() == [0, 255, 0]
    assert image[180, 60].tolist() == [0, 0, 255]
    np.testing.assert_allclose(depth_m, 2.0, rtol=1e-6)

    image, depth_m = renderer.render(camera_pose((4, 0, 0), np.pi), CAMERA)
    assert not image.any()
    assert np.isnan(depth_m).all()


@pytest.mark.parametrize('camera', [CAMERA, DISTORTED])
def test_spots_of_a_texture_appear_where_the_camera_projects_them(camera):
    # Texture of 200 texels/m with Gaussian spots; texel (i, j) has its centre at i + 0.5.
    texture = np.zeros((600, 800, 3), np.uint8)
    rows, columns = np.indices((600, 800))
    spots = [(300, 187), (430, 260), (520, 391), (330, 400)]
    for x, y in spots:
        spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6.0**2))
        texture = np.maximum(texture, spot[..., None].astype(np.uint8))
    T_room_camera = camera_pose((0.2, 0.1, -0.1), 0.1, -0.05, 0.2)
    image, _ = RectangleRenderer([facing_wall(texture)]).render(T_room_camera, camera)
    points = np.array([[2.0, 2.0 - (x + 0.5) / 200, 1.5 - (y + 0.5) / 200] for x, y in spots])
    T_camera_room = invert(T_room_camera)
    expected = camera.project(points @ T_camera_room[:3, :3].T + T_camera_room[:3, 3])
    for x, y in expected:
        left, top = round(x) - 12, round(y) - 12
        window = image[top : top + 25, left : left + 25, 0].astype(float)
        dy, dx = np.indices(window.shape)
        centre = np.array([(dx * window).sum(), (dy * window).sum()]) / window.sum() + (left, top)
        # A spot in perspective is a little lopsided: 0.1 px.
        np.testing.assert_allclose(centre, (x, y), atol=0.1)


@pytest.mark.parametrize('camera', [CAMERA, DISTORTED])
def test_depth_is_the_distance_to_the_nearest_surface(room, camera):
    T_room_camera = camera_pose((2.5, 2.2, 1.3), 0.7, -0.2, 0.05)
    _, depth_m = room.render(T_room_camera, camera)
    assert not np.isnan(depth_m).any()
    points = points_room_of(depth_m, T_room_camera, camera)
    size = np.array(SMALL.size_m)
    to_wall = np.minimum(np.abs(points), np.abs(points - size)).min(axis=1)
    rng = np.random.default_rng(0)
    for index in rng.choice(len(points), 60, replace=False):
        on_box = min(box.distance_m(points[index]) for box in room.boxes)
        assert min(to_wall[index], on_box) < 1e-4
        # Nothing stands between the camera and the point.
        for share in np.linspace(0.05, 0.98, 25):
            between = T_room_camera[:3, 3] * (1 - share) + points[index] * share
            assert room.is_free(between, 0.0)


def test_two_views_agree_where_depth_says_so(room):
    poses = camera_pose((2.3, 2.0, 1.2), 0.5, -0.1), camera_pose((2.6, 1.8, 1.4), 0.7, -0.1, 0.1)
    (image0, depth0), (image1, depth1) = (room.render(pose, CAMERA) for pose in poses)
    T_1_room = invert(poses[1])
    points = points_room_of(depth0, poses[0], CAMERA) @ T_1_room[:3, :3].T + T_1_room[:3, 3]
    pixels = CAMERA.project(points).astype(np.float32).reshape(240, 320, 2)
    warped = cv2.remap(image1, pixels, None, cv2.INTER_LINEAR)
    seen_depth = cv2.remap(depth1, pixels, None, cv2.INTER_NEAREST)
    visible = np.abs(seen_depth - points[:, 2].reshape(240, 320)) < 0.02
    difference = np.abs(warped.astype(float) - image0).mean(axis=2)
    assert visible.mean() > 0.4
    assert np.median(difference[visible]) < 4.0
    assert np.median(difference[visible]) < 0.2 * np.median(difference[~visible])


def test_fine_texture_far_away_turns_grey_instead_of_flickering():
    texture = (255 * (np.indices((1024, 1024)).sum(axis=0) % 2)).astype(np.uint8)
    wall = facing_wall(np.repeat(texture[..., None], 3, axis=2))
    image, _ = RectangleRenderer([wall]).render(camera_pose((0, 0, 0), 0.0), CAMERA)
    inner = image[20:-20, 20:-20].astype(float)
    assert inner.mean() == pytest.approx(127.5, abs=3)
    assert inner.std() < 12


def test_outlines_are_smooth():
    wall = facing_wall(np.full((64, 64, 3), 200, np.uint8), (1.0, 1.0))
    image, _ = RectangleRenderer([wall]).render(camera_pose((0, 0, 0), 0.0, 0.0, 0.2), CAMERA)
    assert ((image > 20) & (image < 180)).any(axis=2).sum() > 100


def test_lamp_shades_by_cosine_and_distance():
    wall = facing_wall(np.full((64, 64, 3), 100, np.uint8))
    lighting = Lighting((0.2, 0.2, 0.2), (PointLight((1.0, 0.0, 0.0), (1.0, 0.5, 0.0), 1.0),))
    camera = PinholeCamera(320, 240, 260.0, 260.0, 160.0, 120.0)
    image, _ = RectangleRenderer([wall]).render(camera_pose((0, 0, 0), 0.0), camera, lighting)
    # Straight ahead the lamp is 1 m away: half of its colour, over 0.2 of ambient light.
    assert image[120, 160].tolist() == [70, 45, 20]
    # Pixel 290 sees y = -1: cosine 1 / sqrt(2), squared distance 2.
    assert image[120, 290, 0] == pytest.approx(100 * (0.2 + 0.5**0.5 / 3), abs=1)
    behind = Lighting((0.2, 0.2, 0.2), (PointLight((3.0, 0.0, 0.0), (1.0, 1.0, 1.0)),))
    image, _ = RectangleRenderer([wall]).render(camera_pose((0, 0, 0), 0.0), camera, behind)
    assert (image == 20).all()


def test_light_without_strength_is_even_and_lamps_hang_in_the_room():
    even = Lighting.sample(np.random.default_rng(0), SMALL.size_m, 0.0)
    assert even.ambient == pytest.approx((0.95, 0.95, 0.95))
    assert all(lamp.colour == (0, 0, 0) for lamp in even.lamps)
    for seed in range(10):
        lighting = Lighting.sample(np.random.default_rng(seed), (9.0, 4.0, 2.5))
        assert max(lighting.ambient) < 0.75
        for lamp in lighting.lamps:
            assert (np.array(lamp.position_room_m) < (9.0, 4.0, 2.5)).all()
            assert lamp.position_room_m[2] > 1.4


def test_same_seed_gives_the_same_room_and_another_seed_another_one(room):
    T_room_camera = camera_pose((2.5, 2.0, 1.2), 1.0)
    image, depth_m = room.render(T_room_camera, CAMERA)
    image_again, depth_again = Room.generate(3, SMALL).render(T_room_camera, CAMERA)
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(depth_m, depth_again)
    other, _ = Room.generate(4, SMALL).render(T_room_camera, CAMERA)
    assert np.abs(other.astype(float) - image).mean() > 20


def test_furniture_stays_inside_the_room_and_takes_space(room):
    # Four walls, and what hangs on each.
    assert len(room.boxes) > 8
    for box in room.boxes:
        assert min(box.centre_room_m) > 0
        assert (np.array(box.centre_room_m) < SMALL.size_m).all()
        beside = np.add(box.centre_room_m, (0, 0, box.size_m[2] / 2 + 0.1))
        assert not room.is_free(beside, 0.11)
        assert room.is_free((2.5, 2.0, 2.0))
        assert not room.is_free(box.centre_room_m, 0.0)
        reach = np.hypot(*box.size_m[:2]) / 2
        assert box.distance_m(np.add(box.centre_room_m, (reach + 1, 0, 0))) >= 1 - 1e-9
    assert not room.is_free((0.1, 2.0, 1.2))
    assert not room.is_free((2.5, 2.0, 2.6), 0.0)


def test_photographs_are_real_and_unknown_names_are_named():
    photographs = load_photographs()
    assert len(photographs) >= 12
    for photograph in photographs.values():
        assert photograph.ndim == 3
        assert photograph.dtype == np.uint8
        assert min(photograph.shape[:2]) >= 170
    red, _, blue = photographs['retina'].mean(axis=(0, 1))
    assert red > 2 * blue
    with pytest.raises(ValueError, match='mona_lisa'):
        load_photographs(['mona_lisa'])


def test_all_photographs_are_dealt_before_one_comes_again():
    photographs = list(
        np.eye(3, dtype=np.uint8)[:, None, None] * np.full((64, 64, 1), 200, np.uint8)
    )
    deck = PhotographDeck(photographs, np.random.default_rng(0))
    for _ in range(3):
        dealt = {int(deck.deal(20, 20).mean(axis=(0, 1)).argmax()) for _ in range(3)}
        assert dealt == {0, 1, 2}


def test_room_rejects_what_it_cannot_build():
    with pytest.raises(ValueError, match='at least 2 m'):
        RoomConfig(size_m=(1.0, 5.0, 3.0))
    for texels_per_m in (0.0, 1500.0):
        with pytest.raises(ValueError, match='texels'):
            RoomConfig(texels_per_m=texels_per_m)
    with pytest.raises(ValueError, match='0 photographs'):
        Room.generate(0, SMALL, [])
    with pytest.raises(ValueError, match='0 rectangles'):
        RectangleRenderer([])
    # OpenCV samples no larger image.
    for shape in ((33_000, 4, 3), (4, 33_000, 3)):
        with pytest.raises(ValueError, match='no side over 32767 px'):
            RectangleRenderer([facing_wall(np.zeros(shape, np.uint8))])


def test_effects_of_no_strength_change_nothing():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    effects = CameraEffects.sample(np.random.default_rng(1), strength=0.0)
    np.testing.assert_array_equal(effects.apply(image, np.random.default_rng(2)), image)


@pytest.mark.parametrize('direction_rad', [0.0, 0.6, np.pi / 2])
def test_motion_blur_smears_without_shifting(direction_rad):
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    blurred = motion_blur(image, 6.0, direction_rad)[..., 0].astype(float)
    rows, columns = np.indices(blurred.shape) - 20
    total = blurred.sum()
    # Rounding to grey levels leaves a hundredth of a pixel.
    assert (rows * blurred).sum() / total == pytest.approx(0.0, abs=0.02)
    assert (columns * blurred).sum() / total == pytest.approx(0.0, abs=0.02)
    along = np.cos(direction_rad) * columns + np.sin(direction_rad) * rows
    # Variance of a uniform line of length L is L^2 / 12; bilinear splatting adds up to 1 / 4.
    assert (along**2 * blurred).sum() / total == pytest.approx(36 / 12, abs=0.5)


def test_every_effect_is_applied():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    for effects, wanted in (
        (CameraEffects(motion_length_px=5, motion_direction_rad=1), motion_blur(image, 5, 1)),
        (CameraEffects(defocus_sigma_px=1), defocus_blur(image, 1)),
        (CameraEffects(vignette_strength=0.4), vignette(image, 0.4)),
        (CameraEffects(gamma=2), adjust_exposure(image, gamma=2)),
        (CameraEffects(read_std=3), sensor_noise(image, np.random.default_rng(2), 3, 0)),
    ):
        found = effects.apply(image, np.random.default_rng(2))
        np.testing.assert_array_equal(found, wanted)
        assert (found != image).any()


def test_noise_grows_with_brightness():
    rng = np.random.default_rng(0)
    views = [
        sensor_noise(np.full((200, 200, 3), level, np.uint8), rng, 2.0, 6.0) for level in (20, 200)
    ]
    dark, bright = (view.std() for view in views)
    assert [view.mean() for view in views] == pytest.approx([20, 200], abs=0.1)
    assert dark == pytest.approx((4 + 36 * 20 / 255) ** 0.5, abs=0.15)
    assert bright == pytest.approx((4 + 36 * 200 / 255) ** 0.5, abs=0.15)


def test_exposure_and_vignette():
    image = np.full((31, 41, 3), 100, np.uint8)
    assert adjust_exposure(image, (1.2, 1.0, 0.5))[0, 0].tolist() == [120, 100, 50]
    assert (adjust_exposure(image, gamma=2.0) == round(100**2 / 255)).all()
    darkened = vignette(image, 0.4)
    assert darkened[15, 20].tolist() == [100, 100, 100]
    # Along the middle row, where 1 - 0.4 x^2 / 2 is 0.8, 0.95, 1: rounded, not cut off.
    row = vignette(np.full((3, 5, 3), 101, np.uint8), 0.4)[1, :, 0]
    assert row.tolist() == [81, 96, 101, 96, 81]
    assert darkened[0, 0, 0] == 60
