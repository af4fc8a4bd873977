"""Sweeps: what is made of a photo lies where its homography says, and figures follow."""

from __future__ import annotations

from bench_samples import correspondences, KnownMatcher
from coam_ros.evaluation.benchmarks.estimators import ESTIMATORS
from coam_ros.evaluation.benchmarks.image_pairs import PAIR_BENCHMARKS
from coam_ros.evaluation.benchmarks.matching import match_pairs
from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.sweep import read_sweep, SWEEPS
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.geometry.image_views import apply_homography
import cv2
import numpy as np
import pytest

# Marks that all changes but the smallest overlaps and the largest scales keep inside.
MARKS = np.array([(390.0, 220.0), (440.0, 252.0), (400.0, 262.0)])


def write_photo(path) -> None:
    photo = np.full((480, 640, 3), 60, np.uint8)
    for x, y in MARKS.astype(int):
        cv2.circle(photo, (x, y), 5, (255, 255, 255), -1, cv2.LINE_AA)
    assert cv2.imwrite(str(path), photo)


@pytest.fixture
def pairs(tmp_path):
    write_photo(tmp_path / 'a.png')
    return read_sweep(tmp_path)


def centre_of_light(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    x, y = np.rint(near).astype(int)
    window = image[y - 9 : y + 10, x - 9 : x + 10].mean(axis=2)
    light = np.clip(window - 120, 0, None)
    grid = np.stack(np.meshgrid(range(x - 9, x + 10), range(y - 9, y + 10)), axis=-1)
    return (grid * light[..., None]).sum((0, 1)) / light.sum()


def test_marks_lie_where_the_homography_takes_them(pairs):
    checked = set()
    for pair in pairs:
        is_small = pair.sweep == 'scale' and pair.level > 1.5
        if pair.sweep in ('blur', 'noise', 'gamma') or is_small or pair.level in (70, 80):
            continue  # marks that are too faint or too large for the window
        wanted = apply_homography(MARKS, pair.homography)
        if not ((wanted > 20) & (wanted < (620, 460))).all():
            continue
        _, image1 = pair.read()
        for place in wanted:
            # A disc stays one only where it is turned or moved.
            atol = 0.2 if pair.sweep in ('rotation', 'overlap') else 0.5
            np.testing.assert_allclose(centre_of_light(image1, place), place, atol=atol)
        checked.add((pair.sweep, pair.level))
    assert {
        ('rotation', 45),
        ('rotation', 180),
        ('scale', 1.5),
        ('tilt', 50),
        ('overlap', 0.5),
    } <= (checked)


def test_level_is_what_its_unit_says(pairs):
    homographies = {(pair.sweep, pair.level): pair.homography for pair in pairs}
    centre = np.array([[319.5, 239.5]])

    def moved(sweep, level, *offset):
        return (apply_homography(centre + offset, homographies[sweep, level]) - centre)[0]

    assert moved('rotation', 90, 10, 0) == pytest.approx([0, 10])
    assert moved('scale', 2, 10, 5) == pytest.approx([20, 10])
    assert moved('overlap', 0.25, 0, 0) == pytest.approx([-0.75 * 640, 0])
    # The border, at half the focal length beside the middle, goes away from the camera.
    assert moved('tilt', 60, 320, 0) == pytest.approx([160 / (1 + np.sin(np.pi / 3) / 2), 0])


def test_each_photo_has_all_levels_and_only_one_thing_changes(pairs):
    assert len(pairs) == sum(len(change.levels) for change in SWEEPS.values())
    assert len({pair.name for pair in pairs}) == len(pairs)
    still = [pair for pair in pairs if pair.sweep in ('blur', 'gamma', 'noise')]
    assert all(np.allclose(pair.homography, np.eye(3)) for pair in still)
    darker = {p.level: p.read()[1].mean() for p in pairs if p.sweep == 'gamma'}
    assert darker[8] < darker[1] < darker[0.125]
    rough = {p.level: p.read()[1][:200].std() for p in pairs if p.sweep == 'noise'}
    # At the top there is nothing but noise about 60, a little of it cut at 0.
    assert rough[0] == pytest.approx(2, abs=0.1)
    assert rough[20] == pytest.approx(20, rel=0.05)


def test_images_are_the_same_whenever_they_are_made(pairs):
    for pair in pairs[:: len(pairs) // 4]:
        for first, second in zip(pair.read(), pair.read(), strict=True):
            np.testing.assert_array_equal(first, second)


def test_success_is_told_by_level_and_by_sweep(pairs):
    pairs = [pair for pair in pairs if pair.sweep in ('rotation', 'noise')]
    points = np.random.default_rng(0).uniform((200, 150), (440, 330), (40, 2))
    # Off by less than 5 px but for rotations beyond 45 degrees.
    offsets_px = [7 if pair.sweep == 'rotation' and pair.level > 45 else 4 for pair in pairs]
    answers = [
        correspondences(
            points, apply_homography(points, pair.homography) + np.array([offset_px, 0])
        )
        for pair, offset_px in zip(pairs, offsets_px, strict=True)
    ]
    benchmark = PAIR_BENCHMARKS['sweep']
    outcomes = [
        benchmark.judge(matched, ESTIMATORS['poselib']())
        for matched in match_pairs(pairs, CachedMatcher(KnownMatcher(answers)))
    ]
    summary = benchmark.summarise(outcomes)
    assert summary['success at rotation 45'] == 1
    assert summary['success at rotation 60'] == 0
    assert summary['success_rotation'] == pytest.approx(4 / 9)
    assert summary['success_noise'] == 1
    assert 'success_tilt' not in summary


def test_photos_are_taken_evenly(tmp_path):
    for number in range(7):
        write_photo(tmp_path / f'{number}.png')
    (tmp_path / 'list.txt').write_text('')
    chosen = dict.fromkeys(pair.path0.name for pair in read_sweep(tmp_path, 3))
    assert list(chosen) == ['0.png', '3.png', '6.png']


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(BenchmarkDataError, match='No photos'):
        read_sweep(tmp_path)
