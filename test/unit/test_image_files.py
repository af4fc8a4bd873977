"""Images to and from files."""

from __future__ import annotations

from coam_ros.cli import main
from coam_ros.matching.image_files import read_image, write_image
import numpy as np
import pytest


def test_written_image_is_read_as_it_was(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    write_image(tmp_path / 'new' / 'image.png', image)
    np.testing.assert_array_equal(read_image(tmp_path / 'new' / 'image.png'), image)


# WebP takes 16,383 pixels a side, JPEG 65,500.
@pytest.mark.parametrize(('name', 'width'), [('image.webp', 17_000), ('image.jpg', 66_000)])
def test_image_that_is_too_large_for_its_kind_is_refused(tmp_path, name, width):
    with pytest.raises(ValueError, match=rf'{name}: .*{width} x 2 px'):
        write_image(tmp_path / name, np.zeros((2, width, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_name_of_the_picture_is_checked_before_the_model_is_loaded(tmp_path, capsys):
    write_image(tmp_path / 'image.png', np.zeros((64, 64, 3), np.uint8))
    words = ['match', *[str(tmp_path / 'image.png')] * 2, '--model', str(tmp_path / 'none')]
    assert main([*words, '--out', str(tmp_path / 'matches.txt')]) == 2
    assert 'such as matches.png' in capsys.readouterr().err
