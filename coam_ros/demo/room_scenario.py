"""The embedded default: a rendered room that is mapped on one path and driven on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
import itertools

from coam_ros.demo.scenario import LiveFrame, Scenario
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import rotation_vector
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.matching.image_files import encode_jpeg
from coam_ros.rendering import camera_pose, CameraEffects, Lighting, load_photographs, Room
import cv2
import numpy as np
from numpy.typing import NDArray

CAMERA = PinholeCamera(640, 480, 525.0, 525.0, 319.5, 239.5)

# The other room shows photographs that the mapped room does not have.
MAPPED_PHOTOGRAPHS = (
    'astronaut',
    'camera',
    'chelsea',
    'coins',
    'grass',
    'gravel',
    'ihc',
    'motorcycle',
    'rocket',
    'text',
)
OTHER_PHOTOGRAPHS = ('brick', 'coffee', 'hubble', 'moon', 'retina')

_NUM_MAP_FRAMES_PER_LOOP = 28
_EXPOSURE_S = 0.012
_NUM_THREADS = 2


@dataclass(frozen=True)
class _Stretch:
    """A part of the drive.

    Attributes:
        share: of the whole time.
        start_rad: where on the loop it begins.
        turn_rad: how far round the loop it goes.
        looks_across: over the middle of the room instead of at the near wall.
        is_kidnapped: the camera was carried here.
        is_mapped: False is the other room.
    """

    share: float
    start_rad: float
    turn_rad: float
    looks_across: bool
    is_kidnapped: bool = False
    is_mapped: bool = True


# One minute turns by at most 14 degrees a second.
_DRIVE = (
    _Stretch(0.27, 0.3, 3.6, looks_across=False),
    _Stretch(0.22, 2.2, 2.6, looks_across=True, is_kidnapped=True),
    _Stretch(0.15, 0.0, 2.0, looks_across=False, is_mapped=False),
    _Stretch(0.14, 5.0, 1.7, looks_across=True),
    _Stretch(0.22, 4.0, 2.9, looks_across=False, is_kidnapped=True),
)


def make_room_scenario(
    seed: int,
    rate_hz: float,
    duration_s: float,
    progress: Callable[[int, int], None],
) -> Scenario:
    """Render the mapping path and the live path.

    Args:
        seed: of the room, of the light and of the noise.
        rate_hz: of the live camera.
        duration_s: of the drive.
        progress: is called with the images rendered and all to render.

    Returns:
        Exact poses, exact depth; the live images in other light than those of the map, with
        motion blur, defocus, vignetting and noise.
    """
    rng = np.random.default_rng(seed)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        photographs = (MAPPED_PHOTOGRAPHS, OTHER_PHOTOGRAPHS)
        rooms = list(pool.map(_generate_room, (2 * seed, 2 * seed + 1), photographs))
    light = Lighting.sample(rng, rooms[0].config.size_m, strength=0.5)
    other_light = Lighting.sample(rng, rooms[0].config.size_m)
    map_poses = list(_mapping_poses(rooms[0]))
    steps = list(_live_steps(rooms[0], rate_hz, duration_s, rng))
    total = len(map_poses) + len(steps)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        map_frames = []
        render_map_frame = partial(_render_map_frame, rooms[0], light)
        for keyframe in pool.map(render_map_frame, itertools.count(), map_poses):
            map_frames.append(keyframe)
            progress(len(map_frames), total)
        live_frames = []
        render_live_frame = partial(_render_live_frame, rooms, other_light)
        for frame in pool.map(render_live_frame, steps):
            live_frames.append(frame)
            progress(len(map_frames) + len(live_frames), total)
    return Scenario(
        title=f'Rendered room, seed {seed}',
        camera=CAMERA,
        map_frames=map_frames,
        live_frames=live_frames,
        rate_hz=rate_hz,
        is_exact=True,
        kidnappings=tuple(i for i, step in enumerate(steps) if step.is_kidnapped),
        outlines_map=tuple(_outlines(rooms[0])),
    )


def _generate_room(seed: int, names: Sequence[str]) -> Room:
    return Room.generate(seed, photographs=list(load_photographs(names).values()))


@dataclass(frozen=True, eq=False)
class _Step:
    """One live image to render."""

    T_room_camera: NDArray[np.float64]
    is_mapped: bool
    is_kidnapped: bool
    effects: CameraEffects
    noise_seed: int


def _mapping_poses(room: Room) -> Iterator[NDArray[np.float64]]:
    """Two loops round the room: one looks at the near wall, one across."""
    for looks_across in (False, True):
        for i in range(_NUM_MAP_FRAMES_PER_LOOP):
            angle = 2 * np.pi * i / _NUM_MAP_FRAMES_PER_LOOP
            yield _loop_pose(room, angle, 1.15, 1.0, looks_across)


def _live_steps(
    room: Room, rate_hz: float, duration_s: float, rng: np.random.Generator
) -> Iterator[_Step]:
    """The drive, at other heights, distances and angles than the mapping path."""
    look = CameraEffects.sample(rng)
    phases = rng.uniform(0, 2 * np.pi, 5)
    time_s = 0.0
    for stretch in _DRIVE:
        num_frames = max(2, round(stretch.share * duration_s * rate_hz))
        before = None
        for i in range(num_frames):
            sway = np.sin(2 * np.pi * time_s / np.array((7.0, 9.0, 11.0, 5.0, 8.0)) + phases)
            T_room_camera = _loop_pose(
                room,
                stretch.start_rad + stretch.turn_rad * i / num_frames,
                height_m=1.3 + 0.15 * sway[0],
                reach=0.8 + 0.3 * sway[1],
                looks_across=stretch.looks_across,
                yaw_rad=0.4 * sway[2],
                pitch_rad=-0.03 + 0.08 * sway[3],
                roll_rad=0.08 * sway[4],
            )
            effects = replace(
                _with_motion_blur(look, before, T_room_camera, rate_hz),
                gains=tuple(g * (1 + 0.1 * sway[1]) for g in look.gains),
            )
            yield _Step(
                T_room_camera,
                stretch.is_mapped,
                stretch.is_kidnapped and i == 0,
                effects,
                int(rng.integers(2**31)),
            )
            before = T_room_camera
            time_s += 1 / rate_hz


def _loop_pose(
    room: Room,
    angle_rad: float,
    height_m: float,
    reach: float,
    looks_across: bool,
    yaw_rad: float = 0.0,
    pitch_rad: float = -0.05,
    roll_rad: float = 0.0,
) -> NDArray[np.float64]:
    """A place on an ellipse round the middle of the room, and where the camera looks there."""
    size = np.array(room.config.size_m)
    # At 1.75 m from the nearest wall and 0.9 m from the deepest box for a reach of 1.
    radii = reach * (size[:2] / 2 - 1.75)
    x, y = size[:2] / 2 + radii * (np.cos(angle_rad), np.sin(angle_rad))
    heading = angle_rad + (np.pi + 0.35 if looks_across else 0.0)
    return camera_pose((x, y, height_m), heading + yaw_rad, pitch_rad, roll_rad)


def _with_motion_blur(
    look: CameraEffects,
    T_room_before: NDArray[np.float64] | None,
    T_room_now: NDArray[np.float64],
    rate_hz: float,
) -> CameraEffects:
    """Blur as far as the turn between two images moves the picture during the exposure."""
    if T_room_before is None:
        return replace(look, motion_length_px=0.0)
    turn = rotation_vector(T_room_before[:3, :3].T @ T_room_now[:3, :3]) * rate_hz * _EXPOSURE_S
    shift_px = CAMERA.fx * np.array([-turn[1], turn[0]])
    return replace(
        look,
        motion_length_px=float(np.linalg.norm(shift_px)),
        motion_direction_rad=float(np.arctan2(shift_px[1], shift_px[0])),
    )


def _render_map_frame(
    room: Room, light: Lighting, index: int, T_room_camera: NDArray[np.float64]
) -> Keyframe:
    image, depth_m = room.render(T_room_camera, CAMERA, light)
    counts = np.rint(np.nan_to_num(depth_m) * 1000).astype(np.uint16)
    depth_png = cv2.imencode('.png', counts, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes()
    effects = CameraEffects(read_std=1.0, shot_std=1.5)
    image = effects.apply(image, np.random.default_rng(index))
    return Keyframe(
        id=index,
        stamp_s=float(index),
        T_map_camera=T_room_camera,
        camera=CAMERA,
        image=encode_jpeg(image, 92),
        depth=depth_png,
    )


def _render_live_frame(rooms: Sequence[Room], light: Lighting, step: _Step) -> LiveFrame:
    room = rooms[0 if step.is_mapped else 1]
    image, _ = room.render(step.T_room_camera, CAMERA, light)
    image = step.effects.apply(image, np.random.default_rng(step.noise_seed))
    data = encode_jpeg(image, step.effects.jpeg_quality)
    return LiveFrame(data, step.T_room_camera if step.is_mapped else None)


def _outlines(room: Room) -> Iterator[NDArray[np.float64]]:
    length_x, length_y, _ = room.config.size_m
    yield np.array([(0, 0), (length_x, 0), (length_x, length_y), (0, length_y)], np.float64)
    for box in room.boxes:
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.divide(box.size_m[:2], 2)
        cos, sin = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
        yield corners @ np.array([[cos, sin], [-sin, cos]]) + box.centre_room_m[:2]
