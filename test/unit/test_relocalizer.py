"""The relocalizer in a round room; an exact matcher stands for the network, the rest is real."""

from dataclasses import replace

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import (
    invert,
    make_transform,
    move_covariance,
    pose_error,
    transform_points,
)
from coam_ros.localization import FailureReason, LocalizationConfig, PosePrior, Relocalizer
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import Correspondences, EncodedImage
from coam_ros.matching.preprocessing import Resizing
from map_samples import encode
import numpy as np
import pytest

CAMERA = PinholeCamera(320, 240, 260.0, 260.0, 159.5, 119.5)
MODEL_ID = 'exact-0'
NUM_KEYFRAMES = 12
RESIZING = Resizing.fit((320, 240), 320 * 240, 16)


def looking(yaw_deg, x_m=0.0, z_m=0.0):
    """T_map_camera of a level camera near the middle of the room."""
    c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    return make_transform([[c, 0, s], [0, 1, 0], [-s, 0, c]], [x_m, 0.0, z_m])


QUERIES = [looking(40.0, 0.3, -0.2), looking(200.0, -0.4, 0.5)]
POSES = [looking(30.0 * i, 0.5, 0.1) for i in range(NUM_KEYFRAMES)] + QUERIES


def wall_points(seed=0, num_points=6000):
    rng = np.random.default_rng(seed)
    yaw = rng.uniform(0, 2 * np.pi, num_points)
    radius_m = rng.uniform(3.0, 5.0, num_points)
    height_m = rng.uniform(-2.0, 2.0, num_points)
    return np.column_stack([radius_m * np.sin(yaw), height_m, radius_m * np.cos(yaw)])


def image_of(index):
    """An image whose one colour says which of POSES took it."""
    return np.full((CAMERA.height, CAMERA.width, 3), index, np.uint8)


def visible(points_map, T_map_camera):
    pixels = CAMERA.project(transform_points(invert(T_map_camera), points_map))
    return pixels, (pixels > 0).all(axis=1) & (pixels < (319, 239)).all(axis=1)


class ExactMatcher:
    """Sees which of POSES took an image, and projects the landmarks that two of them share."""

    descriptor_model_id = MODEL_ID

    def __init__(self, points_map, noise_px=0.5, outlier_ratio=0.3):
        self.points_map = points_map
        self.noise_px = noise_px
        self.outlier_ratio = outlier_ratio
        self.num_encoded = 0
        self.before_match = lambda: None

    def encode(self, image):
        self.num_encoded += 1
        index = int(image[0, 0, 0])
        forward = POSES[index][:3, 2].astype(np.float32)
        return EncodedImage({'index': np.array([index])}, forward, RESIZING, image[..., 0])

    def match_encoded(self, query, keyframes):
        self.before_match()
        return [self._match(query.features['index'][0], k.features['index'][0]) for k in keyframes]

    def _match(self, query_index, keyframe_index):
        pixels0, is_visible0 = visible(self.points_map, POSES[query_index])
        pixels1, is_visible1 = visible(self.points_map, POSES[keyframe_index])
        both = is_visible0 & is_visible1
        rng = np.random.default_rng(1000 * query_index + keyframe_index)
        points0 = pixels0[both] + self.noise_px * rng.normal(size=(both.sum(), 2))
        is_outlier = rng.random(len(points0)) < self.outlier_ratio
        points0[is_outlier] = rng.uniform((0, 0), (319, 239), (is_outlier.sum(), 2))
        return Correspondences(
            points0.astype(np.float32),
            pixels1[both].astype(np.float32),
            np.linspace(1, 0.1, len(points0), dtype=np.float32),
        )


def make_keyframe(index, points_map):
    pixels, is_visible = visible(points_map, POSES[index])
    return Keyframe(
        id=index,
        stamp_s=float(index),
        T_map_camera=POSES[index],
        camera=CAMERA,
        image=encode(image_of(index), '.png'),
        landmark_pixels=pixels[is_visible],
        landmark_points_map=points_map[is_visible],
        global_descriptor=POSES[index][:3, 2],
    )


def make_map(indices=range(NUM_KEYFRAMES), points_map=None):
    points_map = wall_points() if points_map is None else points_map
    return KeyframeMap(
        [make_keyframe(index, points_map) for index in indices], descriptor_model_id=MODEL_ID
    )


@pytest.fixture
def matcher():
    return ExactMatcher(wall_points())


@pytest.mark.parametrize('query', [12, 13])
def test_finds_the_camera_with_evidence(matcher, query):
    result = Relocalizer(matcher, make_map()).relocalize(image_of(query), CAMERA)
    translation_m, rotation_deg = pose_error(result.T_map_camera, POSES[query])
    assert result.is_localized
    assert result.failure is None
    assert translation_m < 0.02
    assert rotation_deg < 0.2
    assert result.covariance.shape == (6, 6)
    assert (np.linalg.eigvalsh(result.covariance) > 0).all()
    assert result.inlier_ratio == pytest.approx(0.7, abs=0.05)
    assert result.coverage > 0.3
    assert 0.1 < result.reprojection_error_px < 1.5
    assert list(result.stage_durations_s) == ['encode', 'retrieve', 'match', 'pose']


def test_evidence_is_aligned_match_by_match(matcher):
    result = Relocalizer(matcher, make_map()).relocalize(image_of(12), CAMERA)
    assert result.keyframe_ids == tuple(part.keyframe_id for part in result.keyframe_matches)
    assert result.keyframe_ids[0] == 1
    assert len(result.keyframe_ids) == 3
    assert result.num_inliers == sum(part.inlier_mask.sum() for part in result.keyframe_matches)
    for part in result.keyframe_matches:
        pixels = CAMERA.project(transform_points(invert(result.T_map_camera), part.points_map))
        errors_px = np.linalg.norm(pixels - part.query_pixels, axis=1)
        np.testing.assert_array_equal(errors_px <= 6.0, part.inlier_mask)
        assert len(part.scores) == len(part.keyframe_pixels) == len(errors_px)


def test_order_of_the_keyframes_in_the_map_does_not_matter(matcher):
    forward = Relocalizer(matcher, make_map()).relocalize(image_of(12), CAMERA)
    backward = Relocalizer(matcher, make_map(range(11, -1, -1))).relocalize(image_of(12), CAMERA)
    np.testing.assert_allclose(forward.T_map_camera, backward.T_map_camera, atol=1e-9)


def test_keyframes_are_encoded_once_ever(matcher):
    relocalizer = Relocalizer(matcher, make_map())
    relocalizer.relocalize(image_of(12), CAMERA)
    assert matcher.num_encoded == 1 + 3
    relocalizer.relocalize(image_of(12), CAMERA)
    assert matcher.num_encoded == 1 + 3 + 1


def test_keyframes_that_are_nearly_equal_do_not_crowd_out_others(matcher):
    keyframe_map = make_map()
    for copy in range(3):
        nearly_equal = make_keyframe(1, wall_points())
        keyframe_map.add(replace(nearly_equal, id=100 + copy))
    result = Relocalizer(matcher, keyframe_map).relocalize(image_of(12), CAMERA)
    assert len(result.keyframe_ids) == 3
    assert len({1, 100, 101, 102}.intersection(result.keyframe_ids)) == 1


def test_keyframes_that_look_the_same_way_from_elsewhere_are_not_nearly_equal(matcher):
    keyframe_map = make_map()
    beside = replace(make_keyframe(1, wall_points()), id=100, T_map_camera=looking(30.0, 0.5, 0.4))
    keyframe_map.add(beside)
    result = Relocalizer(matcher, keyframe_map).relocalize(image_of(12), CAMERA)
    assert {1, 100}.issubset(result.keyframe_ids)


def test_nearly_equal_keyframes_are_matched_when_there_are_no_others(matcher):
    keyframe_map = make_map([1])
    keyframe_map.add(replace(make_keyframe(1, wall_points()), id=100))
    result = Relocalizer(matcher, keyframe_map).relocalize(image_of(12), CAMERA)
    assert sorted(result.keyframe_ids) == [1, 100]


def test_empty_map_is_named(matcher):
    result = Relocalizer(matcher, KeyframeMap()).relocalize(image_of(12), CAMERA)
    assert result.failure is FailureReason.NO_KEYFRAMES
    assert not result.is_localized


def test_keyframes_without_descriptors_are_named(matcher):
    bare = replace(make_keyframe(1, wall_points()), global_descriptor=None)
    result = Relocalizer(matcher, KeyframeMap([bare])).relocalize(image_of(12), CAMERA)
    assert result.failure is FailureReason.NO_KEYFRAMES
    assert 'descriptor' in result.message


def test_keyframes_without_descriptors_are_named_with_a_prior_too(matcher):
    bare = replace(make_keyframe(1, wall_points()), global_descriptor=None)
    prior = PosePrior(np.array([0.5, 0.0, 0.1]), 5.0)
    result = Relocalizer(matcher, KeyframeMap([bare])).relocalize(image_of(12), CAMERA, prior)
    assert result.failure is FailureReason.NO_KEYFRAMES
    assert 'descriptor' in result.message


@pytest.mark.parametrize('prior', [None, PosePrior(np.array([0.5, 0.0, 0.1]), 5.0)])
def test_keyframes_that_do_not_decode_are_named(matcher, prior):
    whole = encode(image_of(1), '.jpg')
    # All marks of a JPEG, and no pixel between them.
    hollow = whole[: whole.rfind(b'\xff\xda')] + b'\xff\xda\x00\x02\xff\xd9'
    damaged = replace(make_keyframe(1, wall_points()), image=hollow)
    keyframe_map = KeyframeMap([damaged], descriptor_model_id=MODEL_ID)
    result = Relocalizer(matcher, keyframe_map).relocalize(image_of(12), CAMERA, prior)
    assert result.failure is FailureReason.NO_KEYFRAMES
    assert 'do not decode' in result.message
    assert 'prior' not in result.message
    assert not len(keyframe_map)


def test_descriptors_of_another_model_are_refused(matcher):
    keyframe_map = KeyframeMap([make_keyframe(1, wall_points())], descriptor_model_id='other')
    with pytest.raises(MapFormatError, match=r"'other'.*'exact-0'"):
        Relocalizer(matcher, keyframe_map).relocalize(image_of(12), CAMERA)


def test_view_that_is_not_in_the_map_gives_a_reason_and_no_pose(matcher):
    behind = make_map([7, 8])
    result = Relocalizer(matcher, behind).relocalize(image_of(12), CAMERA)
    assert result.failure is FailureReason.TOO_FEW_MATCHES
    assert 'nothing here looks like the map' in result.message
    assert result.T_map_camera is None
    assert result.covariance is None
    assert result.keyframe_ids


@pytest.mark.parametrize('seed', range(5))
def test_matches_that_are_all_wrong_give_no_pose(seed):
    matcher = ExactMatcher(wall_points(seed), outlier_ratio=1.0)
    relocalizer = Relocalizer(matcher, make_map(points_map=wall_points(seed)))
    result = relocalizer.relocalize(image_of(12), CAMERA)
    assert not result.is_localized
    assert result.failure in (FailureReason.TOO_FEW_INLIERS, FailureReason.POSE_NOT_FOUND)
    assert result.num_matches > 100


def test_matches_without_landmarks_count_for_nothing(matcher):
    bare = make_map([0, 1, 2])
    for keyframe in bare:
        bare.add(replace(keyframe, landmark_pixels=None, landmark_points_map=None))
    result = Relocalizer(matcher, bare).relocalize(image_of(12), CAMERA)
    assert result.failure is FailureReason.TOO_FEW_MATCHES
    assert result.num_matches == 0
    assert 'coam map triangulate' in result.message


def test_matches_without_landmarks_are_none_that_a_pose_could_explain(matcher):
    keyframe_map = make_map()
    bare = keyframe_map.get(1)
    keyframe_map.add(replace(bare, landmark_pixels=None, landmark_points_map=None))
    result = Relocalizer(matcher, keyframe_map).relocalize(image_of(12), CAMERA)
    assert 1 in result.keyframe_ids
    assert result.num_matches < sum(len(part.scores) for part in result.keyframe_matches)
    assert result.inlier_ratio == pytest.approx(0.7, abs=0.05)


def test_uncertainty_of_the_map_counts(matcher):
    keyframe_map = make_map()
    config = LocalizationConfig(map_position_std_m=0.05, map_rotation_std_deg=0.5)
    without = Relocalizer(matcher, keyframe_map).relocalize(image_of(12), CAMERA)
    result = Relocalizer(matcher, keyframe_map, config).relocalize(image_of(12), CAMERA)
    added = np.diag(result.covariance - without.covariance)
    np.testing.assert_allclose(np.sqrt(added[:3]), 0.05)
    np.testing.assert_allclose(np.degrees(np.sqrt(added[3:])), 0.5)
    vague = replace(config, map_position_std_m=0.2)
    result = Relocalizer(matcher, keyframe_map, vague).relocalize(image_of(12), CAMERA)
    assert result.failure is FailureReason.HIGH_UNCERTAINTY


def test_error_of_a_keyframe_counts_in_full_where_it_is_alone(matcher):
    keyframe_map = make_map()

    def added(num_keyframes, position_std_m, rotation_std_deg):
        exact = LocalizationConfig(
            num_keyframes=num_keyframes, keyframe_position_std_m=0, keyframe_rotation_std_deg=0
        )
        inexact = replace(
            exact,
            keyframe_position_std_m=position_std_m,
            keyframe_rotation_std_deg=rotation_std_deg,
        )
        without, with_error = (
            Relocalizer(matcher, keyframe_map, config).relocalize(image_of(12), CAMERA).covariance
            for config in (exact, inexact)
        )
        return with_error - without

    position, rotation = np.diag([1, 1, 1, 0, 0, 0]), np.diag([0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(added(1, 0.05, 0), 0.05**2 * position, atol=1e-9)
    # A keyframe that is turned takes the camera, which stands aside, along.
    lever_m = POSES[12][:3, 3] - POSES[1][:3, 3]
    expected = np.radians(1.0) ** 2 * move_covariance(rotation, lever_m)
    np.testing.assert_allclose(added(1, 0, 1.0), expected, atol=0.05 * expected.max())
    # Three that are off by themselves share it.
    assert np.trace(added(3, 0.05, 0)[:3, :3]) < 0.8 * 3 * 0.05**2


def test_keyframe_removed_after_retrieval_is_left_out(matcher):
    keyframe_map = make_map()
    relocalizer = Relocalizer(matcher, keyframe_map)
    retrieve = relocalizer._retriever.retrieve

    def retrieve_and_remove(*arguments, **options):
        found = retrieve(*arguments, **options)
        keyframe_map.remove(1)
        return found

    relocalizer._retriever.retrieve = retrieve_and_remove
    result = relocalizer.relocalize(image_of(12), CAMERA)
    assert result.is_localized
    assert 1 not in result.keyframe_ids


def test_keyframe_removed_while_it_is_matched_does_no_harm(matcher):
    keyframe_map = make_map()
    matcher.before_match = lambda: keyframe_map.remove(1)
    relocalizer = Relocalizer(matcher, keyframe_map)
    assert relocalizer.relocalize(image_of(12), CAMERA).is_localized
    assert 1 not in relocalizer.relocalize(image_of(12), CAMERA).keyframe_ids


def test_prior_restricts_the_search(matcher):
    relocalizer = Relocalizer(matcher, make_map())
    near = PosePrior(np.array([0.3, 0.0, -0.2]), 1.0)
    assert relocalizer.relocalize(image_of(12), CAMERA, near).is_localized
    far = PosePrior(np.array([50.0, 0.0, 0.0]), 1.0)
    result = relocalizer.relocalize(image_of(12), CAMERA, far)
    assert result.failure is FailureReason.NO_KEYFRAMES
    assert 'prior' in result.message


def test_pose_far_from_the_prior_is_not_accepted(matcher):
    # The keyframes stand within the radius, the camera does not.
    prior = PosePrior(np.array([0.8, 0.0, 0.2]), 0.4)
    result = Relocalizer(matcher, make_map()).relocalize(image_of(12), CAMERA, prior)
    assert result.failure is FailureReason.DISAGREES_WITH_PRIOR
    assert result.T_map_camera is None
    assert result.num_inliers > 100


def test_image_of_another_size_than_the_camera_is_refused(matcher):
    with pytest.raises(ValueError, match='320 x 240 px with a camera of 640 x 480'):
        Relocalizer(matcher, make_map()).relocalize(
            image_of(12), PinholeCamera(640, 480, 500, 500, 320, 240)
        )
    with pytest.raises(ValueError, match='240 x 320 px with a camera of 320 x 240'):
        Relocalizer(matcher, make_map()).relocalize(np.rot90(image_of(12)), CAMERA)


def test_number_of_keyframes_is_a_setting(matcher):
    relocalizer = Relocalizer(matcher, make_map(), LocalizationConfig(num_keyframes=1))
    assert len(relocalizer.relocalize(image_of(12), CAMERA).keyframe_ids) == 1
