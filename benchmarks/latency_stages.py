"""Measures of latency: a rendered scene, the clock, and one function for each question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
import itertools
import os
from pathlib import Path
import time

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.inference import CoamModel
from coam_ros.localization import LocalizationConfig, Relocalizer
from coam_ros.mapping.builder import build_map
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.retrieval import KeyframeRetriever
from coam_ros.matching import CoamMatcher
from coam_ros.matching.image_files import encode_jpeg
from coam_ros.rendering import camera_pose, Room, RoomConfig
import cv2
import numpy as np
from numpy.typing import NDArray

CAMERA = PinholeCamera(640, 480, 525.0, 525.0, 319.5, 239.5)
_NUM_FRAMES = 5
# TensorRT runs a number of keyframes once, then records it, then replays it.
_NUM_WARM_UP = 3
# Shares of a soak after which memory has settled, and of its end with which that is compared.
_SETTLED, _LAST = (0.2, 0.4), (0.8, 1.0)

Row = dict[str, object]


@dataclass(frozen=True)
class Timing:
    """What repeated calls took.

    Attributes:
        median_ms: wall clock.
        p95_ms: wall clock, 95 of 100 calls were faster.
        cpu_ms: median of what all threads of this process worked. More than `median_ms` where
            several threads worked at once; if wall clock exceeds it with one thread, other
            processes took the core.
    """

    median_ms: float
    p95_ms: float
    cpu_ms: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A corner of a rendered room.

    Attributes:
        keyframes: views with depth that overlap, without descriptors.
        frames: images of the live camera among them, (480, 640, 3) uint8 RGB.
    """

    keyframes: tuple[Keyframe, ...]
    frames: tuple[NDArray[np.uint8], ...]


def make_scene(num_keyframes: int) -> Scene:
    """Render; the same number gives the same scene."""
    room = Room.generate(0, RoomConfig(texels_per_m=120.0))
    keyframes = []
    for index, at in enumerate(np.linspace(-1.0, 1.0, num_keyframes)):
        pose = camera_pose((3.0 + 0.5 * at, 2.2 + 0.2 * (index % 3), 1.3), 1.57 - 0.3 * at)
        image, depth_m = room.render(pose, CAMERA)
        counts = np.rint(np.nan_to_num(depth_m) * 1000).astype(np.uint16)
        keyframes.append(
            Keyframe(
                id=index,
                stamp_s=0.0,
                T_map_camera=pose,
                camera=CAMERA,
                image=encode_jpeg(image, 92),
                depth=cv2.imencode('.png', counts)[1].tobytes(),
            )
        )
    poses = [
        camera_pose((3.0 + 0.4 * at, 2.4, 1.4), 1.57 - 0.25 * at)
        for at in np.linspace(-1.0, 1.0, _NUM_FRAMES)
    ]
    return Scene(tuple(keyframes), tuple(room.render(pose, CAMERA)[0] for pose in poses))


def measure(function: Callable[[], object], repeats: int) -> Timing:
    """Time a function after a few calls that do not count."""
    return measure_in_turns({'': function}, repeats)['']


def measure_in_turns(
    functions: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, Timing]:
    """Time functions in turns, so that a busy moment of the machine meets all of them alike."""
    for function in functions.values():
        for _ in range(_NUM_WARM_UP):
            function()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    timings = {}
    for name, pairs in samples.items():
        wall_ms, cpu_ms = 1000 * np.array(pairs).T
        timings[name] = Timing(
            float(np.median(wall_ms)), float(np.percentile(wall_ms, 95)), float(np.median(cpu_ms))
        )
    return timings


def resident_mib() -> float:
    """Give the memory that this process has in RAM [MiB]."""
    with Path('/proc/self/statm').open() as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


def measure_networks(
    model: CoamModel, scene: Scene, batches: Sequence[int], repeats: int
) -> list[Row]:
    """Time the encoder, and the pair matcher for each number of keyframes."""
    encoded = [model.encode(image)[0] for image in scene.frames]
    size = (CAMERA.width, CAMERA.height)
    encoder = measure(lambda: model.encode(scene.frames[0]), repeats)
    rows = [_row('encoder', encoder)]
    for batch in batches:
        keyframes = list(itertools.islice(itertools.cycle(encoded[1:]), batch))
        sizes = [size] * batch
        timing = measure(partial(model.match, encoded[0], size, keyframes, sizes), repeats)
        rows.append(_row('pair matcher', timing, num_keyframes=batch))
    return rows


def _row(what: str, timing: Timing, **more: object) -> Row:
    return {'what': what, **asdict(timing), 'resident_mib': resident_mib(), **more}


def measure_frames(matcher: CoamMatcher, scene: Scene, num_keyframes: int, repeats: int) -> Row:
    """Time an image to its pose, and its stages; the keyframes' features are in the cache."""
    relocalizer = Relocalizer(
        matcher,
        build_map(scene.keyframes, matcher),
        LocalizationConfig(num_keyframes=num_keyframes),
    )
    frames = itertools.cycle(scene.frames)
    results = []

    def localize() -> None:
        results.append(relocalizer.relocalize(next(frames), CAMERA))

    for _ in scene.frames:
        localize()
    timing = measure(localize, repeats)
    results = results[-repeats:]
    stages = {
        stage: 1000 * float(np.median([r.stage_durations_s[stage] for r in results]))
        for stage in results[0].stage_durations_s
    }
    num_localized = sum(result.failure is None for result in results)
    return _row(
        'frame to pose',
        timing,
        num_keyframes=num_keyframes,
        stages_ms=stages,
        localized=num_localized / len(results),
    )


def measure_map_sizes(keyframe_map: KeyframeMap, sizes: Sequence[int], repeats: int) -> list[Row]:
    """Time the retrieval from maps of many keyframes, whose descriptors are random."""
    rng = np.random.default_rng(0)
    known = list(keyframe_map)
    dim = len(known[0].global_descriptor)
    rows = []
    for size in sizes:
        descriptors = rng.standard_normal((size, dim), np.float32)
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        large = KeyframeMap(
            replace(known[i % len(known)], id=i, global_descriptor=descriptor)
            for i, descriptor in enumerate(descriptors)
        )
        retriever = KeyframeRetriever(large)
        start = time.perf_counter()
        retriever.retrieve(descriptors[0], 6)
        first_ms = 1000 * (time.perf_counter() - start)
        timing = measure(partial(retriever.retrieve, descriptors[0], 6), repeats)
        num_bytes = sum(keyframe.num_bytes for keyframe in large)
        rows.append(
            {
                'num_map_keyframes': size,
                **asdict(timing),
                'first_ms': first_ms,
                'map_mib': num_bytes / 2**20,
            }
        )
    return rows


def soak(
    matcher: CoamMatcher,
    scene: Scene,
    num_frames: int,
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> Row:
    """Localize many frames and watch the memory.

    The cache holds two keyframes, so that features come and go all the time.

    Args:
        matcher: of any image area.
        scene: of at least 3 keyframes.
        num_frames: at least 10.
        progress: wraps an iterable of frame numbers.

    Returns:
        `resident_mib` over the time, and `growth_mib` of its last fifth over its second.
    """
    entry_bytes = matcher.encode(scene.frames[0]).num_bytes + 4 * CAMERA.width * CAMERA.height
    relocalizer = Relocalizer(
        matcher,
        build_map(scene.keyframes, matcher),
        LocalizationConfig(num_keyframes=1),
        feature_cache_bytes=2 * entry_bytes,
    )
    # There and back, so that some keyframes are still in the cache when they come again.
    frames = itertools.cycle([*scene.frames, *reversed(scene.frames)])
    resident = []
    for _ in progress(range(num_frames)):
        relocalizer.relocalize(next(frames), CAMERA)
        resident.append(resident_mib())
    settled, last = (
        float(np.mean(resident[int(a * num_frames) : int(b * num_frames)]))
        for a, b in (_SETTLED, _LAST)
    )
    return {
        'num_frames': num_frames,
        'resident_mib': resident[:: max(1, num_frames // 200)],
        'growth_mib': last - settled,
        'cache_hits': relocalizer.feature_cache.hits,
        'cache_misses': relocalizer.feature_cache.misses,
        'cache_evictions': relocalizer.feature_cache.evictions,
    }
