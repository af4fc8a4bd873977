"""Pairs from rendered rooms: an endless posed RGB-D source with exact depth and poses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.image_views import Image
from coam_ros.matching.image_files import read_image
from coam_ros.rendering import camera_pose, Lighting, load_photographs, Room, RoomConfig
from coam_ros.training.data.pairs import draw_until_made, SourceConfig, TrainingPair
from coam_ros.training.data.posed_depth import (
    CoarseDepth,
    DepthFrame,
    DepthPairMaker,
    DepthTolerance,
    overlapping_pairs,
)
from coam_ros.training.data.reading import largest_reduction, list_photos
from coam_ros.training.data.views import check_not_negative, CropConfig, ViewSpec
import numpy as np
from numpy.typing import NDArray

# Depth is exact; this leaves room for its interpolation.
_TOLERANCE = DepthTolerance(0.01, 0.005)
# Frames are drawn larger than the views by this, so that a crop stays sharp.
_OVERSIZE = 1.2
_PREVIEW_SIZE = (64, 48)
# Frames of a room look at places in groups, so that they overlap.
_FRAMES_PER_PLACE = 6
# A texture fills about this many pixels of a photo; more would only take time to read.
_PHOTO_SIZE_PX = (480, 360)
_MAX_PLACES_TRIED = 500
_MAX_ROOMS_TRIED = 20


@dataclass(frozen=True, kw_only=True)
class RoomSourceConfig(SourceConfig):
    """Rooms with random size, furniture, textures, light and cameras.

    Attributes:
        path: folder of photos that paper the rooms; empty takes those of scikit-image, which the
            demo uses: they are few, so a long training wants a folder.
        cache_mb: of no effect; the frames of one room are kept.
        crop: of a rendered frame; changes of scale come from the cameras' places as well.
        seed: of the rooms; another one gives other rooms.
        pairs_per_room: pairs, of the whole run, before the next room. Every loading process makes
            every room, so with many processes a higher number saves time.
        frames_per_room: rendered frames of a room.
        photos_per_room: photos that paper a room.
        min_size_m, max_size_m: length, width and height are drawn between these.
        texels_per_m: resolution of the textures: 180 suits views of 320 to 480 px.
        light_strength: 0 for even white light, 1 for light that clearly differs between frames.
        min_fov_deg, max_fov_deg: horizontal field of view of a frame.
        roll_std_deg: standard deviation of the cameras' roll.
        min_overlap: share of the first frame that the second must show.
    """

    path: str = ''
    crop: CropConfig = field(default_factory=lambda: CropConfig(min_extent=0.7))
    seed: int = 0
    pairs_per_room: int = 400
    frames_per_room: int = 24
    photos_per_room: int = 30
    min_size_m: tuple[float, float, float] = (3.0, 3.0, 2.3)
    max_size_m: tuple[float, float, float] = (9.0, 7.0, 3.6)
    texels_per_m: float = 180.0
    light_strength: float = 1.0
    min_fov_deg: float = 50.0
    max_fov_deg: float = 90.0
    roll_std_deg: float = 8.0
    min_overlap: float = 0.2

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        super().__post_init__()
        check_not_negative(self, 'roll_std_deg', 'light_strength')
        if not 0 <= self.min_overlap < 1:
            raise ValueError(
                f'min_overlap is {self.min_overlap}, wanted 0 <= min_overlap < 1; lower it.'
            )
        if self.pairs_per_room < 1 or self.frames_per_room < 2 or self.photos_per_room < 1:
            raise ValueError(
                f'{self.pairs_per_room} pairs, {self.frames_per_room} frames and '
                f'{self.photos_per_room} photos a room, wanted at least 1, 2 and 1; raise them.'
            )
        sizes_m = zip(self.min_size_m, self.max_size_m, strict=True)
        if not all(0 < least <= largest for least, largest in sizes_m):
            raise ValueError(
                f'Rooms are {list(self.min_size_m)} to {list(self.max_size_m)} m large, wanted '
                '0 < min_size_m <= max_size_m in each direction; correct them.'
            )
        if not 10 <= self.min_fov_deg <= self.max_fov_deg <= 140:
            raise ValueError(
                f'The field of view is {self.min_fov_deg} to {self.max_fov_deg} degrees, wanted '
                '10 <= min_fov_deg <= max_fov_deg <= 140; correct it.'
            )


class RoomSource:
    """Pairs of frames of rendered rooms."""

    def __init__(self, config: RoomSourceConfig, spec: ViewSpec) -> None:
        """Find the photos; rooms are made when they are drawn.

        Raises:
            FileNotFoundError: no such folder, or scikit-image is missing.
            ValueError: no usable photo.
        """
        self._config = config
        self._frame_size = tuple(round(side * _OVERSIZE) for side in spec.size)
        self._maker = DepthPairMaker(config, spec, _TOLERANCE, is_precise=True)
        self._photos = list(list_photos(Path(config.path)).items()) if config.path else []
        self._photographs = [] if config.path else list(load_photographs().values())
        self._room: _FurnishedRoom | None = None

    def sample(self, rng: np.random.Generator, item: int = 0) -> TrainingPair:
        """Return two views of the room that is due; see `PairSource.sample`."""
        number = item // self._config.pairs_per_room
        if self._room is None or self._room.number != number:
            self._room = self._make_room(number)
        room = self._room
        return draw_until_made(
            lambda: self._draw(room, rng), f'rendered room {number}', 'frames that overlap'
        )

    def _draw(self, room: _FurnishedRoom, rng: np.random.Generator) -> TrainingPair | None:
        i, j = room.pairs[rng.integers(len(room.pairs))]
        return self._maker.make(room.frame(i), room.frame(j), rng)

    def _make_room(self, number: int) -> _FurnishedRoom:
        rng = np.random.default_rng((self._config.seed, number))
        for _ in range(_MAX_ROOMS_TRIED):
            room = _FurnishedRoom(
                number, self._config, self._frame_size, self._pick_photographs(rng), rng
            )
            if room.pairs:
                return room
        raise ValueError(
            f'Of {_MAX_ROOMS_TRIED} rendered rooms none has two frames that share '
            f'{self._config.min_overlap:.0%} of their view; lower min_overlap or raise '
            'frames_per_room.'
        )

    def _pick_photographs(self, rng: np.random.Generator) -> list[Image]:
        if not self._photos:
            return self._photographs
        count = min(self._config.photos_per_room, len(self._photos))
        chosen = rng.choice(len(self._photos), count, replace=False)
        return [
            read_image(path, largest_reduction(size, _PHOTO_SIZE_PX))
            for path, size in (self._photos[index] for index in chosen)
        ]


class _FurnishedRoom:
    """A room, where cameras stand in it, and the frames that were rendered so far.

    Attributes:
        number: of the room.
        pairs: frames (i, j) of which j shows enough of i.
    """

    def __init__(
        self,
        number: int,
        config: RoomSourceConfig,
        frame_size: tuple[int, int],
        photographs: list[Image],
        rng: np.random.Generator,
    ) -> None:
        self.number = number
        self._config = config
        self._frame_size = frame_size
        size_m = tuple(rng.uniform(config.min_size_m, config.max_size_m).tolist())
        furniture = RoomConfig(
            size_m,
            num_floor_boxes=int(rng.integers(2, 11)),
            num_hung_boxes=int(rng.integers(0, 11)),
            num_centre_boxes=int(rng.integers(0, 4)),
            texels_per_m=config.texels_per_m,
            picture_share=rng.uniform(0.1, 0.9),
        )
        self._room = Room.generate(int(rng.integers(2**31)), furniture, photographs)
        self._poses, self._focal_shares, coarse = self._place_cameras(rng)
        self._lights = [Lighting.sample(rng, size_m, config.light_strength) for _ in self._poses]
        self._frames: dict[int, DepthFrame] = {}
        count = len(self._poses)
        candidates = ([j for j in range(count) if j != i] for i in range(count))
        self.pairs = overlapping_pairs(coarse, candidates, config.min_overlap)

    def frame(self, index: int) -> DepthFrame:
        """Render a frame when it is first asked for."""
        if index not in self._frames:
            camera = _camera(self._frame_size, self._focal_shares[index])
            image, depth = self._room.render(self._poses[index], camera, self._lights[index])
            self._frames[index] = DepthFrame(image, depth, camera, self._poses[index])
        return self._frames[index]

    def _place_cameras(
        self, rng: np.random.Generator
    ) -> tuple[list[NDArray[np.float64]], list[float], list[CoarseDepth]]:
        """Let groups of cameras look at one place each, from where they see it."""
        config = self._config
        poses, focal_shares, coarse = [], [], []
        place = None
        for _ in range(_MAX_PLACES_TRIED):
            if len(poses) == config.frames_per_room:
                break
            position = rng.uniform(0, self._room.config.size_m)
            if not self._room.is_free(position):
                continue
            fov_rad = np.deg2rad(rng.uniform(config.min_fov_deg, config.max_fov_deg))
            focal_share = 0.5 / np.tan(fov_rad / 2)
            if len(poses) % _FRAMES_PER_PLACE == 0 or place is None:
                yaw, pitch = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.3)
            else:
                yaw, pitch = _direction(place - position) + rng.normal(0, 0.15, 2)
            roll = np.deg2rad(rng.normal(0, config.roll_std_deg))
            pose = camera_pose(position, yaw, pitch, roll)
            camera = _camera(_PREVIEW_SIZE, focal_share)
            depth = self._room.render(pose, camera)[1]
            if len(poses) % _FRAMES_PER_PLACE == 0:
                row, column = depth.shape[0] // 2, depth.shape[1] // 2
                place = position + depth[row, column] * pose[:3, 2]
            poses.append(pose)
            focal_shares.append(float(focal_share))
            coarse.append(CoarseDepth.of(depth, camera, pose))
        return poses, focal_shares, coarse


def _camera(size: tuple[int, int], focal_share: float) -> PinholeCamera:
    """A camera whose focal length is a share of the image's width."""
    width, height = size
    focal = focal_share * width
    return PinholeCamera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _direction(offset_room: NDArray[np.float64]) -> NDArray[np.float64]:
    """Yaw and pitch that look along a vector [rad]."""
    x, y, z = offset_room
    return np.array([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
