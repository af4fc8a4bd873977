"""Photometric change: strong, repeatable, and never a change of geometry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from coam_ros.training.data.photometric import _lose_resolution, vary_photometry


@pytest.fixture
def blob():
    image = np.full((65, 97, 3), 60, np.uint8)
    cv2.circle(image, (48, 32), 12, (220, 200, 180), -1)
    return image


def test_strength_zero_changes_nothing(blob):
    assert vary_photometry(blob, np.random.default_rng(0), 0.0) is blob


def test_the_same_seed_gives_the_same_view(blob):
    views = [vary_photometry(blob, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*views)


def test_a_blob_stays_where_it_is(blob):
    """The centre of the contrast moves by noise only: no effect shifts the image."""
    grid = np.stack(np.mgrid[0:65, 0:97][::-1], -1)
    offsets = []
    for seed in range(150):
        view = vary_photometry(blob, np.random.default_rng(seed)).mean(axis=2)
        inner = np.abs(view - np.median(view))
        inner[inner < 0.5 * inner.max()] = 0
        offsets.append((grid * inner[..., None]).sum((0, 1)) / inner.sum() - (48, 32))
    assert np.abs(np.median(offsets, axis=0)).max() < 0.1


@pytest.mark.parametrize('scale', [0.534, 0.601, 0.71])
def test_a_lost_resolution_moves_nothing_at_the_far_border(scale):
    # One grey level a pixel, so a level of difference is a pixel of shift.
    ramp = np.tile(np.arange(250, dtype=np.uint8)[None, :, None], (32, 1, 3))
    shift = _lose_resolution(ramp, scale).astype(float) - ramp
    assert abs(shift[:, 220:240].mean()) < 0.15


def test_any_strength_gives_a_view_and_no_warning(blob, capfd):
    for seed in range(60):
        assert vary_photometry(blob, np.random.default_rng(seed), 3.0).shape == blob.shape
    assert not capfd.readouterr().err


def test_views_differ_in_brightness_contrast_colour_and_sharpness(blob):
    views = [vary_photometry(blob, np.random.default_rng(seed)) for seed in range(100)]
    means = np.array([view.mean(axis=(0, 1)) for view in views])
    sharpness = [cv2.Laplacian(view[..., 1], cv2.CV_64F).std() for view in views]
    assert np.std(means.mean(axis=1)) > 15
    assert np.std([view.std() for view in views]) > 8
    assert np.std(means[:, 0] - means[:, 2]) > 4
    assert max(sharpness) > 3 * min(sharpness)
