"""The picture of a map shows its points where they are, in their colours."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='pictures need matplotlib')

from coam_ros.cli import main
from coam_ros.geometry.transforms import make_transform
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.picture import draw_map
from coam_ros.mapping.point_cloud import make_point_cloud
from coam_ros.mapping.storage import save_map
from map_samples import CAMERA, encode, HEIGHT, make_keyframe, WIDTH

RED_WALL = np.full((HEIGHT, WIDTH, 3), (10, 10, 230), np.uint8)
DEPTH = encode(np.full((HEIGHT, WIDTH), 2000, np.uint16), '.png')


def walk(image=RED_WALL, **fields):
    """Keyframes along x that all look at a wall."""
    return KeyframeMap(
        make_keyframe(
            id=i,
            T_map_camera=make_transform(np.eye(3), [0.5 * i, 0, 0.1 * (i % 2)]),
            image=encode(image, '.png'),
            **fields,
        )
        for i in range(5)
    )


def count_red(path):
    blue, green, red = cv2.imread(str(path)).astype(int).transpose(2, 0, 1)
    return int(((red > 180) & (green < 60) & (blue < 60)).sum())


def test_points_are_drawn_in_their_colours(tmp_path):
    steps = []
    draw_map(tmp_path / 'deep.png', walk(depth=DEPTH), lambda *step: steps.append(step))
    draw_map(tmp_path / 'flat.png', walk(depth=None))
    assert steps[-1] == (5, 5)
    # Without 3D nothing is red but the keyframes themselves.
    assert count_red(tmp_path / 'deep.png') > 3 * count_red(tmp_path / 'flat.png')
    assert count_red(tmp_path / 'flat.png') > 20


def test_from_the_side_the_floor_is_below_the_keyframes(tmp_path):
    floor = RED_WALL.copy()
    floor[: 3 * HEIGHT // 4] = 60
    draw_map(tmp_path / 'map.png', walk(floor, depth=DEPTH))
    picture = cv2.imread(str(tmp_path / 'map.png')).astype(int)
    blue, green, red = picture[:, picture.shape[1] // 2 :].transpose(2, 0, 1)
    floor_rows, _ = np.nonzero((red > 180) & (green < 60) & (blue < 60))
    keyframe_rows, _ = np.nonzero(blue > red + 40)
    assert floor_rows.min() > np.median(keyframe_rows)


def test_points_of_a_keyframe_have_the_colours_of_their_pixels():
    image = np.full((HEIGHT, WIDTH, 3), (200, 100, 0), np.uint8)
    image[: HEIGHT // 2, WIDTH // 2 :] = 0, 0, 255
    keyframe = make_keyframe(image=encode(image, '.png'), depth=DEPTH)
    points_map, colours = make_point_cloud(keyframe, 4)
    assert len(points_map) == (HEIGHT // 4) * (WIDTH // 4)
    x, y = np.rint(CAMERA.project(points_map)).astype(int).T
    np.testing.assert_array_equal(colours, image[y, x, ::-1])
    bare = replace(
        keyframe, depth=None, landmark_pixels=[[63.2, 10.6]], landmark_points_map=[[1, 2, 3]]
    )
    points_map, colours = make_point_cloud(bare, 4)
    assert (points_map.tolist(), colours.tolist()) == ([[1, 2, 3]], [[255, 0, 0]])


def test_command_draws_or_says_what_it_can_write(tmp_path, capsys):
    save_map(walk(depth=None), tmp_path / 'map')
    words = ['map', 'info', str(tmp_path / 'map'), '--picture']
    assert main([*words, str(tmp_path / 'new/map.png')]) == 0
    assert cv2.imread(str(tmp_path / 'new/map.png')).std() > 1
    assert main([*words, str(tmp_path / 'map.bmp9')]) == 2
    assert 'map.bmp9' in capsys.readouterr().err
    assert not (tmp_path / 'map.bmp9').exists()
