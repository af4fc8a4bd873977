from __future__ import annotations

import math

from coam_ros.geometry.camera import NOMINAL_AREA_PX, PinholeCamera
from coam_ros.geometry.transforms import invert, make_transform
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.image_header import read_image_header
import cv2
from map_samples import CAMERA, encode, HEIGHT, make_image, make_keyframe, WIDTH
import numpy as np
import pytest


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
def test_header_gives_format_and_size(extension):
    header = read_image_header(encode(make_image(), extension))
    assert (header.width, header.height, header.bits, header.channels) == (WIDTH, HEIGHT, 8, 3)
    assert header.format == {'.png': 'png', '.jpg': 'jpeg'}[extension]


def test_jpeg_may_be_progressive_and_have_fill_bytes_and_marks_without_content():
    is_written, data = cv2.imencode('.jpg', make_image(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert is_written
    data = data.tobytes()
    header = read_image_header(encode(make_image(), '.jpg'))
    for legal in (data, data[:2] + b'\xff' + data[2:], data[:2] + b'\xff\x01' + data[2:]):
        assert read_image_header(legal) == header


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
def test_image_cut_at_any_place_is_found_by_its_header_check(extension):
    data = encode(make_image(), extension)
    for length in range(0, len(data) - 1, 37):
        with pytest.raises(MapFormatError):
            read_image_header(data[:length])


def test_end_mark_of_a_thumbnail_does_not_make_a_cut_jpeg_whole():
    data = encode(make_image(), '.jpg')
    thumbnail = encode(make_image()[::4, ::4], '.jpg')
    segment = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    with_thumbnail = data[:2] + segment + data[2:]
    assert read_image_header(with_thumbnail).width == WIDTH
    with pytest.raises(MapFormatError, match='cut short'):
        read_image_header(with_thumbnail[:-40])


def test_flipped_bit_in_a_png_is_found():
    data = bytearray(encode(make_image(), '.png'))
    data[len(data) // 2] ^= 1
    with pytest.raises(MapFormatError, match='CRC'):
        read_image_header(bytes(data))


def test_decoded_image_is_rgb():
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    image = make_keyframe(image=encode(red, '.png')).decode_image()
    assert image.dtype == np.uint8
    assert (image == [255, 0, 0]).all()


def test_grey_image_decodes_to_three_channels():
    image = make_keyframe(image=encode(make_image()[..., 0], '.png')).decode_image()
    assert image.shape == (HEIGHT, WIDTH, 3)


def test_depth_is_in_metres_and_nan_where_the_camera_saw_none():
    counts = np.full((HEIGHT, WIDTH), 1500, np.uint16)
    counts[0, :2] = 0, 65535
    depth_m = make_keyframe(depth=encode(counts, '.png'), depth_scale_m=0.002).decode_depth_m()
    assert depth_m.dtype == np.float32
    assert np.isnan(depth_m[0, :2]).all()
    assert np.isfinite(depth_m).sum() == depth_m.size - 2
    assert depth_m[5, 5] == pytest.approx(3.0)


def test_keyframe_without_depth_lifts_to_nan():
    keyframe = make_keyframe(depth=None)
    assert keyframe.decode_depth_m() is None
    assert np.isnan(keyframe.lift([[3, 3]], None)).all()


def test_lifted_points_project_back_to_their_pixels():
    R = cv2.Rodrigues(np.array([0.2, -0.4, 0.1]))[0]
    T_map_camera = make_transform(R, [1, -2, 3])
    keyframe = make_keyframe(T_map_camera=T_map_camera)
    pixels = np.array([[0, 0], [63, 47], [10.25, 20.75], [31, 24.5]])
    points_map = keyframe.lift(pixels, keyframe.decode_depth_m())
    points_camera = points_map @ invert(T_map_camera)[:3, :3].T + invert(T_map_camera)[:3, 3]
    np.testing.assert_allclose(points_camera[:, 2], 2.0, atol=1e-6)
    np.testing.assert_allclose(CAMERA.project(points_camera), pixels, atol=1e-6)


def test_lift_takes_the_nearest_landmark_within_three_pixels():
    # Three pixels of an image of 640 x 480.
    nominal_px = math.sqrt(WIDTH * HEIGHT / NOMINAL_AREA_PX)
    keyframe = make_keyframe(
        depth=None,
        landmark_pixels=nominal_px * np.array([[10, 10], [14, 10], [40, 30]]),
        landmark_points_map=[[1, 0, 0], [2, 0, 0], [3, 0, 0]],
    )
    pixels = [[11, 10], [12.5, 10], [40, 33.1], [40, 27.1], [np.nan, 3]]
    points = keyframe.lift(nominal_px * np.array(pixels), None)
    np.testing.assert_array_equal(points[:, 0], [1, 2, np.nan, 3, np.nan])


def test_landmarks_stand_in_where_depth_says_nothing():
    counts = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    counts[:, :30] = 0
    keyframe = make_keyframe(
        depth=encode(counts, '.png'),
        landmark_pixels=[[10, 10], [50, 10]],
        landmark_points_map=[[9, 9, 9], [9, 9, 9]],
    )
    points = keyframe.lift([[10, 10], [50, 10]], keyframe.decode_depth_m())
    assert points[0].tolist() == [9, 9, 9]
    assert points[1, 2] == pytest.approx(2.0)


def test_empty_landmarks_and_no_pixels_are_allowed():
    keyframe = make_keyframe(
        depth=None, landmark_pixels=np.empty((0, 2)), landmark_points_map=np.empty((0, 3))
    )
    assert np.isnan(keyframe.lift([[1, 1]], None)).all()
    assert keyframe.lift(np.empty((0, 2)), None).shape == (0, 3)


def test_arrays_cannot_be_changed_behind_the_back_of_the_map():
    T_map_camera = np.eye(4)
    keyframe = make_keyframe(T_map_camera=T_map_camera)
    with pytest.raises(ValueError, match='read-only'):
        keyframe.T_map_camera[0, 3] = 5
    T_map_camera[0, 3] = 5
    assert keyframe.T_map_camera[0, 3] == 0


def test_descriptor_that_is_given_later_is_frozen_and_checked_too():
    # float16 of a message keeps the length to 1e-3.
    descriptor = make_keyframe().with_descriptor(np.float16([0.6, 0.8])).global_descriptor
    assert descriptor.dtype == np.float32
    assert not descriptor.flags.writeable
    with pytest.raises(MapFormatError, match='global_descriptor'):
        make_keyframe().with_descriptor(1.02 * descriptor)


NOT_RIGID = np.diag([1.0, 1.0, 1.1, 1.0])
NAN_POSE = np.full((4, 4), np.nan)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'T_map_camera': NAN_POSE}, 'rigid'),
        ({'T_map_camera': NOT_RIGID}, 'rigid'),
        ({'T_map_camera': np.eye(3)}, 'rigid'),
        ({'T_map_camera': 'here'}, 'numbers'),
        ({'id': -1}, 'id is -1'),
        ({'id': 1.5}, 'id is 1.5'),
        ({'stamp_s': np.inf}, 'stamp_s'),
        ({'depth_scale_m': 0.0}, 'depth_scale_m'),
        ({'image': b''}, '0 bytes'),
        ({'image': b'GIF89a'}, 'JPEG'),
        ({'image': None}, 'NoneType'),
        ({'image': encode(np.zeros((HEIGHT, 5, 3), np.uint8), '.png')}, '5 x 48'),
        (
            {
                'camera': PinholeCamera(2001, 2, 500, 500, 1000, 1),
                'image': encode(np.zeros((2, 2001, 3), np.uint8), '.png'),
                'depth': None,
            },
            'image is 2001 x 2 pixels, wanted sides of at most 1000 : 1',
        ),
        ({'depth': encode(np.zeros((4, WIDTH), np.uint16), '.png')}, '64 x 4'),
        ({'depth': encode(np.zeros((HEIGHT, WIDTH), np.uint8), '.png')}, '16-bit'),
        ({'depth': encode(np.zeros((HEIGHT, WIDTH, 3), np.uint16), '.png')}, '16-bit grey'),
        ({'depth': encode(make_image(), '.jpg')}, '16-bit'),
        ({'landmark_pixels': [[1, 1]]}, 'together'),
        ({'landmark_pixels': [[1, 1]], 'landmark_points_map': [[1, 1]]}, 'landmarks'),
        ({'landmark_pixels': 1, 'landmark_points_map': [[1, 1, 1]]}, 'landmarks'),
        ({'landmark_pixels': [[1, 1]], 'landmark_points_map': [[1, 1, np.nan]]}, 'landmarks'),
        ({'landmark_pixels': [[1, np.nan]], 'landmark_points_map': [[1, 1, 1]]}, 'landmarks'),
        ({'global_descriptor': np.zeros(4)}, 'global_descriptor'),
        ({'global_descriptor': np.full(4, np.nan)}, 'global_descriptor'),
    ],
)
def test_bad_field_is_refused_with_a_message_that_names_it(fields, words):
    with pytest.raises(MapFormatError, match=words) as caught:
        make_keyframe(**fields)
    assert str(caught.value).startswith('Keyframe ')
