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
from coam_ros.rendering import camera_pose
from map_samples import CAMERA, encode, HEIGHT, make_keyframe, WIDTH
from matplotlib.colors import to_hex
from plot_samples import keep_figures, labels_of

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


def corner(T_map_room=None):
    """A way along y that ends with a turn to the left, looked along; upright cameras, up is z."""
    T_map_room = np.eye(4) if T_map_room is None else T_map_room
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (-1, 3)]
    return [
        make_keyframe(
            id=i,
            T_map_camera=T_map_room @ camera_pose((x, y, 0.1 * (i == 2)), np.pi / 2),
            image=encode(RED_WALL, '.png'),
            depth=DEPTH,
        )
        for i, (x, y) in enumerate(places)
    ]


def drawn(keyframes, path, monkeypatch):
    """Figure, and of each panel its points, the places of the keyframes and their arrows."""
    figures = keep_figures(monkeypatch)
    draw_map(path, KeyframeMap(keyframes))
    panels = []
    for axes in figures[-1].axes:
        cloud, arrows = axes.collections
        (line,) = axes.get_lines()
        panels.append((np.asarray(cloud.get_offsets()), line.get_xydata(), arrows))
    return figures[-1], panels


@pytest.mark.parametrize('up', [1, -1])
def test_from_above_a_way_turns_as_it_does_and_is_looked_along(tmp_path, monkeypatch, up):
    keyframes = corner(np.diag([1, up, up, 1]))
    figure, (above, side) = drawn(keyframes, tmp_path / 'map.png', monkeypatch)
    points, places, arrows = above
    ahead, aside = places[3] - places[0], places[4] - places[3]
    assert np.linalg.norm([ahead, aside], axis=1) == pytest.approx([3, 1], abs=1e-3)
    # Not mirrored.
    assert ahead[0] * aside[1] - ahead[1] * aside[0] == pytest.approx(3, abs=0.1)
    looks = np.column_stack([arrows.U, arrows.V])
    np.testing.assert_allclose(looks, np.tile(ahead / 3, (5, 1)), atol=0.01)
    # What a keyframe looks at is 2 m ahead of it.
    along = points @ ahead / 3
    assert along.min() == pytest.approx(places[0] @ ahead / 3 + 2, abs=0.05)
    # From the side it is as long, and the one in the middle stands higher than those beside it.
    assert np.ptp(side[1][:, 0]) == pytest.approx(np.ptp(places[:, 0]))
    heights = side[1][:, 1] * up
    assert heights[2] - (heights[1] + heights[3]) / 2 == pytest.approx(0.1, abs=0.005)
    assert figure.axes[1].yaxis_inverted() == (up < 0)
    # In the map's own coordinates, and named so.
    positions = np.array([keyframe.T_map_camera[:3, 3] for keyframe in keyframes])
    for axes, shown in zip(figure.axes, (places, side[1]), strict=True):
        names = [label.removesuffix(' [m]') for label in labels_of(axes)[1:]]
        np.testing.assert_array_equal(shown, positions[:, ['xyz'.index(name) for name in names]])


def test_keyframe_that_knows_no_3d_is_red_and_counted(tmp_path, monkeypatch):
    keyframes = corner()
    nothing = encode(np.zeros((HEIGHT, WIDTH), np.uint16), '.png')
    keyframes[3] = replace(keyframes[3], depth=nothing)
    figure, panels = drawn(keyframes, tmp_path / 'map.png', monkeypatch)
    for _, _, arrows in panels:
        colours = [to_hex(colour) for colour in arrows.get_facecolor()]
        assert [colour == '#c8321e' for colour in colours] == [False] * 3 + [True, False]
    (title,) = figure.texts
    assert title.get_text() == '5 keyframes, 4 of them with 3D'


def test_a_point_at_a_wrong_depth_does_not_make_the_rest_tiny(tmp_path, monkeypatch):
    keyframes = corner()
    far = {'landmark_pixels': [[30.0, 20.0]], 'landmark_points_map': [[0.0, 900.0, 0.0]]}
    keyframes[0] = replace(keyframes[0], depth=None, **far)
    _, ((points, places, _), _) = drawn(keyframes, tmp_path / 'map.png', monkeypatch)
    assert np.linalg.norm(points - places[0], axis=1).max() < 10
    # Of the others nearly all are there.
    assert len(points) > 0.95 * 4 * 32 * 24


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
