"""Landmarks from matches of keyframes at known poses."""

from __future__ import annotations

from dataclasses import replace

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import (
    invert,
    make_transform,
    transform_points,
)
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.triangulation import triangulate_landmarks
from coam_ros.matching import Correspondences
from map_samples import encode, make_keyframe
import numpy as np
import pytest
from rotations import rotation_from_vector

WIDTH, HEIGHT = 640, 480
WIDE = PinholeCamera(WIDTH, HEIGHT, 400.0, 405.0, 322.0, 238.0, (-0.2, 0.05, 1e-3, -1e-3, 0.0))


FINE = PinholeCamera(
    2 * WIDTH, 2 * HEIGHT, 800.0, 810.0, 644.5, 476.5, (-0.2, 0.05, 1e-3, -1e-3, 0.0)
)


NARROW = PinholeCamera(WIDTH, HEIGHT, 520.0, 515.0, 318.0, 243.0)
# Maps lie anyhow to what they show.
T_MAP_SCENE = make_transform(rotation_from_vector([1.5, 0.2, -0.1]), [3, -1, 2])


class KnownScene:
    """Points that keyframes on an arc see, and their exact matches."""

    def __init__(self, *cameras: PinholeCamera, num_views: int = 4) -> None:
        rng = np.random.default_rng(0)
        points = rng.uniform((-2, -1.5, 3), (2, 1.5, 6), (600, 3))
        self.points_map = transform_points(T_MAP_SCENE, points)
        cameras = [(cameras or (WIDE,))[i % max(len(cameras), 1)] for i in range(num_views)]
        descriptors = np.eye(num_views, 8, dtype=np.float32)
        self.keyframes = [
            make_keyframe(
                id=10 + i,
                camera=camera,
                image=encode(np.zeros((camera.height, camera.width, 3), np.uint8), '.jpg'),
                depth=None,
                T_map_camera=T_MAP_SCENE
                @ make_transform(
                    rotation_from_vector([0, -0.08 * i, 0.03 * i]), [0.5 * i, 0.05 * i, 0]
                ),
                global_descriptor=descriptors[i],
            )
            for i, camera in enumerate(cameras)
        ]
        self.matched: list[tuple[int, int]] = []
        self.num_wrong = 0

    @property
    def map(self) -> KeyframeMap:
        return KeyframeMap(
            self.keyframes, map_id='known', frame_id='hall', descriptor_model_id='model'
        )

    def pixels(self, keyframe: Keyframe) -> np.ndarray:
        points = transform_points(invert(keyframe.T_map_camera), self.points_map)
        return keyframe.camera.project(points)

    def match(self, keyframe0: Keyframe, keyframe1: Keyframe) -> Correspondences:
        self.matched.append((keyframe0.id, keyframe1.id))
        views, are_seen = [], []
        for keyframe in (keyframe0, keyframe1):
            size = np.array([keyframe.camera.width, keyframe.camera.height])
            views.append(view := self.pixels(keyframe))
            are_seen.append(((view > 0) & (view < size - 1)).all(axis=1))
        is_seen = np.all(are_seen, axis=0)
        points0, points1 = (view[is_seen].astype(np.float32) for view in views)
        points1[: self.num_wrong] += (0, 40)
        return Correspondences(points0, points1, np.ones(len(points0), np.float32))

    def errors_m(self, keyframe: Keyframe) -> np.ndarray:
        """Distance of each landmark to the point whose pixel is nearest to its own."""
        pixels = self.pixels(keyframe)
        pixels[~np.isfinite(pixels)] = 1e6
        offsets = np.linalg.norm(keyframe.landmark_pixels[:, None] - pixels[None], axis=2)
        # Points within the merging radius of one another have become one.
        assert np.quantile(offsets.min(axis=1), 0.95) < 0.01
        nearest = self.points_map[offsets.argmin(axis=1)]
        return np.linalg.norm(keyframe.landmark_points_map - nearest, axis=1)


@pytest.mark.parametrize('camera', [WIDE, FINE], ids=['640', '1280'])
def test_exact_matches_give_the_points_also_through_a_lens(camera):
    scene = KnownScene(camera)
    steps = []
    made = triangulate_landmarks(
        scene.map, scene.match, progress=lambda done, total: steps.append((done, total))
    )
    assert (made.map_id, made.frame_id) == ('known', 'hall')
    assert made.descriptor_model_id == 'model'
    assert [keyframe.id for keyframe in made] == [10, 11, 12, 13]
    assert steps == [(i, 6) for i in range(1, 7)]
    for keyframe in made:
        assert len(keyframe.landmark_pixels) > 200
        assert np.quantile(scene.errors_m(keyframe), 0.95) < 0.01
    assert all(keyframe.landmark_pixels is None for keyframe in scene.keyframes)


def test_matches_that_do_not_fit_the_poses_are_left_out():
    scene = KnownScene()
    scene.num_wrong = 60
    for keyframe in triangulate_landmarks(scene.map, scene.match):
        assert np.quantile(scene.errors_m(keyframe), 0.95) < 0.01


def test_each_keyframe_goes_with_those_most_similar_that_look_the_same_way():
    scene = KnownScene()
    alike = np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    turned = T_MAP_SCENE @ make_transform(rotation_from_vector([0, np.pi, 0]), [0, 0, 1])
    scene.keyframes[0] = replace(scene.keyframes[0], global_descriptor=alike)
    scene.keyframes[1] = replace(scene.keyframes[1], global_descriptor=alike, T_map_camera=turned)
    scene.keyframes[3] = replace(scene.keyframes[3], global_descriptor=alike)
    made = triangulate_landmarks(scene.map, scene.match, num_neighbours=1)
    assert (10, 13) in scene.matched
    assert not any(11 in pair for pair in scene.matched)
    assert made.get(11).landmark_pixels is None
    assert len(made.get(10).landmark_pixels) > 100


def test_a_dense_walk_is_matched_far_enough_for_rays_that_meet():
    scene = KnownScene(num_views=2)
    angles = 0.02 * np.arange(60)
    scene.keyframes = [
        replace(
            scene.keyframes[0],
            id=i,
            T_map_camera=T_MAP_SCENE @ make_transform(np.eye(3), [0.01 * i, 0, 0]),
            # The farther apart, the less similar.
            global_descriptor=np.array([np.cos(angle), np.sin(angle)]),
        )
        for i, angle in enumerate(angles)
    ]
    made = triangulate_landmarks(scene.map, scene.match)
    numbers = [0 if k.landmark_pixels is None else len(k.landmark_pixels) for k in made]
    # The 20 nearest ones, 10 cm to either side, would give 5 degrees to no point beyond 2.3 m.
    assert np.median(numbers) > 100
    assert len(scene.matched) <= 60 * 20


def test_two_keyframes_of_two_cameras_tell_what_both_see():
    scene = KnownScene(WIDE, NARROW)
    scene.keyframes = scene.keyframes[::3]
    for keyframe in triangulate_landmarks(scene.map, scene.match):
        assert len(keyframe.landmark_pixels) > 150
        assert np.quantile(scene.errors_m(keyframe), 0.95) < 0.01


# Of a turn on the spot, and of rays that meet at 6 or at 11 degrees at most.
@pytest.mark.parametrize(('step_m', 'meet'), [(0.0, False), (0.1, False), (0.2, True)])
def test_rays_that_hardly_meet_give_no_landmarks_and_former_ones_go(step_m, meet):
    scene = KnownScene()
    scene.keyframes = [
        replace(
            keyframe,
            T_map_camera=make_transform(
                keyframe.T_map_camera[:3, :3],
                transform_points(T_MAP_SCENE, [[step_m * i, 0, 0]])[0],
            ),
            landmark_pixels=np.ones((1, 2)),
            landmark_points_map=np.ones((1, 3)),
        )
        for i, keyframe in enumerate(scene.keyframes)
    ]
    made = triangulate_landmarks(scene.map, scene.match)
    assert [keyframe.landmark_pixels is not None for keyframe in made] == [meet] * 4


def test_what_is_missing_is_said_before_anything_is_matched():
    scene = KnownScene()
    with pytest.raises(ValueError, match='0 neighbours of each keyframe, wanted at least 1'):
        triangulate_landmarks(scene.map, scene.match, num_neighbours=0)
    scene.keyframes[2] = replace(scene.keyframes[2], global_descriptor=None)
    with pytest.raises(MapFormatError, match=r'Keyframe 12 .*no global descriptor'):
        triangulate_landmarks(scene.map, scene.match)
    assert scene.matched == []
    with pytest.raises(ValueError, match='wanted at least 2 keyframes'):
        triangulate_landmarks(KeyframeMap(), scene.match)
