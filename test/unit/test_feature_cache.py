from __future__ import annotations

from dataclasses import replace

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.feature_cache import KeyframeFeatureCache
from coam_ros.matching import EncodedImage
from coam_ros.matching.preprocessing import Resizing
from map_samples import encode, HEIGHT, make_image, make_keyframe, WIDTH
import numpy as np
import pytest

FEATURE_BYTES = 1000
DESCRIPTOR_BYTES = 4 * 4
GREY_BYTES = WIDTH * HEIGHT
DEPTH_BYTES = 4 * WIDTH * HEIGHT
ENTRY_BYTES = FEATURE_BYTES + DESCRIPTOR_BYTES + GREY_BYTES + DEPTH_BYTES


class CountingEncoder:
    """Encodes to features of a known size, which hold the image's mean."""

    def __init__(self):
        self.num_calls = 0

    def encode(self, image: np.ndarray) -> EncodedImage:
        self.num_calls += 1
        size = (image.shape[1], image.shape[0])
        return EncodedImage(
            {'features': np.full(FEATURE_BYTES // 2, image.mean(), np.float16)},
            np.array([1, 0, 0, 0], np.float32),
            Resizing(size, size, size),
            image[..., 0],
        )


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


def test_second_call_computes_nothing(encoder):
    cache = KeyframeFeatureCache(encoder, 10 * ENTRY_BYTES)
    keyframe = make_keyframe()
    first = cache.get(keyframe)
    assert cache.get(keyframe) is first
    assert encoder.num_calls == 1
    assert (cache.hits, cache.misses, cache.evictions) == (1, 1, 0)
    assert first.depth_m.shape == (HEIGHT, WIDTH)
    assert cache.num_bytes == first.num_bytes == ENTRY_BYTES


def test_one_used_longest_ago_leaves_first(encoder):
    cache = KeyframeFeatureCache(encoder, 2 * ENTRY_BYTES)
    a, b, c = (make_keyframe(id=i) for i in range(3))
    cache.get(a)
    cache.get(b)
    cache.get(a)
    cache.get(c)
    assert (len(cache), cache.evictions, encoder.num_calls) == (2, 1, 3)
    cache.get(a)
    assert encoder.num_calls == 3
    cache.get(b)
    assert encoder.num_calls == 4


def test_thousand_keyframes_stay_within_the_bound(encoder):
    # 10.5 entries fit: 10 are kept.
    bound = 10 * ENTRY_BYTES + ENTRY_BYTES // 2
    cache = KeyframeFeatureCache(encoder, bound)
    keyframe = make_keyframe()
    for i in range(1000):
        cache.get(replace(keyframe, id=i))
        assert cache.num_bytes <= bound
    assert cache.num_bytes == 10 * ENTRY_BYTES
    assert (len(cache), cache.misses, cache.evictions) == (10, 1000, 990)


def test_entries_of_different_size_are_counted_with_their_own(encoder):
    big = make_keyframe(
        id=1,
        camera=PinholeCamera(2 * WIDTH, 2 * HEIGHT, 60.0, 60.0, 60.0, 40.0),
        image=encode(np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8), '.png'),
        depth=encode(np.ones((2 * HEIGHT, 2 * WIDTH), np.uint16), '.png'),
    )
    cache = KeyframeFeatureCache(encoder, 6 * ENTRY_BYTES)
    for keyframe in (make_keyframe(id=2), make_keyframe(id=3, depth=None)):
        cache.get(keyframe)
    assert cache.num_bytes == 2 * ENTRY_BYTES - DEPTH_BYTES
    cache.get(big)
    assert len(cache) == 3
    cache.get(make_keyframe(id=4))
    assert cache.num_bytes <= cache.max_bytes
    assert cache.evictions == 1


def test_entry_larger_than_the_bound_is_computed_but_not_kept(encoder):
    cache = KeyframeFeatureCache(encoder, ENTRY_BYTES - 1)
    for _ in range(2):
        assert cache.get(make_keyframe()).num_bytes == ENTRY_BYTES
    assert (len(cache), cache.num_bytes, encoder.num_calls) == (0, 0, 2)


def test_moved_keyframe_keeps_its_features(encoder):
    cache = KeyframeFeatureCache(encoder, ENTRY_BYTES)
    T_moved = np.eye(4)
    T_moved[0, 3] = 1
    first = cache.get(make_keyframe())
    assert cache.get(make_keyframe(T_map_camera=T_moved)) is first


@pytest.mark.parametrize(
    'change',
    [
        {'image': encode(make_image(5), '.jpg')},
        {'depth': encode(np.full((HEIGHT, WIDTH), 9, np.uint16), '.png')},
        {'depth_scale_m': 0.002},
    ],
)
def test_keyframe_with_new_pixels_is_encoded_again(encoder, change):
    cache = KeyframeFeatureCache(encoder, 3 * ENTRY_BYTES)
    first = cache.get(make_keyframe())
    assert cache.get(make_keyframe(**change)) is not first
    assert len(cache) == 1
    assert cache.num_bytes == ENTRY_BYTES


def test_negative_bound_is_refused(encoder):
    with pytest.raises(ValueError, match='-1 bytes'):
        KeyframeFeatureCache(encoder, -1)
