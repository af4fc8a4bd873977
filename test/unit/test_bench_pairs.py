"""Benchmarks of pairs on hand-made data: known matches in, known figures out; bad data."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path

from bench_samples import (
    correspondences,
    HEIGHT,
    INTRINSICS,
    KnownMatcher,
    pair_line,
    WIDTH,
    write_image,
    write_sequence,
)
from coam_ros.evaluation.benchmarks.estimators import ESTIMATORS
from coam_ros.evaluation.benchmarks.image_pairs import PAIR_BENCHMARKS
from coam_ros.evaluation.benchmarks.matching import match_pairs
from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.image_pairs import (
    hash_pairs,
    PlanarPair,
    PosedPair,
    read_planar_pairs,
    resize_for_matching,
)
from coam_ros.evaluation.data.pair_lists import read_any_pairs, read_pair_lists
from coam_ros.evaluation.files import to_json_values
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.geometry.camera import NOMINAL_AREA_PX
from coam_ros.geometry.image_views import apply_homography, resize_view
from coam_ros.geometry.transforms import make_transform, transform_points
from coam_ros.mapping.importers.pair_list import PairListError
import numpy as np
import pytest
from rotations import rotation_from_vector

# The images are a quarter of the area that matchers get: sides double.
SCALE = 2.0


def to_matched(pixels: np.ndarray) -> np.ndarray:
    return (pixels + 0.5) * SCALE - 0.5


def run(kind: str, directory, matcher) -> tuple[list[dict], dict]:
    benchmark = PAIR_BENCHMARKS[kind]
    matched = list(match_pairs(read_any_pairs(directory), CachedMatcher(matcher)))
    estimator = ESTIMATORS['poselib']()
    outcomes = [{'name': m.pair.name, **benchmark.judge(m, estimator)} for m in matched]
    return outcomes, benchmark.summarise(outcomes)


def exact_views(T_1_0: np.ndarray, num_points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of points before both cameras, in the images as they are."""
    rng = np.random.default_rng(0)
    points_0 = np.column_stack(
        [rng.uniform(-1, 1, (num_points, 2)), rng.uniform(3, 6, num_points)]
    )
    views = []
    for points in (points_0, transform_points(T_1_0, points_0)):
        pixels = points @ INTRINSICS.T
        views.append(pixels[:, :2] / pixels[:, 2:])
    return views[0], views[1]


@pytest.fixture
def posed(tmp_path):
    """Two pairs of one relative pose."""
    for number in (0, 1):
        write_image(tmp_path / f'{number}.png', number)
    T_1_0 = make_transform(rotation_from_vector([0.05, -0.1, 0.02]), [0.5, 0.1, -0.05])
    (tmp_path / 'pairs.txt').write_text(2 * pair_line('0.png', '1.png', T_1_0))
    return tmp_path, T_1_0


def test_exact_matches_give_the_pose_and_a_failed_pair_counts_as_lost(posed):
    directory, T_1_0 = posed
    found = correspondences(*map(to_matched, exact_views(T_1_0)))
    outcomes, summary = run('pose', directory, KnownMatcher([found, None]))
    # float32 pixels: 1e-5 px of 500 px focal length.
    assert max(outcomes[0]['errors_deg']) < 0.01
    assert min(outcomes[1]['errors_deg']) == np.inf
    # Half of them at (almost) 0, half lost: level at 1/2.
    for threshold in (5, 10, 20):
        assert summary[f'auc_{threshold}deg'] == pytest.approx(0.5, abs=1e-3)
    assert summary['epipolar_precision'] == 0.5


def test_matches_of_another_pose_have_that_error(posed):
    directory, T_1_0 = posed
    turn = make_transform(rotation_from_vector([0, 0, np.radians(8)]), [0, 0, 0])
    found = correspondences(*map(to_matched, exact_views(turn @ T_1_0)))
    outcomes, summary = run('pose', directory, KnownMatcher([found, found]))
    # The turn is about the axis; the direction of translation turns by less.
    assert outcomes[0]['errors_deg'] == pytest.approx([8, 8, 8], abs=0.01)
    assert summary['auc_5deg'] == 0
    # All at 8: (0, 0) (8, 1/6) (8, 1), level to 10: 4 / 6 + 2.
    assert summary['auc_10deg'] == pytest.approx((4 / 6 + 2) / 10, abs=1e-3)


def test_epipolar_precision_counts_matches_within_one_and_a_half_pixels(tmp_path):
    for number in (0, 1):
        write_image(tmp_path / f'{number}.png', number)
    # Sideways: epipolar lines are rows.
    T_1_0 = make_transform(np.eye(3), [1, 0, 0])
    (tmp_path / 'pairs.txt').write_text(pair_line('0.png', '1.png', T_1_0))
    points0, points1 = map(to_matched, exact_views(T_1_0))
    offsets = np.repeat([0.0, 1.4, 1.6, 2.9], 15)
    found = correspondences(points0, points1 + offsets[:, None] * (0, 1))
    _, summary = run('pose', tmp_path, KnownMatcher([found]))
    assert summary['epipolar_precision'] == 0.5


def test_truth_follows_each_image_to_its_own_size():
    T_1_0 = make_transform(rotation_from_vector([0.05, -0.1, 0.02]), [0.5, 0.1, -0.05])
    homography = np.array([[1.02, 0.03, 5], [-0.02, 0.98, -4], [1e-5, 2e-5, 1]])
    points0, points1 = exact_views(T_1_0)
    posed = PosedPair('', Path(), Path(), INTRINSICS, INTRINSICS, T_1_0)
    planar = PlanarPair('', Path(), Path(), homography)
    to0, to1 = resize_view(2.0), resize_view(0.5, 0.75)
    for pair, true1 in ((posed, points1), (planar, apply_homography(points0, homography))):
        found = correspondences(apply_homography(points0, to0), apply_homography(true1, to1))
        assert pair.resized(to0, to1).errors_px(found).max() < 1e-3


def test_fewer_matches_than_a_pose_needs_are_a_lost_pair(posed):
    directory, T_1_0 = posed
    points0, points1 = exact_views(T_1_0, 4)
    found = correspondences(to_matched(points0), to_matched(points1))
    outcomes, _ = run('pose', directory, KnownMatcher([found, found]))
    assert [outcome['errors_deg'] for outcome in outcomes] == 2 * [3 * [np.inf]]


def planar_case(directory):
    homography = np.array([[1.02, 0.03, 5], [-0.02, 0.98, -4], [1e-5, 2e-5, 1]])
    write_sequence(directory / 'v_wall', [homography, homography])
    points0 = np.random.default_rng(0).uniform((10, 10), (WIDTH - 10, HEIGHT - 10), (80, 2))
    moved = np.column_stack([points0, np.ones(80)]) @ homography.T
    return to_matched(points0), to_matched(moved[:, :2] / moved[:, 2:])


def test_mma_and_auc_of_matches_with_known_errors(tmp_path):
    points0, points1 = planar_case(tmp_path)
    # A quarter each: exact, 1.5, 4 and 20 px off, in pixels of the images as matched.
    offsets = np.repeat([0.0, 1.5, 4.0, 20.0], 20)
    found = correspondences(points0, points1 + offsets[:, None] * (0.6, -0.8))
    outcomes, summary = run('homography', tmp_path, KnownMatcher([found, None]))
    # 1 px: 20 of 80; 2 and 3 px: 40; from 4 px (float32 pixels: a hair more) on 60.
    accuracy = outcomes[0]['accuracy']
    np.testing.assert_allclose(accuracy[:3] + accuracy[4:], [0.25] + 2 * [0.5] + 6 * [0.75])
    # The pair that failed counts as 0.
    shares = [summary[f'mma_{px}px'] for px in (1, 2, 3, 5, 10)]
    np.testing.assert_allclose(shares, [0.125, 0.25, 0.25, 0.375, 0.375])
    assert outcomes[1]['corner_errors_px'] == 3 * [np.inf]


def test_corner_error_is_that_of_the_corners_of_the_image_as_matched(tmp_path):
    write_sequence(tmp_path / 'wall', [np.eye(3)])
    points = np.random.default_rng(0).uniform((20, 20), (600, 440), (40, 2))
    outcomes, _ = run(
        'homography', tmp_path, KnownMatcher([correspondences(points, points * (1.01, 1))])
    )
    # Of 640 px in width: two corners off by 6.4 px, two by nothing.
    assert outcomes[0]['error'] == pytest.approx(3.2, abs=0.05)


def test_figures_agree_with_an_independent_computation(tmp_path):
    """Every match moved by its own known amount: MMA and AUC from those amounts alone."""
    rng = np.random.default_rng(3)
    points0, points1 = planar_case(tmp_path)
    offsets = rng.uniform(0, 12, (2, 80))
    answers = [correspondences(points0, points1 + d[:, None] * (0.6, -0.8)) for d in offsets]
    outcomes, summary = run('homography', tmp_path, KnownMatcher(answers))
    for px in range(1, 11):
        wanted = np.mean([(pair <= px).sum() / 80 for pair in offsets])
        assert summary[f'mma_{px}px'] == pytest.approx(wanted, abs=0.005)
    # Area under the steps' corners by adding trapezoids one by one.
    errors = sorted(e for outcome in outcomes for e in outcome['corner_errors_px'])
    for px in (1, 3, 5, 10):
        area, last_x, last_y = 0.0, 0.0, 0.0
        for number, error in enumerate(errors, start=1):
            if error < px:
                y = number / len(errors)
                area += (error - last_x) * (last_y + y) / 2
                last_x, last_y = error, y
        area += (px - last_x) * last_y
        assert summary[f'auc_{px}px'] == pytest.approx(area / px, abs=0.005)


def test_illumination_and_viewpoint_are_also_told_apart(tmp_path):
    for name in ('i_lamp', 'v_wall'):
        write_sequence(tmp_path / name, [np.eye(3)])
    points = np.random.default_rng(0).uniform((20, 20), (600, 440), (40, 2))
    exact, wrong = correspondences(points, points), correspondences(points, points + 30)
    _, summary = run('homography', tmp_path, KnownMatcher([exact, wrong]))
    assert summary['mma_3px_illumination'] == 1
    assert summary['mma_3px_viewpoint'] == 0
    assert summary['mma_3px'] == 0.5
    assert summary['auc_5px_illumination'] > 0.99
    assert summary['auc_5px_viewpoint'] == 0


def test_other_names_are_not_split(tmp_path):
    write_sequence(tmp_path / 'graf', [np.eye(3)])
    _, summary = run('homography', tmp_path, KnownMatcher([None]))
    assert not [name for name in summary if 'viewpoint' in name or 'illumination' in name]


@pytest.mark.parametrize('kind', ['pose', 'homography', 'ranking'])
def test_figures_are_the_same_from_a_report(tmp_path, kind):
    write_sequence(tmp_path / 'v_wall', [np.eye(3), np.eye(3)])
    names = ('v_wall/1.png', 'v_wall/2.png')
    (tmp_path / 'pairs.txt').write_text(2 * pair_line(*names, np.eye(4)))
    if kind == 'homography':
        (tmp_path / 'pairs.txt').unlink()
    points = np.random.default_rng(0).uniform((20, 20), (600, 440), (40, 2))
    answers = [correspondences(points, points), None]
    outcomes, summary = run(kind, tmp_path, KnownMatcher(answers))
    read_back = json.loads(json.dumps(to_json_values(outcomes)))
    assert PAIR_BENCHMARKS[kind].summarise(read_back) == summary


def test_exact_matches_give_the_homography(tmp_path):
    found = correspondences(*planar_case(tmp_path))
    outcomes, summary = run('homography', tmp_path, KnownMatcher([found, found]))
    assert max(max(outcome['corner_errors_px']) for outcome in outcomes) < 0.01
    assert summary['auc_1px'] > 0.99
    assert summary['mma_1px'] == 1


def test_ranking_joins_the_matches_of_all_pairs(tmp_path):
    points0, points1 = planar_case(tmp_path)
    right = replace(
        correspondences(points0[:2], points1[:2], [0.9, 0.5]),
        similarities=np.array([0.6, 0.6]),
        distinctiveness=np.array([0.6, 0.6]),
    )
    wrong = replace(
        correspondences(points0[:2], points1[:2] + 50, [0.7, 0.1]),
        similarities=np.array([1.0, 0.1]),
        distinctiveness=np.array([0.3, 0.1]),
    )
    outcomes, summary = run('ranking', tmp_path, KnownMatcher([right, wrong]))
    assert [outcome['error'] for outcome in outcomes] == [0, 1]
    # Right at 0.9, wrong at 0.7, right at 0.5, wrong at 0.1.
    assert summary['precision'] == 0.5
    assert summary['average_precision_by_score'] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert summary['average_precision_by_similarity x distinctiveness'] == pytest.approx(1)
    curve = dict(zip(summary['recall'], summary['precision_by_ranking']['score'], strict=True))
    assert curve[0.5] == 1
    assert curve[1.0] == pytest.approx(2 / 3)


@pytest.mark.parametrize('failed', [0, 1])
def test_ranking_goes_on_where_a_pair_failed(tmp_path, failed):
    points0, points1 = planar_case(tmp_path)
    column = np.array([0.9, 0.5], np.float32)
    found = replace(
        correspondences(points0[:2], points1[:2], column),
        similarities=column,
        distinctiveness=column,
    )
    answers = [found]
    answers.insert(failed, None)
    _, summary = run('ranking', tmp_path, KnownMatcher(answers))
    assert summary['average_precision_by_similarity'] == pytest.approx(1)
    assert summary['average_precision_by_score'] == pytest.approx(1)


def test_ranking_without_a_match_has_no_precision(tmp_path):
    planar_case(tmp_path)
    _, summary = run('ranking', tmp_path, KnownMatcher([None, None]))
    assert summary['precision'] == summary['average_precision_by_score'] == 0


def test_every_matcher_gets_images_of_one_area_and_truth_follows(tmp_path):
    homography = np.array([[1, 0, 7], [0, 1, -3], [0, 0, 1.0]])
    write_sequence(tmp_path / 'i_shift', [homography])
    point0 = np.array([[50.0, 60.0]])
    found = correspondences(to_matched(point0), to_matched(point0 + np.array([7, -3])))
    sizes = []

    class SizeMatcher(KnownMatcher):
        def match(self, image0, image1):
            sizes.extend([image0.shape, image1.shape])
            return super().match(image0, image1)

    matcher = CachedMatcher(SizeMatcher([found]))
    (matched,) = match_pairs(read_planar_pairs(tmp_path), matcher)
    assert sizes == [(480, 640, 3)] * 2
    assert {image.shape for image in matched.images} == {(480, 640, 3)}
    assert NOMINAL_AREA_PX == 480 * 640
    assert isinstance(matched.pair, PlanarPair)
    assert matched.pair.errors_px(found) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (pair_line('0.png', 'none.png', np.eye(4)), 'line 2: no image'),
        (pair_line('0.png', '1.png', np.eye(4)).replace('260.0', 'nan'), 'wanted 36 finite'),
        ('0.png 1.png 0 0 1 2 3\n', 'line 2: 5 words'),
        (pair_line('0.png', '1.png', np.eye(4), INTRINSICS[:2]), 'line 2: 30 words'),
        (pair_line('0.png', '1.png', np.diag([1, 1, -1, 1])), 'line 2: T_1_0'),
        (pair_line('0.png', '1.png', np.eye(4), np.zeros((3, 3))), 'line 2: K'),
        (pair_line('0.png', '1.png', np.eye(4), -INTRINSICS), 'line 2: K'),
        (pair_line('0.png', '1.png', 2 * np.eye(4)), 'line 2: T_1_0'),
    ],
)
def test_a_wrong_line_of_a_pair_list_is_named(posed, line, message):
    directory, T_1_0 = posed
    (directory / 'pairs.txt').write_text(pair_line('0.png', '1.png', T_1_0) + line)
    with pytest.raises((BenchmarkDataError, PairListError), match=message):
        read_pair_lists(directory)


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'pairs\.txt'):
        read_pair_lists(tmp_path)
    with pytest.raises(BenchmarkDataError, match='No pairs'):
        read_planar_pairs(tmp_path)
    (tmp_path / 'pairs.txt').write_text('\n')
    with pytest.raises(BenchmarkDataError, match='No pairs'):
        read_pair_lists(tmp_path)


@pytest.mark.parametrize('text', ['1 0 0 0 1 0 0 0', '1 0 0 0 1 0 0 0 0', 'a b c', '1 0 nan ' * 3])
def test_a_wrong_homography_is_named(tmp_path, text):
    write_sequence(tmp_path / 'v_wall', [np.eye(3)])
    (tmp_path / 'v_wall/H_1_2').write_text(text)
    with pytest.raises(BenchmarkDataError, match='H_1_2'):
        read_planar_pairs(tmp_path)


@pytest.mark.parametrize('name', ['1.png', '2.png'])
def test_hash_follows_both_images(tmp_path, name):
    write_sequence(tmp_path / 'v_wall', [np.eye(3)])
    before = hash_pairs(read_planar_pairs(tmp_path))
    write_image(tmp_path / 'v_wall' / name, 9)
    assert hash_pairs(read_planar_pairs(tmp_path)) != before


@pytest.mark.parametrize('name', ['intrinsics0', 'intrinsics1', 'T_1_0'])
def test_hash_follows_the_cameras(posed, name):
    pairs = read_pair_lists(posed[0])
    changed = replace(pairs[1], **{name: 2 * getattr(pairs[1], name)})
    assert hash_pairs([pairs[0], changed]) != hash_pairs(pairs)


def test_images_of_any_aspect_keep_it_at_the_area_of_matchers():
    image, _ = resize_for_matching(np.zeros((200, 333, 3), np.uint8))
    height, width = image.shape[:2]
    assert width / height == pytest.approx(333 / 200, rel=0.003)
    assert width * height == pytest.approx(NOMINAL_AREA_PX, rel=0.003)


def test_a_missing_image_of_a_sequence_is_named(tmp_path):
    write_sequence(tmp_path / 'v_wall', [np.eye(3)])
    (tmp_path / 'v_wall/2.png').unlink()
    with pytest.raises(BenchmarkDataError, match='no image 2'):
        read_planar_pairs(tmp_path)
