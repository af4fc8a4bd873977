"""Tiny training data with known truth: a wall whose colour tells the place."""

from __future__ import annotations

import cv2
import numpy as np

FOCAL_PX = 200.0
WALL_M = 2.0
SIZE = (160, 128)
STEP_PX = 8
K = np.array([[FOCAL_PX, 0, 79.5], [0, FOCAL_PX, 63.5], [0, 0, 1]])


def gradient(width, height):
    """Red grows to the right, green downwards: equal colour, same point."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x / width * 255, y / height * 255, np.full_like(x, 90)], -1).astype(np.uint8)


def wall_view(index):
    """What camera `index` of a sideways walk along the wall sees: (128, 160, 3) RGB."""
    left = STEP_PX * index
    return gradient(400, 128)[:, left : left + SIZE[0]]


def T_world_camera(index):
    pose = np.eye(4)
    pose[0, 3] = index * STEP_PX * WALL_M / FOCAL_PX
    return pose


def wall_depth(scale):
    return np.full(SIZE[::-1], round(WALL_M * scale), np.uint16)


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])


def write_seven_scenes(folder, count=8):
    """Write a walk along the wall in the 7-Scenes layout; returns the stems."""
    folder.mkdir(exist_ok=True)
    np.savetxt(folder / 'intrinsics.txt', K)
    stems = [folder / f'frame-{index:06d}' for index in range(count)]
    for index, stem in enumerate(stems):
        write_image(stem.with_suffix('.color.jpg'), wall_view(index))
        cv2.imwrite(f'{stem}.depth.png', wall_depth(1000))
        np.savetxt(f'{stem}.pose.txt', T_world_camera(index))
    return stems


def colours(image, points):
    return np.array(
        [cv2.getRectSubPix(image, (1, 1), tuple(map(float, p)))[0, 0] for p in points], float
    )


def assert_same_place(pair, least=20):
    """The matched points of both views have one colour, so they show one point."""
    matched = pair.state == 1
    assert matched.sum() >= least
    difference = colours(pair.image0, pair.points0[matched]) - colours(
        pair.image1, pair.points1[matched]
    )
    # 0.6 to 2 levels a pixel at the original scale, and views magnify.
    assert np.median(np.abs(difference[:, :2])) < 2.0


def assert_epipolar(pair):
    """Points of one colour lie on each other's epipolar lines."""
    from coam_ros.geometry.epipolar import symmetric_epipolar_distance_px

    assert np.isclose(np.linalg.norm(pair.fundamental), 1)
    height, width = pair.image0.shape[:2]
    points0 = np.stack(np.meshgrid(range(8, width, 16), range(8, height, 16)), -1).reshape(-1, 2)
    found0, found1 = [], []
    for x, y in points0:
        wanted = pair.image0[y, x].astype(float)
        distance = np.abs(pair.image1 - wanted).sum(axis=-1)
        # Black is where a view reaches past its image.
        if wanted[2] > 60 and distance.min() <= 2:
            found0.append((x, y))
            found1.append(np.argwhere(distance == distance.min()).mean(axis=0)[::-1])
    assert len(found0) >= 8
    distances = symmetric_epipolar_distance_px(found0, found1, pair.fundamental)
    # A colour level is a pixel and a half, and the colour is read to a level.
    assert np.median(distances) < 2.0
