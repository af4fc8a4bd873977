"""Images to and from files."""

from __future__ import annotations

import os

from coam_ros.cli import main
from coam_ros.matching.image_files import decode_rgb, encode_jpeg, read_image, write_image
import numpy as np
import pytest


def test_written_image_is_read_as_it_was(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    write_image(tmp_path / 'new' / 'image.png', image)
    np.testing.assert_array_equal(read_image(tmp_path / 'new' / 'image.png'), image)


@pytest.mark.parametrize('value', [(200, 100, 50), 120])
def test_jpeg_keeps_colours_and_grey(value):
    image = np.full((16, 16, 3) if isinstance(value, tuple) else (16, 16), value, np.uint8)
    wanted = np.broadcast_to(image[0, 0], (16, 16, 3))
    np.testing.assert_allclose(decode_rgb(encode_jpeg(image, 95)), wanted, atol=4)


def test_pixels_are_read_as_they_are_stored_whatever_the_metadata_say(tmp_path):
    write_image(tmp_path / 'image.jpg', np.full((48, 64, 3), (200, 100, 50), np.uint8))
    data = (tmp_path / 'image.jpg').read_bytes()
    # One entry of Exif, the orientation: to be turned by a quarter.
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06' + bytes(6)
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    image = decode_rgb(data[:2] + segment + data[2:])
    # Calibrations are about the pixels as they are stored.
    assert image.shape == (48, 64, 3)
    np.testing.assert_allclose(image[24, 32], (200, 100, 50), atol=4)


@pytest.mark.parametrize('data', [b'', b'nothing', b'\xff\xd8\xff\xe0 cut off'])
def test_what_does_not_decode_is_none(data):
    assert decode_rgb(data) is None


# WebP takes 16,383 pixels a side, JPEG 65,500.
@pytest.mark.parametrize(('name', 'width'), [('image.webp', 17_000), ('image.jpg', 66_000)])
def test_image_that_is_too_large_for_its_kind_is_refused(tmp_path, name, width):
    with pytest.raises(ValueError, match=rf'{name}: .*{width} x 2 px'):
        write_image(tmp_path / name, np.zeros((2, width, 3), np.uint8))
    assert not list(tmp_path.iterdir())


# OpenCV ends the process for names that are no UTF-8.
def test_name_need_not_be_utf8(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    path = tmp_path / os.fsdecode(b'\xff.png')
    write_image(path, image)
    assert read_image(path).shape == image.shape
    with pytest.raises(ValueError, match='No way to write'):
        write_image(tmp_path / os.fsdecode(b'image.\xff'), image)


def test_name_of_the_picture_is_checked_before_the_model_is_loaded(tmp_path, capsys):
    write_image(tmp_path / 'image.png', np.zeros((64, 64, 3), np.uint8))
    words = ['match', *[str(tmp_path / 'image.png')] * 2, '--model', str(tmp_path / 'none')]
    assert main([*words, '--out', str(tmp_path / 'matches.txt')]) == 2
    assert 'such as matches.png' in capsys.readouterr().err
