from __future__ import annotations

from coam_ros.geometry.transforms import make_transform
from coam_ros.mapping.builder import build_map
from coam_ros.mapping.descriptors import compute_descriptors
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import EncodedImage
from coam_ros.matching.preprocessing import Resizing
import cv2
from map_samples import encode, HEIGHT, make_image, make_keyframe, WIDTH
import numpy as np
import pytest


class MeanColourEncoder:
    """Describes an image by its mean colour: enough to tell which image a descriptor is of."""

    descriptor_model_id = 'mean-colour'

    def encode(self, image: np.ndarray) -> EncodedImage:
        mean = image.reshape(-1, 3).mean(axis=0)
        size = (image.shape[1], image.shape[0])
        return EncodedImage(
            {}, mean / np.linalg.norm(mean), Resizing(size, size, size), image[..., 0]
        )


def frame_at(
    number: int, x_m: float, yaw_deg: float = 0.0, roll_deg: float = 0.0, **fields: object
) -> Keyframe:
    R = cv2.Rodrigues(np.radians([0, yaw_deg, roll_deg]))[0]
    return make_keyframe(id=number, T_map_camera=make_transform(R, [x_m, 0, 0]), **fields)


def test_without_spacing_every_frame_becomes_a_keyframe_with_its_descriptor():
    colours = np.eye(3, dtype=np.uint8) * 200
    images = [np.full((HEIGHT, WIDTH, 3), colour[::-1], np.uint8) for colour in colours]
    frames = [frame_at(i, 0.0, image=encode(image, '.png')) for i, image in enumerate(images)]
    steps = []
    built = build_map(frames, MeanColourEncoder(), frame_id='hall', progress=steps.append)
    assert steps == [1, 2, 3]
    assert (built.frame_id, built.descriptor_model_id) == ('hall', 'mean-colour')
    np.testing.assert_allclose(np.stack([k.global_descriptor for k in built]), np.eye(3))


def test_frame_near_and_alike_to_any_keyframe_is_left_out():
    frames = [
        frame_at(0, 0.0),
        frame_at(1, 0.1),  # near, same direction
        frame_at(2, 0.3),  # far enough
        frame_at(3, 0.1, yaw_deg=16),  # near, turned far enough
        frame_at(4, 0.05, yaw_deg=2),  # back at the first
        frame_at(5, 0.1, yaw_deg=14),  # turned like that one
        frame_at(6, 0.1, roll_deg=12),  # near, same direction, another way up
        frame_at(7, 0.1, roll_deg=12),  # the very same
    ]
    built = build_map(frames, MeanColourEncoder(), min_distance_m=0.2, min_angle_deg=10)
    assert [keyframe.id for keyframe in built] == [0, 2, 3, 6]


def test_no_frames_give_an_empty_map():
    assert len(build_map([], MeanColourEncoder())) == 0


@pytest.mark.parametrize('spacing', ['min_distance_m', 'min_angle_deg'])
def test_negative_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match='-1'):
        build_map([], MeanColourEncoder(), **{spacing: -1})


def test_descriptors_of_another_model_are_all_computed_again():
    keyframe_map = KeyframeMap(
        [make_keyframe(id=i, global_descriptor=np.array([1.0, 0.0])) for i in range(3)],
        descriptor_model_id='old',
    )
    steps = []
    num_computed = compute_descriptors(
        keyframe_map, MeanColourEncoder(), progress=lambda *s: steps.append(s)
    )
    assert num_computed == 3
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert keyframe_map.descriptor_model_id == 'mean-colour'
    assert {len(keyframe.global_descriptor) for keyframe in keyframe_map} == {3}
    assert [keyframe.id for keyframe in keyframe_map] == [0, 1, 2]


def test_only_missing_descriptors_are_computed_when_the_model_is_the_same():
    known = np.array([0.0, 0.0, 1.0], np.float32)
    keyframe_map = KeyframeMap(
        [make_keyframe(id=0), make_keyframe(id=1, global_descriptor=known)],
        descriptor_model_id='mean-colour',
    )
    assert compute_descriptors(keyframe_map, MeanColourEncoder()) == 1
    np.testing.assert_array_equal(keyframe_map.get(1).global_descriptor, known)
    assert compute_descriptors(keyframe_map, MeanColourEncoder()) == 0


def test_descriptors_are_computed_in_as_many_goes_as_the_time_allows():
    keyframe_map = KeyframeMap([make_keyframe(id=0), make_keyframe(id=1)])
    for number in (1, 1, 0):
        assert compute_descriptors(keyframe_map, MeanColourEncoder(), budget_s=0.0) == number


def test_keyframe_removed_meanwhile_does_not_come_back():
    keyframe_map = KeyframeMap([make_keyframe(id=0), make_keyframe(id=1)])
    compute_descriptors(
        keyframe_map,
        MeanColourEncoder(),
        progress=lambda done, _: done == 1 and keyframe_map.remove(1),
    )
    assert [keyframe.id for keyframe in keyframe_map] == [0]


def test_image_that_does_not_decode_is_named_or_leaves_the_map():
    whole = encode(make_image(), '.jpg')
    # Header and end mark are there; what lies between is not.
    hollow = whole[: whole.rfind(b'\xff\xda')] + b'\xff\xda\x00\x02\xff\xd9'
    keyframe_map = KeyframeMap([make_keyframe(id=0), make_keyframe(id=1, image=hollow)])
    if cv2.imdecode(np.frombuffer(hollow, np.uint8), cv2.IMREAD_COLOR) is not None:
        pytest.skip('this OpenCV decodes a JPEG without pixels')
    with pytest.raises(MapFormatError, match='Keyframe 1: image does not decode'):
        compute_descriptors(keyframe_map, MeanColourEncoder())
    assert compute_descriptors(keyframe_map, MeanColourEncoder(), removes_damaged=True) == 0
    assert [keyframe.id for keyframe in keyframe_map] == [0]
    assert keyframe_map.get(0).global_descriptor is not None
