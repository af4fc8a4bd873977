"""A picture of a map: its keyframes and the 3D that they know, from above and from the side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.point_cloud import make_point_cloud
from coam_ros.matching.image_files import check_image_name, write_image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray

# A point of the picture stands for a square of the keyframe's image, this many along its width.
_POINTS_ALONG_WIDTH = 32
# Points farther than this share are left out: a wrong depth would make the rest tiny.
_SHOWN_SHARE = 0.98
_BLUE, _RED = '#1f6fb4', '#c8321e'


def draw_map(
    path: Path, keyframe_map: KeyframeMap, progress: Callable[[int, int], None] | None = None
) -> None:
    """Draw where the keyframes are and look, and the points that they know in their colours.

    In the coordinates of the map. Which way is up is not known of every map: it is the axis along
    which the keyframes spread least. A keyframe without 3D, in which nothing is localized, is red.

    Args:
        path: of the picture; its suffix says of which kind.
        keyframe_map: with at least one keyframe.
        progress: is called with (keyframes done, keyframes).

    Raises:
        MapFormatError: a keyframe does not decode.
        OSError: the file cannot be written.
        ValueError: no way to write this kind of picture; nothing was drawn.
    """
    check_image_name(path)
    keyframes = list(keyframe_map)
    points, colours, is_known = [], [], []
    for number, keyframe in enumerate(keyframes, start=1):
        step_px = max(keyframe.camera.width // _POINTS_ALONG_WIDTH, 1)
        found, colour = make_point_cloud(keyframe, step_px)
        points.append(found)
        colours.append(colour)
        is_known.append(len(found) > 0)
        if progress:
            progress(number, len(keyframes))
    T_map_cameras = np.stack([keyframe.T_map_camera for keyframe in keyframes])
    positions, directions = T_map_cameras[:, :3, 3], T_map_cameras[:, :3, 2]
    cloud, shade = np.concatenate(points), np.concatenate(colours) / 255.0
    # Of equal ones the last: z is up in ROS.
    height = 2 - int(np.argmin(positions.std(axis=0)[::-1]))
    right, ahead = (height + 1) % 3, (height + 2) % 3
    # Images mostly stand upright: up is where their y axes do not point.
    is_upside_down = T_map_cameras[:, height, 1].mean() > 0
    if is_upside_down:  # seen from the other end, x and y change places
        right, ahead = ahead, right

    figure = Figure(figsize=(13, 6), dpi=110, layout='constrained')
    # Its own canvas: no pyplot, hence no global state and no display.
    canvas = FigureCanvasAgg(figure)
    above, side = figure.subplots(1, 2)
    for plot, title, plane in (
        (above, 'from above', (right, ahead)),
        (side, 'from the side', (right, height)),
    ):
        _draw(plot, cloud[:, plane], shade, positions[:, plane], directions[:, plane], is_known)
        labels = [f'{"xyz"[axis]} [m]' for axis in plane]
        plot.set(xlabel=labels[0], ylabel=labels[1], title=title)
    if is_upside_down:
        side.invert_yaxis()
    figure.suptitle(f'{len(keyframes)} keyframes, {sum(is_known)} of them with 3D')
    canvas.draw()
    write_image(path, np.asarray(canvas.buffer_rgba())[..., :3])


def _draw(
    plot: Axes,
    cloud: NDArray[np.float64],
    shade: NDArray[np.float64],
    positions: NDArray[np.float64],
    directions: NDArray[np.float64],
    is_known: list[bool],
) -> None:
    if len(cloud):
        distance = np.linalg.norm(cloud - np.median(cloud, axis=0), axis=1)
        is_shown = distance <= np.quantile(distance, _SHOWN_SHARE)
        x, y = cloud[is_shown].T
        plot.scatter(x, y, s=2, c=shade[is_shown], linewidths=0)
    colours = [_BLUE if known else _RED for known in is_known]
    plot.quiver(
        *positions.T,
        *directions.T,
        color=colours,
        angles='xy',
        pivot='tail',
        width=0.003,
        scale=30,
    )
    plot.plot(*positions.T, '-', color=_BLUE, lw=0.5, alpha=0.5)
    plot.set_aspect('equal', adjustable='datalim')
    plot.grid(alpha=0.3)
