"""Matches to shared key points, to COLMAP and hloc files, to a reconstruction, and back."""

from __future__ import annotations

import argparse
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
)
from coam_ros.cli import main
from coam_ros.evaluation.benchmarks.matching import CollectionMatches
from coam_ros.evaluation.benchmarks.sfm import measure_reconstruction, reconstruct_scene
from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.image_collection import (
    add_collection_arguments,
    ImageCollection,
    most_similar_pairs,
    open_collection,
    read_collection,
)
from coam_ros.evaluation.hloc_export import write_hloc
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.matchers.choice import add_matcher_arguments
from coam_ros.geometry.transforms import make_transform, transform_points
from coam_ros.mapping.colmap_database import reconstruct, write_database
from coam_ros.mapping.shared_keypoints import merge_points, share_keypoints
import h5py
from map_samples import encode
import numpy as np
import pycolmap
import pytest
from rotations import rotation_from_vector

NUM_VIEWS = 5
SIZE = (WIDTH, HEIGHT)


def pair(name0: str, name1: str, points0, points1, scores=None) -> CollectionMatches:
    found = correspondences(np.array(points0), np.array(points1), scores)
    return CollectionMatches((name0, name1), (SIZE, SIZE), found, 0.1, None)


def view_poses() -> list[np.ndarray]:
    """T_camera_world of cameras on an arc that look at the origin's surroundings."""
    return [
        make_transform(rotation_from_vector([0, 0.15 * i, 0.02 * i]), [-0.6 * i, 0.05 * i, 4])
        for i in range(NUM_VIEWS)
    ]


@pytest.fixture
def scene(tmp_path: Path) -> tuple[ImageCollection, list[CollectionMatches]]:
    """Five views of one cloud of points, each pair with points of its own, 0.3 px off."""
    rng = np.random.default_rng(0)
    points_world = rng.uniform((-1.5, -1.2, -1), (1.5, 1.2, 1), (400, 3))
    poses = view_poses()
    names = [f'day/{i}.png' for i in range(NUM_VIEWS)]
    (tmp_path / 'day').mkdir()
    lines, matched = [], []
    for i, name in enumerate(names):
        write_image(tmp_path / name, i)
        for j in range(i):
            lines.append(pair_line(names[j], name, poses[i] @ np.linalg.inv(poses[j])))
            views = []
            for pose in (poses[j], poses[i]):
                pixels = transform_points(pose, points_world) @ INTRINSICS.T
                views.append(pixels[:, :2] / pixels[:, 2:] + rng.uniform(-0.3, 0.3, (400, 2)))
            is_seen = np.all([((v > 0) & (v < SIZE)).all(axis=1) for v in views], axis=0)
            matched.append(pair(names[j], name, *(view[is_seen] for view in views)))
    (tmp_path / 'pairs.txt').write_text(''.join(lines))
    return read_collection(tmp_path), matched


def test_points_within_the_radius_become_one_also_across_cells():
    # 3.99 and 4.01 lie in two cells of 2 px; 9 is far from both.
    points = np.array([[3.99, 5.0], [4.01, 5.0], [9.0, 5.0], [3.99, 5.0]])
    merged, scores, index = merge_points(points, np.array([1, 2, 1, 1]), 2.0)
    assert len(merged) == 2
    assert index[0] == index[1] == index[3] != index[2]
    np.testing.assert_allclose(merged[index[0]], [4.0, 5.0], atol=1e-5)
    assert scores[index[0]] == 4
    # Scores of 0 are weights too.
    assert np.isfinite(merge_points(points, np.zeros(4), 2.0)[0]).all()


def test_points_join_the_nearest_of_those_with_more_score_within_the_radius():
    def groups(xs, scores):
        # In cells of 2 px in a row.
        return merge_points(np.column_stack([xs, np.ones(len(xs))]), scores, 2.0)[2].tolist()

    assert groups([1.0, 2.5, 4.1], [1, 5, 1]) == [0, 0, 0]
    assert groups([0.1, 2.9, 4.0], [5, 1, 5]) == [0, 1, 1]
    assert groups([0.1, 2.9], [1, 1]) == [0, 1]


def test_every_point_is_near_its_key_point_and_key_points_are_apart():
    points = np.random.default_rng(0).uniform(0, 60, (2000, 2))
    merged, _, index = merge_points(points, np.ones(2000), 2.0)
    # A cell's diagonal to its mean, and the radius.
    assert np.linalg.norm(merged[index] - points, axis=1).max() < 2 * np.sqrt(2) + 2
    assert len(np.unique(index)) == len(merged) < 1000


def test_a_place_found_anew_in_every_pair_is_one_key_point():
    matched = [
        pair('a', 'b', [[10, 10], [50, 50]], [[20, 20], [60, 60]]),
        pair('b', 'c', [[20.3, 20.2], [60.2, 60]], [[30, 30], [70, 70]]),
        pair('a', 'c', [[10.2, 9.9]], [[30.1, 30]]),
    ]
    shared = share_keypoints(matched)
    assert {name: len(points) for name, points in shared.keypoints.items()} == dict.fromkeys(
        'abc', 2
    )
    b_of_a = dict(shared.matches['a', 'b'].tolist())
    c_of_b = dict(shared.matches['b', 'c'].tolist())
    ((a, c),) = shared.matches['a', 'c'].tolist()
    assert c_of_b[b_of_a[a]] == c


def test_radius_shrinks_with_the_image():
    # 0.75 px at 640 x 480 are half of that here.
    shared = share_keypoints([pair('a', 'b', [[10, 10], [10.5, 10]], [[20, 20], [20.2, 20]])])
    assert {name: len(points) for name, points in shared.keypoints.items()} == {'a': 2, 'b': 1}
    # The second image is twice as large: there they are one.
    large = replace(
        pair('a', 'b', [[10, 10], [90, 90]], [[20, 20], [20.5, 20]]),
        sizes=(SIZE, (2 * WIDTH, 2 * HEIGHT)),
    )
    shared = share_keypoints([large])
    assert {name: len(points) for name, points in shared.keypoints.items()} == {'a': 2, 'b': 1}


def test_of_matches_that_end_in_one_key_point_the_best_stays():
    near, apart = [[10, 10], [10.2, 10], [5, 5]], [[20, 20], [90, 90], [5, 5]]
    for side, points in enumerate([(apart, near), (near, apart)]):
        shared = share_keypoints([pair('a', 'b', *points, [0.5, 0.9, 0.7])])
        assert len(shared.keypoints['ba'[side]]) == 2
        ends = shared.keypoints['ab'[side]][shared.matches['a', 'b'][:, side]]
        np.testing.assert_allclose(ends, [[90, 90], [5, 5]])
        assert shared.match_scores['a', 'b'] == pytest.approx([0.9, 0.7])


def test_colmap_reads_what_was_written(scene, tmp_path):
    collection, matched = scene
    shared = share_keypoints(matched)
    path = tmp_path / 'out' / 'database.db'
    path.parent.mkdir()
    path.with_name('database.db.part').write_text('of a run that was killed')
    write_database(path, collection.directory, shared, collection.intrinsics)
    assert [file.name for file in path.parent.iterdir()] == ['database.db']
    with pycolmap.Database.open(path) as database:
        images = {image.name: image for image in database.read_all_images()}
        assert set(images) == set(collection.names)
        (camera,) = database.read_all_cameras()
        assert (camera.width, camera.height, camera.model_name) == (*SIZE, 'PINHOLE')
        # The corner of the top-left pixel is COLMAP's origin.
        np.testing.assert_allclose(camera.params, [260, 262, 160, 120])
        for name, image in images.items():
            keypoints = database.read_keypoints(image.image_id)
            np.testing.assert_allclose(keypoints[:, :2], shared.keypoints[name] + 0.5, atol=1e-4)
        for names, matches in shared.matches.items():
            ids = [images[name].image_id for name in names]
            np.testing.assert_array_equal(database.read_matches(*ids), matches)
            verified = database.read_two_view_geometry(*ids).inlier_matches
            assert len(verified) > 0.9 * len(matches)


def test_hloc_reads_what_was_written(scene, tmp_path):
    _, matched = scene
    shared = share_keypoints(matched)
    write_hloc(tmp_path / 'out', shared)
    pairs = [line.split() for line in (tmp_path / 'out/pairs.txt').read_text().splitlines()]
    assert [tuple(names) for names in pairs] == list(shared.matches)
    with (
        h5py.File(tmp_path / 'out/features.h5') as features,
        h5py.File(tmp_path / 'out/matches.h5') as file,
    ):
        for name0, name1 in pairs:
            group = file[f'{name0.replace("/", "-")}/{name1.replace("/", "-")}']
            matches0 = group['matches0'][:]
            assert len(matches0) == len(features[name0]['keypoints'])
            assert matches0.max() < len(features[name1]['keypoints'])
            found = {(i, int(j)) for i, j in enumerate(matches0) if j >= 0}
            assert found == set(map(tuple, shared.matches[name0, name1].tolist()))
            assert ((group['matching_scores0'][:] > 0) == (matches0 >= 0)).all()
            np.testing.assert_array_equal(features[name0]['keypoints'][:], shared.keypoints[name0])


def test_reconstruction_of_a_known_scene_is_right(scene, tmp_path):
    collection, matched = scene
    figures = measure_reconstruction(
        collection, share_keypoints(matched, 1.5), tmp_path / 'sfm', 1
    )
    assert figures['registered_images'] == figures['images'] == NUM_VIEWS
    assert figures['points'] > 300
    assert figures['mean_track_length'] > 4
    assert figures['reprojection_error_px'] < 0.3
    assert figures['median_pose_error_deg'] < 0.2
    assert figures['observations'] == pytest.approx(
        figures['points'] * figures['mean_track_length']
    )
    model = pycolmap.Reconstruction(tmp_path / 'sfm' / 'sparse')
    assert model.num_points3D() == figures['points']
    # Intrinsics of the list are true, to the last digit.
    (camera,) = model.cameras.values()
    np.testing.assert_array_equal(camera.params, [260, 262, 160, 120])


def test_intrinsics_that_are_guessed_are_refined(scene, tmp_path):
    collection, matched = scene
    database, out = tmp_path / 'database.db', tmp_path / 'sparse'
    (out / 'of_a_former_run').mkdir(parents=True)
    write_database(database, collection.directory, share_keypoints(matched, 1.5), {})
    model = reconstruct(database, collection.directory, out, refine_intrinsics=True, num_threads=1)
    assert model.num_reg_images() == NUM_VIEWS
    assert not (out / 'of_a_former_run').exists()
    # COLMAP guesses 1.2 times the width, 384.
    focals_px = [camera.mean_focal_length() for camera in model.cameras.values()]
    assert abs(np.median(focals_px) - 261) < 30


def test_scene_is_reconstructed_from_what_a_matcher_answers(scene, tmp_path):
    collection, matched = scene
    # It gets the images at twice their size, and names places there.
    answers = [
        correspondences(*((x + 0.5) * 2 - 0.5 for x in (pair.found.points0, pair.found.points1)))
        for pair in matched
    ]
    figures = {}
    for radius_px in (0.75, 3.0):
        matcher = CachedMatcher(KnownMatcher(answers))
        outcome = reconstruct_scene('scene', collection, matcher, radius_px, num_threads=1)
        assert outcome['num_matches'] == np.mean([len(pair.found) for pair in matched])
        assert outcome['failure'] is None
        figures[radius_px] = outcome['figures']
    assert figures[3.0]['registered_images'] == NUM_VIEWS
    assert figures[3.0]['median_pose_error_deg'] < 0.2
    # With the narrow radius an image has several key points of a place, and sees it so often.
    assert figures[3.0]['mean_track_length'] < NUM_VIEWS < figures[0.75]['mean_track_length']


def test_matches_that_fit_nothing_reconstruct_nothing(scene, tmp_path):
    collection, _ = scene
    rng = np.random.default_rng(0)
    matched = [
        pair(*names, rng.uniform(0, 200, (30, 2)), rng.uniform(0, 200, (30, 2)))
        for names in collection.pairs
    ]
    former = tmp_path / 'sfm/sparse/0/images.bin'
    former.parent.mkdir(parents=True)
    former.write_text('of a run that went well')
    figures = measure_reconstruction(collection, share_keypoints(matched), tmp_path / 'sfm', 1)
    assert figures['registered_images'] == figures['points'] == 0
    assert former.exists()
    assert np.isnan(figures['mean_track_length'])
    assert figures['auc_5deg'] == 0


def test_without_a_list_each_image_goes_with_its_most_similar_ones():
    angles = np.radians([0, 10, 90, 100])
    descriptors = np.column_stack([np.cos(angles), np.sin(angles)])
    assert most_similar_pairs(descriptors, lambda count: [0]) == [(0, 1), (2, 3)]
    assert len(most_similar_pairs(descriptors, range)) == 6
    # Others that may not be paired are no choice, so they take no place from those that may.
    is_allowed = np.kron(np.eye(2, dtype=bool), np.ones((2, 2), bool))
    counts = []
    found = most_similar_pairs(
        descriptors, lambda count: counts.append(count) or range(count), is_allowed
    )
    assert counts == [1] * 4
    assert found == [(0, 1), (2, 3)]


def test_a_few_images_without_a_list_are_all_paired(tmp_path):
    (tmp_path / 'day').mkdir()
    for number, name in enumerate(('0.png', '1.PNG', 'day/2.png', '0.depth.png')):
        write_image(tmp_path / name, number)
    collection = read_collection(tmp_path)
    assert collection.pairs == [
        ('0.png', '1.PNG'),
        ('0.png', 'day/2.png'),
        ('1.PNG', 'day/2.png'),
    ]
    assert not collection.intrinsics
    with pytest.raises(ValueError, match='0 neighbours'):
        read_collection(tmp_path, num_neighbours=0)


def test_each_image_of_a_posed_list_keeps_its_own_intrinsics(tmp_path):
    for number in range(2):
        write_image(tmp_path / f'{number}.png', number)
    other = INTRINSICS + np.diag([10.0, 20.0, 0.0])
    (tmp_path / 'pairs.txt').write_text(pair_line('0.png', '1.png', np.eye(4), INTRINSICS, other))
    intrinsics = read_collection(tmp_path).intrinsics
    np.testing.assert_array_equal(intrinsics['0.png'], INTRINSICS)
    np.testing.assert_array_equal(intrinsics['1.png'], other)


def test_more_images_than_neighbours_are_paired_by_the_model(tmp_path):
    for number, seed in enumerate((1, 2, 1, 2)):
        write_image(tmp_path / f'{number}.png', seed)
    parser = argparse.ArgumentParser()
    add_collection_arguments(parser)
    add_matcher_arguments(parser)
    words = ['--neighbours', '1']
    assert open_collection(tmp_path, parser.parse_args(words)).pairs == [
        ('0.png', '2.png'),
        ('1.png', '3.png'),
    ]
    # The model is that of the command line.
    words += ['--model', str(tmp_path / 'none')]
    with pytest.raises(FileNotFoundError, match=r'No model: .*none'):
        open_collection(tmp_path, parser.parse_args(words))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('0.png 1.png\n0.png none.png\n', r'line 2: no image .*none\.png'),
        ('0.png\n', 'line 1: got'),
        ('0.png 0.png\n', 'line 1: got'),
        ('# nothing\n', 'No pairs'),
    ],
)
def test_wrong_line_of_a_list_is_named(tmp_path, text, message):
    for number in range(2):
        write_image(tmp_path / f'{number}.png', number)
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(BenchmarkDataError, match=message):
        read_collection(tmp_path, tmp_path / 'list.txt')


def test_pair_named_twice_is_matched_once(tmp_path):
    for number in range(2):
        write_image(tmp_path / f'{number}.png', number)
    (tmp_path / 'list.txt').write_text('0.png 1.png\n1.png 0.png\n')
    assert read_collection(tmp_path, tmp_path / 'list.txt').pairs == [('0.png', '1.png')]


def export(*words: object) -> int:
    return main(['export-colmap', *map(str, words)])


def test_command_writes_all_files(tmp_path, capsys):
    photos = tmp_path / 'photos'
    photos.mkdir()
    for number in range(2):
        write_image(photos / f'{number}.png', 0)
    out = tmp_path / 'out'
    words = ['--matcher', 'sift', '--cache', tmp_path / 'cache']
    assert export(photos, '--out', out, *words) == 0
    assert {path.name for path in out.iterdir()} == {
        'database.db',
        'features.h5',
        'matches.h5',
        'pairs.txt',
    }
    assert '1 pairs of 2 images by opencv' in ' '.join(capsys.readouterr().out.split())
    with pycolmap.Database.open(out / 'database.db') as database:
        # An image with itself: SIFT finds nearly all of its points again.
        assert database.num_matches() > 100
        # Nothing says that the two images are of one camera.
        assert database.num_cameras() == 2
        num_keypoints = database.num_keypoints()
    # It may be a project of COLMAP with work of its own.
    before = (out / 'database.db').stat().st_mtime_ns
    assert export(photos, '--out', out, *words) == 2
    assert 'holds database.db, features.h5, matches.h5, pairs.txt' in capsys.readouterr().err
    assert (out / 'database.db').stat().st_mtime_ns == before
    assert export(photos, '--out', out, *words, '--overwrite', '--merge-radius', 20) == 0
    assert (out / 'database.db').stat().st_mtime_ns > before
    with pycolmap.Database.open(out / 'database.db') as database:
        assert database.num_keypoints() < num_keypoints
    # A reconstruction without anything else is somebody's too.
    (tmp_path / 'other/sparse').mkdir(parents=True)
    assert export(photos, '--out', tmp_path / 'other', *words) == 2
    assert 'holds sparse already' in capsys.readouterr().err


def test_what_a_list_says_of_the_cameras_goes_into_the_database(scene, tmp_path):
    collection, _ = scene
    words = ['--matcher', 'sift', '--cache', tmp_path / 'cache']
    assert export(collection.directory, '--out', tmp_path / 'out', *words) == 0
    with pycolmap.Database.open(tmp_path / 'out' / 'database.db') as database:
        (camera,) = database.read_all_cameras()
        np.testing.assert_allclose(camera.params, [260, 262, 160, 120])
        assert camera.has_prior_focal_length


def test_images_that_show_nothing_in_common_are_an_error_of_the_user(tmp_path, capsys):
    for number in range(3):
        write_image(tmp_path / f'{number}.png', number)
    words = ['--matcher', 'sift', '--cache', tmp_path / 'cache', '--reconstruct']
    assert export(tmp_path, '--out', tmp_path / 'out', *words) == 2
    assert 'COLMAP reconstructs nothing from these matches' in capsys.readouterr().err


def test_reconstruction_that_lacks_most_images_says_so(scene, tmp_path, monkeypatch, capsys):
    collection, matched = scene
    # Two of the five images have no match, so seven of ten listed pairs have no pose.
    nothing = correspondences(np.zeros((0, 2)), np.zeros((0, 2)))
    left = [
        pair if set(pair.names) <= set(collection.names[:3]) else replace(pair, found=nothing)
        for pair in matched
    ]
    monkeypatch.setattr('coam_ros.evaluation.export_colmap.match_collection', lambda *_: left)
    words = ['--matcher', 'sift', '--reconstruct']
    assert export(collection.directory, '--out', tmp_path / 'sfm', *words) == 0
    said = capsys.readouterr().out
    assert 'registered images: 3\n' in said
    assert 'median pose error deg: inf\n' in said


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('{none}', 'No folder'),
        ('{empty}', '0 images in'),
        ('{empty} --pairs {none}', 'No list'),
        ('{empty} --merge-radius 0', '--merge-radius 0'),
        ('{empty} --merge-radius 51', '--merge-radius 51'),
        ('{empty} --merge-radius inf', '--merge-radius inf'),
        ('{spaced}', 'names with spaces'),
        ('{flat}', "called 'a-b.jpg'"),
        ('{empty} --matcher sift --matcher ours', '2 matchers'),
    ],
)
def test_error_of_the_user_is_one_line_and_status_2(tmp_path, capsys, words, message):
    (tmp_path / 'empty').mkdir()
    places = {name: tmp_path / name for name in ('none', 'empty', 'spaced', 'flat')}
    for name in ('spaced/my photo.jpg', 'spaced/x.jpg', 'flat/a/b.jpg', 'flat/a-b.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(np.zeros((48, 64, 3), np.uint8), '.jpg'))
    assert export(*words.format(**places).split(), '--out', tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_bench_reports_one_outcome_a_scene(tmp_path):
    scene = tmp_path / 'scene'
    scene.mkdir()
    for number in range(3):
        write_image(scene / f'{number}.png', number // 2)
    out = tmp_path / 'report.json'
    words = ['--matcher', 'sift', '--cache', tmp_path / 'cache', '--models', tmp_path / 'models']
    assert main(['bench', 'sfm', *map(str, [scene, *words, '--out', out])]) == 0
    (result,) = json.loads(out.read_text())['results']
    assert (result['data_set'], result['summary']['images']) == ('scene', 3)
    # Two are one image, the third is another: no two views of anything.
    assert result['summary']['registered_images'] == 0
    assert result['summary']['mean_track_length'] is None
    assert len(list((tmp_path / 'models/scene').glob('*/database.db'))) == 1
