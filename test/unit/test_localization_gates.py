from dataclasses import fields, replace

from coam_ros.geometry.absolute_pose import estimate_absolute_pose
from coam_ros.localization.config import LocalizationConfig, TrackerConfig
from coam_ros.localization.gates import (
    add_map_uncertainty,
    find_weakness,
    inlier_blocks,
    measure_coverage,
)
from coam_ros.localization.result import FailureReason, RelocalizationResult
import numpy as np
import pytest
from synthetic_scene import make_scene, VGA


def weakness(scene, **settings):
    config = replace(LocalizationConfig(), **settings)
    pose = estimate_absolute_pose(scene.pixels, scene.points_map, scene.camera)
    covariance = add_map_uncertainty(pose.covariance, config)
    num_inliers, num_matches = int(pose.inlier_mask.sum()), len(scene.pixels)
    blocks = inlier_blocks(scene.pixels[pose.inlier_mask], scene.camera)
    result = RelocalizationResult(
        num_matches=num_matches,
        num_inliers=num_inliers,
        num_inlier_blocks=len(blocks),
        inlier_ratio=num_inliers / num_matches,
        coverage=measure_coverage(blocks, scene.camera),
    )
    return find_weakness(result, covariance, config)


def test_good_pose_has_no_weakness():
    assert weakness(make_scene(0, 800, noise_px=1.0, outlier_ratio=0.5)) is None


@pytest.mark.parametrize(
    ('spoilt', 'reason', 'number'),
    [
        ({'num_points': 20}, FailureReason.TOO_FEW_INLIERS, '20 inliers'),
        (
            {'num_points': 900, 'outlier_ratio': 0.9},
            FailureReason.LOW_INLIER_RATIO,
            '% of 900',
        ),
        ({'region': (0.3, 0.3, 0.45, 0.45)}, FailureReason.LOW_COVERAGE, '% of the image'),
        (
            {'num_points': 800, 'noise_px': 4.0, 'depth_m': (60.0, 62.0)},
            FailureReason.HIGH_UNCERTAINTY,
            ' m and ',
        ),
    ],
)
def test_weak_pose_is_named_with_its_number(spoilt, reason, number):
    found, message = weakness(
        make_scene(1, **spoilt), min_inliers=30, min_inlier_ratio=0.15, min_coverage=0.1
    )
    assert found is reason
    assert number in message


def stds(position_m, rotation_deg):
    """A covariance whose worst directions lie along no axis."""
    spread = np.eye(3) + 99.0
    parts = (position_m**2, np.radians(rotation_deg) ** 2)
    return np.kron(np.diag(parts), spread / np.linalg.eigvalsh(spread)[-1])


@pytest.mark.parametrize(
    ('change', 'covariance', 'reason'),
    [
        ({}, stds(0.0999, 1.999), None),
        ({'num_inlier_blocks': 49}, stds(0.01, 0.1), FailureReason.TOO_FEW_INLIERS),
        ({'inlier_ratio': 0.049}, stds(0.01, 0.1), FailureReason.LOW_INLIER_RATIO),
        ({'coverage': 0.149}, stds(0.01, 0.1), FailureReason.LOW_COVERAGE),
        ({}, stds(0.1001, 0.1), FailureReason.HIGH_UNCERTAINTY),
        ({}, stds(0.01, 2.001), FailureReason.HIGH_UNCERTAINTY),
    ],
)
def test_each_gate_alone_is_passed_at_its_threshold_and_not_beyond(change, covariance, reason):
    just_good = {
        'num_matches': 4000,
        'num_inliers': 200,
        'num_inlier_blocks': 50,
        'inlier_ratio': 0.05,
        'coverage': 0.15,
    }
    result = RelocalizationResult(**{**just_good, **change})
    weak = find_weakness(result, covariance, LocalizationConfig())
    assert (weak[0] if weak else None) is reason


def test_block_is_eight_pixels_wide_and_begins_at_the_edge_of_the_image():
    inliers = [(-0.5, -0.5), (0, 7.4), (7.4, 0), (7.6, 0)]
    np.testing.assert_allclose(inlier_blocks(inliers, VGA), [(3.5, 3.5), (11.5, 3.5)])


def test_inliers_of_several_keyframes_in_one_place_count_once():
    once = make_scene(2, 100).pixels
    of_three = np.concatenate([once, once + 0.01, once - 0.01])
    blocks = inlier_blocks(once, VGA)
    assert 60 < len(blocks) <= 100
    assert abs(len(inlier_blocks(of_three, VGA)) - len(blocks)) <= 2
    # Blocks grow with the image: they are places of the scene, not numbers of pixels.
    double = replace(VGA, width=1280, height=960)
    np.testing.assert_allclose(inlier_blocks(2 * once + 0.5, double), 2 * blocks + 0.5)
    assert inlier_blocks(np.empty((0, 2)), VGA).shape == (0, 2)


def test_coverage_counts_cells_of_an_eighth_of_the_longer_side():
    corners = np.array([[-0.5, -0.5], [639.49, -0.5], [-0.5, 479.49], [639.49, 479.49]])
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    everywhere = np.column_stack([columns.ravel(), rows.ravel()])
    assert measure_coverage(np.empty((0, 2)), VGA) == 0.0
    assert measure_coverage(np.repeat(corners, 5, axis=0), VGA) == 4 / 48
    assert measure_coverage(everywhere, VGA) == 1.0
    portrait = replace(VGA, width=480, height=640)
    assert measure_coverage(np.full((5, 2), (479.0, 639.0)), portrait) == 1 / 48


def test_cell_with_few_inliers_does_not_count():
    four, five = np.full((4, 2), 10.0), np.full((5, 2), 100.0)
    assert measure_coverage(np.concatenate([four, five]), VGA) == 1 / 48


def test_map_uncertainty_adds_to_every_axis():
    config = replace(LocalizationConfig(), map_position_std_m=0.1, map_rotation_std_deg=1.0)
    variances = np.diag(add_map_uncertainty(np.zeros((6, 6)), config))
    np.testing.assert_allclose(variances[:3], 0.01)
    np.testing.assert_allclose(np.degrees(np.sqrt(variances[3:])), 1.0)


@pytest.mark.parametrize('config', [LocalizationConfig, TrackerConfig])
def test_every_setting_has_a_description_and_a_range_that_holds_its_default(config):
    for setting in fields(config):
        minimum, maximum = setting.metadata['range']
        assert setting.metadata['description']
        assert minimum <= setting.default <= maximum


@pytest.mark.parametrize('value', [-1.0, float('nan'), 1e9])
def test_setting_out_of_range_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r'min_coverage is .*; wanted 0\.0 to 1\.0'):
        LocalizationConfig(min_coverage=value)
    with pytest.raises(ValueError, match=r'lost_after_s is .*; wanted 0\.1 to 3600\.0'):
        TrackerConfig(lost_after_s=value)
