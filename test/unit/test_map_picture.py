"""The picture of a map shows its points where they are, in their colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='pictures need matplotlib')

from coam_ros.cli import main
from coam_ros.geometry.transforms import make_transform
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.picture import draw_map
from coam_ros.mapping.storage import save_map
from map_samples import encode, HEIGHT, make_keyframe, WIDTH


def walk(**fields):
    """Keyframes along x that all look at a red wall."""
    image = np.full((HEIGHT, WIDTH, 3), (10, 10, 230), np.uint8)
    return KeyframeMap(
        make_keyframe(
            id=i,
            T_map_camera=make_transform(np.eye(3), [0.5 * i, 0.1 * (i % 2), 0]),
            image=encode(image, '.png'),
            **fields,
        )
        for i in range(5)
    )


def count_red(path):
    blue, green, red = cv2.imread(str(path)).astype(int).transpose(2, 0, 1)
    return int(((red > 180) & (green < 60) & (blue < 60)).sum())


def test_points_are_drawn_in_their_colours(tmp_path):
    depth = encode(np.full((HEIGHT, WIDTH), 2000, np.uint16), '.png')
    steps = []
    draw_map(tmp_path / 'deep.png', walk(depth=depth), lambda *step: steps.append(step))
    draw_map(tmp_path / 'flat.png', walk(depth=None))
    assert steps[-1] == (5, 5)
    # Without 3D nothing is red but the keyframes themselves.
    assert count_red(tmp_path / 'deep.png') > 3 * count_red(tmp_path / 'flat.png')
    assert count_red(tmp_path / 'flat.png') > 20


def test_command_draws_or_says_what_it_can_write(tmp_path, capsys):
    save_map(walk(depth=None), tmp_path / 'map')
    words = ['map', 'info', str(tmp_path / 'map'), '--picture']
    assert main([*words, str(tmp_path / 'new/map.png')]) == 0
    assert cv2.imread(str(tmp_path / 'new/map.png')).std() > 1
    assert main([*words, str(tmp_path / 'map.bmp9')]) == 2
    assert 'map.bmp9' in capsys.readouterr().err
    assert not (tmp_path / 'map.bmp9').exists()
