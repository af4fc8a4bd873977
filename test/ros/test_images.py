"""Every encoding that is promised, and every way in which an image message can be broken."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy')

from array import array

from coam_ros.nodes.images import (
    decode_image,
    encode_depth,
    encode_image,
    ENCODINGS,
    ImageError,
    stored_image,
)
import cv2
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

# Colours that differ in every channel; blocks of 8 x 8 px survive chroma subsampling and Bayer.
COLORS = np.array([[[200, 40, 90], [30, 180, 220]], [[90, 120, 10], [250, 250, 60]]], np.uint8)
RGB = COLORS.repeat(8, axis=0).repeat(8, axis=1)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def make_message(pixels, encoding, padding=0, is_bigendian=False):
    """An image message of any layout, its rows padded."""
    rows = pixels.reshape(len(pixels), -1)
    rows = (
        rows.view(np.uint8)
        if rows.dtype == np.uint8
        else rows.view(np.uint8).reshape(len(pixels), -1)
    )
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=rows.shape[1],
        data=array('B', rows.tobytes()),
    )


def mosaic(pattern):
    """What a sensor with this Bayer pattern sees of RGB."""
    raw = np.empty(RGB.shape[:2], np.uint8)
    for place, letter in enumerate(pattern):
        row, column = divmod(place, 2)
        raw[row::2, column::2] = RGB[row::2, column::2, 'rgb'.index(letter)]
    return raw


def yuv422(order):
    """RGB as 4:2:2 by the formulas of BT.601, in limited range."""
    r, g, b = np.moveaxis(RGB.astype(float), 2, 0)
    luma = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    chroma = np.where(
        np.arange(RGB.shape[1]) % 2 == 0,
        128 - 0.148 * r - 0.291 * g + 0.439 * b,
        128 + 0.439 * r - 0.368 * g - 0.071 * b,
    )
    planes = (luma, chroma) if order == 'yuyv' else (chroma, luma)
    return np.round(np.stack(planes, axis=2)).astype(np.uint8)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [
        ('rgb8', RGB),
        ('bgr8', RGB[..., ::-1].copy()),
        ('8UC3', RGB[..., ::-1].copy()),
        ('rgba8', np.dstack([RGB, np.full(RGB.shape[:2], 9, np.uint8)])),
        ('bgra8', np.dstack([RGB[..., ::-1], np.full(RGB.shape[:2], 9, np.uint8)])),
    ],
)
def test_color_encodings_become_rgb(encoding, pixels, padding):
    np.testing.assert_array_equal(decode_image(make_message(pixels, encoding, padding)), RGB)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_stays_grey(encoding):
    np.testing.assert_array_equal(decode_image(make_message(GREY, encoding, 3)), GREY)


@pytest.mark.parametrize('is_bigendian', [False, True])
@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
def test_16_bits_are_stretched_over_8(encoding, is_bigendian):
    counts = (1000 + 4 * GREY.astype(np.uint16)).astype('>u2' if is_bigendian else '<u2')
    pixels = decode_image(make_message(counts, encoding, is_bigendian=is_bigendian))
    np.testing.assert_allclose(pixels, GREY, atol=1)


@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
def test_yuv_becomes_rgb(encoding):
    order = 'yuyv' if encoding in ('yuyv', 'yuv422_yuy2') else 'uyvy'
    pixels = decode_image(make_message(yuv422(order), encoding, 4))
    np.testing.assert_allclose(pixels.astype(int), RGB, atol=4)


@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
@pytest.mark.parametrize('padding', [0, 4])
def test_planes_of_grey_and_colour_become_rgb(encoding, padding):
    luma, chroma = np.moveaxis(yuv422('yuyv'), 2, 0)
    # Cb and Cr of every second row: as they lie there they are those of nv12.
    chroma = chroma[::2].reshape(-1, RGB.shape[1] // 2, 2)
    chroma = chroma if encoding == 'nv12' else chroma[..., ::-1]
    message = make_message(np.vstack([luma, chroma.reshape(-1, RGB.shape[1])]), encoding, padding)
    message.height = len(RGB)
    np.testing.assert_allclose(decode_image(message).astype(int), RGB, atol=4)


@pytest.mark.parametrize('encoding', ['rgb16', 'bgr16', 'bayer_rggb16'])
def test_16_bits_of_colours_are_stretched_together(encoding):
    pixels = {'rgb16': RGB, 'bgr16': RGB[..., ::-1], 'bayer_rggb16': mosaic('rggb')}[encoding]
    counts = 500 + 16 * pixels.astype(np.uint16)
    found = decode_image(make_message(counts, encoding)).astype(int)
    low, high = RGB.min(), RGB.max()
    wanted = (RGB - float(low)) * 255 / (high - float(low))
    # In the middle of the blocks: a Bayer pattern smears colours over their edges.
    np.testing.assert_allclose(found[3::8, 3::8], wanted[3::8, 3::8], atol=2)


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_becomes_rgb(pattern):
    pixels = decode_image(make_message(mosaic(pattern), f'bayer_{pattern}8'))
    # In the middle of a block all neighbours have its colour.
    np.testing.assert_array_equal(pixels[3:5, 3:5], RGB[3:5, 3:5])
    np.testing.assert_array_equal(pixels[11:13, 11:13], RGB[11:13, 11:13])


def test_stuck_pixels_leave_a_16_bit_image_its_contrast():
    counts = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = decode_image(make_message(counts, 'mono16'))
    counts[8, 8], counts[12, 40] = 65535, 0
    np.testing.assert_allclose(
        decode_image(make_message(counts, 'mono16'))[16:], expected[16:], atol=2
    )
    assert expected.std() > 60


def test_little_that_stands_out_of_an_even_16_bit_image_is_seen():
    counts = np.full((64, 64), 1000, np.uint16)
    counts[8, 8], counts[12, 40] = 1010, 990
    pixels = decode_image(make_message(counts, 'mono16'))
    assert (pixels[8, 8], pixels[12, 40], pixels[0, 0]) == (255, 0, 127)


def test_rgb8_is_not_copied():
    message = make_message(RGB, 'rgb8', 5)
    pixels = decode_image(message)
    message.data[0] = 7
    assert pixels[0, 0, 0] == 7


@pytest.mark.parametrize('pixels', [RGB, GREY, RGB[:, ::2], RGB[1:, 1:]])
def test_images_go_there_and_back(pixels):
    np.testing.assert_array_equal(decode_image(encode_image(pixels, Header())), pixels)


@pytest.mark.parametrize('padding', [0, 1000])
@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_compressed_becomes_rgb(extension, padding):
    data = cv2.imencode(extension, RGB[..., ::-1])[1].tobytes() + bytes(padding)
    pixels = decode_image(CompressedImage(format=extension, data=array('B', data)))
    # In the middle of the blocks: JPEG smears colours over their edges.
    np.testing.assert_allclose(pixels[3::8, 3::8].astype(int), COLORS, atol=10)


@pytest.mark.parametrize('pixels', [RGB, GREY])
def test_16_bits_in_a_png_are_stretched_as_raw_ones(pixels):
    counts = 500 + 16 * pixels.astype(np.uint16)
    raw = make_message(counts, 'mono16' if pixels.ndim == 2 else 'rgb16')
    stored = counts if pixels.ndim == 2 else counts[..., ::-1]
    data = cv2.imencode('.png', stored)[1].tobytes()
    compressed = CompressedImage(format='16UC1; png compressed', data=array('B', data))
    np.testing.assert_array_equal(decode_image(compressed), decode_image(raw))
    # A keyframe of it is what the matcher sees.
    assert stored_image(compressed) == stored_image(raw)
    huge = data[:16] + b'\x7f' + data[17:]
    for broken in (data[:-20], huge):
        with pytest.raises(ImageError, match='does not decode'):
            decode_image(CompressedImage(format='png', data=array('B', broken)))


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
@pytest.mark.parametrize('num_bytes', [0, 10, -20])
def test_truncated_compressed_data_is_refused(extension, num_bytes):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(extension, noise)[1].tobytes()[:num_bytes]
    with pytest.raises(ImageError, match='does not decode'):
        decode_image(CompressedImage(format='jpeg', data=array('B', data)))


def broken(**fields):
    message = make_message(RGB, 'rgb8')
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (broken(width=0), '0 x 16 px'),
        (broken(height=0), '16 x 0 px'),
        (broken(encoding='rgb9'), "encoding 'rgb9'"),
        (broken(encoding=''), "encoding ''"),
        (broken(encoding='yuyv', width=15), 'even numbers'),
        (broken(encoding='nv12', height=15), 'even numbers'),
        (broken(encoding='nv12', width=15), 'even numbers'),
        (broken(encoding='nv12'), '48 x 24'),
        (broken(step=0), 'step is 0'),
        (broken(step=47), 'at least 48'),
        (broken(step=49), 'step x rows'),
        (broken(width=17), 'at least 51'),
        (broken(data=make_message(RGB, 'rgb8').data[:-1]), '767 bytes'),
        (broken(data=make_message(RGB, 'rgb8').data + array('B', b'0')), '769 bytes'),
        (broken(data=array('B')), '0 bytes'),
    ],
)
def test_broken_messages_are_refused_with_the_numbers(message, words):
    with pytest.raises(ImageError, match=words):
        decode_image(message)


def test_every_encoding_of_the_table_is_decoded():
    for encoding, layout in ENCODINGS.items():
        rows = 6 if layout.has_chroma_rows else 4
        message = make_message(np.zeros((rows, 6, layout.channels), layout.dtype), encoding)
        message.height = 4
        assert decode_image(message).shape[:2] == (4, 6)


# ---- depth


def stored_counts(depth_m):
    png = encode_depth(make_message(np.asarray(depth_m, '<f4'), '32FC1', padding=3))
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def test_depth_of_floats_is_stored_in_millimetres_and_what_is_none_as_0():
    none = [np.nan, np.inf, -np.inf, -1.0, 0.0, 65.535]
    assert stored_counts([[0.001, 2.5, 65.534], none[:3], none[3:]]).tolist() == [
        [1, 2500, 65534],
        [0, 0, 0],
        [0, 0, 0],
    ]
    # A covered camera is no other unit.
    assert not stored_counts([none[:5]]).any()


def test_depth_of_floats_in_millimetres_is_refused():
    with pytest.raises(ImageError, match=r'from 800 on; wanted metres'):
        stored_counts([[800.0, np.nan, 4000.0]])
