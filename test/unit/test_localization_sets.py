"""Layouts of localization data sets, from files as published to keyframes and queries."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import shutil

from coam_ros.cli import main
from coam_ros.evaluation.benchmarks.localization import (
    build_localization_map,
    localize_queries,
    summarise_queries,
    triangulate_map,
)
from coam_ros.evaluation.benchmarks.oracle_retrieval import OracleRetriever, shared_view
from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.localization_sets import (
    each,
    every_nth,
    LocalizationSet,
    open_localization_set,
)
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.geometry.transforms import (
    invert,
    make_transform,
    quaternion_xyzw_from_rotation,
    transform_points,
)
from coam_ros.mapping.importers.colmap import read_colmap_model
from coam_ros.mapping.importers.sfm_model import (
    colmap_camera,
    read_query_cameras,
    SfmModelError,
)
from coam_ros.matching import CoamMatcher
from map_samples import make_keyframe
import numpy as np
import pytest
from recording_samples import DEPTH_M, FOCAL, HEIGHT, wall_image, WIDTH, write_view
from rotations import rotation_from_vector

POSITIONS_M = (-0.4, -0.02, 0.4, 0.1)
# Maps lie anyhow to what they show.
T_MAP_WALL = make_transform(rotation_from_vector([0.3, -0.8, 0.4]), [1, -2, 0.5])


def write_views(directory: Path, suffix: str = '') -> None:
    """Write the four views of the wall, frames 0 to 3."""
    directory.mkdir(parents=True, exist_ok=True)
    wall = wall_image()
    for number, x_m in enumerate(POSITIONS_M):
        write_view(directory, number, x_m, wall)
    for path in directory.glob('frame-*') if suffix else ():
        if path.suffix == '.jpg':
            path.rename(directory / f'{path.name.split(".")[0]}{suffix}')
        else:
            path.unlink()


def wall_points(step_px: int = 5) -> np.ndarray:
    """(N, 3) points of the wall that the views see."""
    xs = np.arange(-1.5, 1.5, step_px * DEPTH_M / FOCAL)
    ys = np.arange(-0.8, 0.8, step_px * DEPTH_M / FOCAL)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    return transform_points(T_MAP_WALL, np.column_stack([grid, np.full(len(grid), DEPTH_M)]))


def poses() -> list[np.ndarray]:
    """T_map_camera of the views."""
    all_poses = np.tile(np.eye(4), (len(POSITIONS_M), 1, 1))
    all_poses[:, 0, 3] = POSITIONS_M
    return list(T_MAP_WALL @ all_poses)


def pose_words(T_camera_map: np.ndarray) -> str:
    """Write a pose as COLMAP does: qw qx qy qz tx ty tz."""
    x, y, z, w = quaternion_xyzw_from_rotation(T_camera_map[:3, :3])
    return ' '.join(map(str, [w, x, y, z, *T_camera_map[:3, 3]]))


def observations(points: np.ndarray) -> list[list[tuple[float, float, int]]]:
    """For each view the x, y from the centre of the image, and the number of each point seen."""
    seen = []
    for T_map_camera in poses():
        x, y, z = transform_points(invert(T_map_camera), points).T
        x, y = FOCAL * x / z, FOCAL * y / z
        inside = np.flatnonzero((abs(x) < WIDTH / 2) & (abs(y) < HEIGHT / 2))
        seen.append([(x[i], y[i], int(i)) for i in inside])
    return seen


def write_colmap(directory: Path, camera: str | None = None) -> None:
    """Write a text model of the four views, the last of which is the query."""
    write_views(directory / 'images', '.jpg')
    model = directory / 'sparse' / '0'
    model.mkdir(parents=True)
    points = wall_points()
    camera = camera or f'SIMPLE_PINHOLE {WIDTH} {HEIGHT} {FOCAL} {WIDTH / 2} {HEIGHT / 2}'
    (model / 'cameras.txt').write_text(f'1 {camera}\n')
    lines, tracks = [], [[] for _ in points]
    for number, (T_map_camera, seen) in enumerate(zip(poses(), observations(points), strict=True)):
        pose = pose_words(invert(T_map_camera))
        lines.append(f'{number + 1} {pose} 1 frame-{number:06d}.jpg')
        lines.append(
            ' '.join(f'{u + WIDTH / 2} {v + HEIGHT / 2} {place + 1}' for u, v, place in seen)
        )
        for index, (_, _, place) in enumerate(seen):
            tracks[place] += [number + 1, index]
    (model / 'images.txt').write_text('\n'.join(lines) + '\n')
    (model / 'points3D.txt').write_text(
        ''.join(
            ' '.join(map(str, [place + 1, *point, 0, 0, 0, 0, *track])) + '\n'
            for place, (point, track) in enumerate(zip(points, tracks, strict=True))
            if track
        )
    )
    (directory / 'list_query.txt').write_text('frame-000003.jpg\n')


def write_cambridge(directory: Path) -> None:
    """Write the lists and the model; its names end with .jpg, the lists' with .png."""
    write_views(directory / 'seq1', '.png')
    points = wall_points()
    lines = ['NVM_V3', '', '4']
    heading = 'Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n'
    entries = []
    for number, T_map_camera in enumerate(poses()):
        x, y, z, w = quaternion_xyzw_from_rotation(T_map_camera[:3, :3].T)
        centre = ' '.join(map(str, T_map_camera[:3, 3]))
        name = f'seq1/frame-{number:06d}'
        lines.append(f'{name}.jpg\t{FOCAL} {w} {x} {y} {z} {centre} 0 0')
        entries.append(f'{name}.png {centre} {w} {x} {y} {z}\n')
    measurements = [[] for _ in points]
    for number, seen in enumerate(observations(points)):
        for x, y, place in seen:
            measurements[place].append(f'{number} 0 {x} {y}')
    lines += ['', str(len(points))]
    for point, seen in zip(points, measurements, strict=True):
        lines.append(' '.join([*map(str, point), '0 0 0', str(len(seen)), *seen]))
    (directory / 'reconstruction.nvm').write_text('\n'.join(lines) + '\n0\n')
    (directory / 'dataset_train.txt').write_text(heading + ''.join(entries[:3]))
    (directory / 'dataset_test.txt').write_text(heading + entries[3])


def write_tum(directory: Path) -> Path:
    directory = directory / 'rgbd_dataset_freiburg3_wall'
    write_views(directory / 'rgb')
    names, truth = [], []
    (directory / 'depth').mkdir()
    for number, T_map_camera in enumerate(poses()):
        names.append(f'{number}.0 rgb/frame-{number:06d}.color.jpg')
        (directory / f'rgb/frame-{number:06d}.depth.png').rename(directory / f'depth/{number}.png')
        quaternion = quaternion_xyzw_from_rotation(T_map_camera[:3, :3])
        pose = ' '.join(map(str, [*T_map_camera[:3, 3], *quaternion]))
        truth.append(f'{number}.001 {pose}')
    (directory / 'rgb.txt').write_text('\n'.join(names))
    (directory / 'depth.txt').write_text('\n'.join(f'{n}.002 depth/{n}.png' for n in range(4)))
    (directory / 'groundtruth.txt').write_text('\n'.join(truth))
    words = [name.split()[1] for name in names]
    (directory / 'map.txt').write_text('\n'.join(words[:3]))
    (directory / 'query.txt').write_text(words[3])
    return directory


def write_seven_scenes(directory: Path) -> None:
    write_views(directory / 'seq-01')
    write_views(directory / 'seq-03')
    (directory / 'TrainSplit.txt').write_text('sequence1\n')
    (directory / 'TestSplit.txt').write_text('sequence3\n')


def localize(directory: Path, *, triangulates: bool = False, **options) -> dict[str, object]:
    matcher = CoamMatcher.load()
    data = open_localization_set(directory)
    keyframe_map = build_localization_map(data, matcher, needs_3d=not triangulates)
    if triangulates:
        keyframe_map, _ = triangulate_map(keyframe_map, CachedMatcher(matcher))
    if options.pop('oracle', False):
        options['oracle'] = OracleRetriever(keyframe_map)
    outcomes = localize_queries(
        data.queries, keyframe_map, CachedMatcher(matcher), matcher, 2, **options
    )
    return {'outcomes': (kept := list(outcomes)), **summarise_queries(kept)}


def test_query_is_localized_by_the_landmarks_of_a_colmap_model(tmp_path):
    write_colmap(tmp_path)
    found = localize(tmp_path, thresholds=[(0.05, 1.0), (1e-6, 1e-6)], oracle=True)
    assert found['recall_5cm_1deg'] == 1
    assert found['recall_0.0001cm_1e-06deg'] == 0
    assert found['median_error_cm'] < 5
    # The query at 0.1 lies between those at -0.02 and at 0.4.
    assert set(found['outcomes'][0]['keyframe_ids']) == {1, 2}


def test_query_is_localized_by_what_the_matches_of_the_map_images_tell(tmp_path):
    write_colmap(tmp_path)
    model = tmp_path / 'sparse' / '0'
    (model / 'points3D.txt').write_text('')
    lines = (model / 'images.txt').read_text().splitlines()
    # A line for the pose, then an empty one for the points.
    (model / 'images.txt').write_text(''.join(f'{line}\n\n' for line in lines[::2]))
    with pytest.raises(BenchmarkDataError, match='--triangulate'):
        localize(tmp_path)
    found = localize(tmp_path, triangulates=True, thresholds=[(0.05, 1.0)])
    assert found['recall_5cm_1deg'] == 1


def test_each_matcher_gets_the_map_that_its_own_matches_tell(tmp_path):
    write_cambridge(tmp_path / 'scene')
    report = tmp_path / 'run.json'
    words = ['bench', 'localize', str(tmp_path / 'scene'), '--triangulate', '--matcher', 'sift']
    assert main([*words, '--cache', str(tmp_path / 'cache'), '--out', str(report)]) == 0
    run = json.loads(report.read_text())
    assert run['settings']['triangulate'] is True
    (result,) = run['results']
    assert result['summary']['recall_10cm_5deg'] == 1
    # Three pairs of map images, and the query with each of the three.
    assert len(list((tmp_path / 'cache').rglob('*.npz'))) == 3 + 3


@pytest.mark.parametrize('write', [write_colmap, write_cambridge])
def test_lists_as_windows_writes_them_are_read(tmp_path, write):
    write(tmp_path)
    queries = open_localization_set(tmp_path).queries.names
    for path in [*tmp_path.glob('list_*.txt'), *tmp_path.glob('dataset_*.txt')]:
        path.write_text(path.read_text(), encoding='utf-8-sig', newline='\r\n')
    assert open_localization_set(tmp_path).queries.names == queries


def test_query_is_localized_by_the_landmarks_of_a_cambridge_scene(tmp_path):
    write_cambridge(tmp_path)
    found = localize(tmp_path)
    assert found['recall_10cm_5deg'] == 1
    assert found['outcomes'][0]['name'] == 'seq1/frame-000003.png'


def test_images_of_another_size_than_the_model_are_fine(tmp_path):
    focal = f'{FOCAL / 2} {FOCAL / 2 + 5}'
    half = f'PINHOLE {WIDTH // 2} {HEIGHT // 2} {focal} {WIDTH / 4} {HEIGHT / 4}'
    write_colmap(tmp_path, half)
    data = open_localization_set(tmp_path)
    camera = data.queries[0].camera
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    assert (camera.fx, camera.fy) == (FOCAL, FOCAL + 10)
    assert (camera.cx, camera.cy) == ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    # Landmarks are at twice the pixels of the model.
    keyframe = data.keyframes[0]
    pixel = keyframe.landmark_pixels[0]
    np.testing.assert_allclose(
        pixel,
        2 * (observations(wall_points())[0][0][:2] + np.array([WIDTH, HEIGHT]) / 2) - 0.5,
        atol=1e-3,
    )


def test_images_of_another_aspect_than_the_model_are_refused(tmp_path):
    # A row more or less comes from rounding.
    write_colmap(tmp_path / 'rounded', f'SIMPLE_PINHOLE {WIDTH} {HEIGHT + 1} {FOCAL} 224 168')
    assert open_localization_set(tmp_path / 'rounded').queries[0].camera.height == HEIGHT
    write_colmap(tmp_path, f'SIMPLE_PINHOLE {WIDTH} {HEIGHT + 3} {FOCAL} 224 168')
    with pytest.raises(SfmModelError, match=r'frame-000003\.jpg: image of 448 x 336 .*448 x 339'):
        open_localization_set(tmp_path).queries[0]


def test_landmarks_project_to_their_pixels(tmp_path):
    write_colmap(tmp_path / 'colmap')
    write_cambridge(tmp_path / 'cambridge')
    seen = observations(wall_points())
    for name in ('colmap', 'cambridge'):
        for keyframe in each(open_localization_set(tmp_path / name).keyframes):
            points = transform_points(invert(keyframe.T_map_camera), keyframe.landmark_points_map)
            projected = keyframe.camera.project(points)
            np.testing.assert_allclose(projected, keyframe.landmark_pixels, atol=1e-2)
            assert len(points) == len(seen[keyframe.id])


def test_a_point_has_one_id_in_all_images_that_see_it(tmp_path):
    write_colmap(tmp_path)
    images = read_colmap_model(tmp_path / 'sparse/0').values()
    ids = np.concatenate([image.landmark_ids for image in images])
    points = np.concatenate([image.landmark_points_map for image in images])
    number = len(np.unique(points, axis=0))
    assert number < len(points)
    assert len(np.unique(ids)) == number
    assert len(np.unique(np.column_stack([ids, points]), axis=0)) == number


def test_true_poses_of_queries_may_lie_in_a_model_of_their_own(tmp_path):
    write_colmap(tmp_path)
    shutil.copytree(tmp_path / 'sparse/0', tmp_path / 'empty_all')
    (tmp_path / 'list_query.txt').rename(tmp_path / 'query.txt')
    lines = (tmp_path / 'sparse/0/images.txt').read_text().splitlines()
    (tmp_path / 'sparse/0/images.txt').write_text('\n'.join(lines[:6]) + '\n')
    (tmp_path / 'sparse/0/points3D.txt').write_text('')
    (tmp_path / 'sparse/0/images.txt').write_text(
        '\n'.join(line if i % 2 == 0 else '' for i, line in enumerate(lines[:6])) + '\n'
    )
    data = open_localization_set(tmp_path)
    assert data.queries.names == ['frame-000003.jpg']
    np.testing.assert_allclose(data.queries[0].T_map_camera, poses()[3], atol=1e-9)
    assert len(data.keyframes) == 3


def test_tum_recording_is_split_by_its_lists(tmp_path):
    directory = write_tum(tmp_path)
    data = open_localization_set(directory)
    assert data.queries.names == ['rgb/frame-000003.color.jpg']
    assert [keyframe.id for keyframe in each(data.keyframes)] == [0, 1, 2]
    query = data.queries[0]
    np.testing.assert_allclose(query.T_map_camera, poses()[3], atol=1e-9)
    # The images of the test count millimetres, TUM 5,000 a metre.
    assert query.decode_depth_m()[5, 5] == pytest.approx(1000 * DEPTH_M / 5000)


def test_seven_scenes_as_published_is_split_by_sequences(tmp_path):
    write_seven_scenes(tmp_path)
    (tmp_path / 'TrainSplit.txt').write_text('sequence1\nsequence3\n')
    data = open_localization_set(tmp_path)
    assert data.keyframes.names[0] == 'seq-01/frame-000000'
    assert data.queries.names[-1] == 'seq-03/frame-000003'
    assert data.keyframes[2].camera.K.tolist() == [[525, 0, 320], [0, 525, 240], [0, 0, 1]]
    assert [keyframe.id for keyframe in each(data.keyframes)] == list(range(8))
    third = every_nth(data.keyframes, 3).names
    assert third == ['seq-01/frame-000000', 'seq-01/frame-000003', 'seq-03/frame-000002']


def test_hash_follows_the_content(tmp_path):
    write_colmap(tmp_path)
    hashes = [open_localization_set(tmp_path).hash()]
    assert open_localization_set(tmp_path).hash() == hashes[0]
    (tmp_path / 'images/frame-000000.jpg').write_bytes(
        (tmp_path / 'images/frame-000001.jpg').read_bytes()
    )
    hashes.append(open_localization_set(tmp_path).hash())
    model = tmp_path / 'sparse/0/images.txt'
    first, second = (pose_words(invert(pose)) for pose in poses()[:2])
    model.write_text(model.read_text().replace(first, second))
    hashes.append(open_localization_set(tmp_path).hash())
    assert len(set(hashes)) == 3


def test_hash_follows_all_that_a_frame_holds():
    whole = make_keyframe(landmark_pixels=np.ones((1, 2)), landmark_points_map=np.ones((1, 3)))
    changes = {
        'depth': None,
        'depth_scale_m': 0.0002,
        'camera': replace(whole.camera, fx=61.0),
        'landmark_pixels': np.zeros((1, 2)),
        'landmark_points_map': np.zeros((1, 3)),
    }
    frames = [whole, *(replace(whole, **{name: value}) for name, value in changes.items())]
    hashes = {LocalizationSet('known', [frame], [whole]).hash() for frame in frames}
    hashes |= {LocalizationSet('known', [whole], [frame]).hash() for frame in frames}
    assert len(hashes) == 1 + 2 * len(changes)


def test_queries_come_in_the_order_of_their_list_and_know_no_landmarks(tmp_path):
    write_colmap(tmp_path)
    (tmp_path / 'list_query.txt').write_text('frame-000003.jpg\nframe-000001.jpg\n')
    queries = open_localization_set(tmp_path).queries
    for query, number in zip(each(queries), (3, 1), strict=True):
        np.testing.assert_allclose(query.T_map_camera, poses()[number], atol=1e-9)
        assert query.landmark_pixels is None


def test_a_query_without_a_pose_counts_as_lost():
    outcomes = [
        {
            'translation_error_m': error,
            'rotation_error_deg': error,
            'is_within': {'recall': error is not None},
        }
        for error in (0.02, 0.04, None, None, 0.03)
    ]
    wanted = {'recall': 0.6, 'median_error_cm': 4, 'median_error_deg': 0.04}
    assert summarise_queries(outcomes) == pytest.approx(wanted)


def test_oracle_prefers_the_nearest_view(tmp_path):
    write_colmap(tmp_path)
    data = open_localization_set(tmp_path)
    retriever = OracleRetriever(each(data.keyframes))
    assert [keyframe.id for keyframe in retriever.retrieve(data.queries[0], 3)] == [1, 2, 0]


def test_what_two_views_share_shrinks_with_the_angle_and_the_distance_between_them(tmp_path):
    write_colmap(tmp_path)
    keyframe = open_localization_set(tmp_path).keyframes[0]
    points_map = keyframe.landmark_points_map

    def share(T_keyframe_query):
        query = replace(keyframe, T_map_camera=keyframe.T_map_camera @ T_keyframe_query)
        return shared_view(keyframe, points_map, query)

    to_wall, back = (make_transform(np.eye(3), [0, 0, z]) for z in (DEPTH_M, -DEPTH_M))
    turn = make_transform(rotation_from_vector([0, np.radians(60), 0]), [0, 0, 0])
    assert share(np.eye(4)) == pytest.approx(1)
    assert share(back) == pytest.approx(0.5, abs=0.1)
    assert share(to_wall @ turn @ back) == pytest.approx(0.5, abs=0.1)


def test_map_without_depth_is_refused(tmp_path):
    write_views(tmp_path)
    for path in tmp_path.glob('*.depth.png'):
        path.unlink()
    (tmp_path / 'intrinsics.txt').write_text('400 0 223.5\n0 400 167.5\n0 0 1\n')
    (tmp_path / 'map.txt').write_text('frame-000000\nframe-000001\n')
    (tmp_path / 'query.txt').write_text('frame-000003\n')
    data = open_localization_set(tmp_path)
    with pytest.raises(BenchmarkDataError, match='none of the 2 map images has depth'):
        build_localization_map(data, CoamMatcher.load())


def test_map_with_a_pose_that_is_not_rigid_is_refused(tmp_path):
    write_views(tmp_path)
    np.savetxt(tmp_path / 'frame-000001.pose.txt', np.diag([1, 2, 1, 1]))
    (tmp_path / 'intrinsics.txt').write_text('400 0 223.5\n0 400 167.5\n0 0 1\n')
    (tmp_path / 'map.txt').write_text('frame-000000\nframe-000001\n')
    (tmp_path / 'query.txt').write_text('frame-000003\n')
    data = open_localization_set(tmp_path)
    with pytest.raises(ValueError, match=r'frame-000001.pose.txt.*not a rigid'):
        build_localization_map(data, CoamMatcher.load())


@pytest.mark.parametrize(
    ('layout', 'name', 'content', 'words'),
    [
        (write_colmap, 'list_query.txt', 'none.jpg\n', r'names none\.jpg'),
        (write_colmap, 'list_query.txt', '# none\n', 'No images to read'),
        (write_colmap, 'list_query.txt', None, 'No list of queries'),
        (write_colmap, 'images/frame-000001.jpg', None, r'has no frame-000001\.jpg'),
        (write_colmap, 'sparse/0/images.txt', None, 'none of the layouts'),
        (write_colmap, 'sparse/0/points3D.txt', '', r'sees point \d+, which'),
        (write_colmap, 'sparse/0/cameras.txt', '1 FOV 448 336 400 400 224 168 0.1\n', 'FOV'),
        (write_cambridge, 'reconstruction.nvm', 'NVM_V3\n\n4\nseq1/a.jpg 400 1', 'not a whole'),
        (write_cambridge, 'reconstruction.nvm', 'PLY\n', 'NVM_V3'),
        (write_cambridge, 'reconstruction.nvm', 'NVM_V3_R9T\n', 'got NVM_V3_R9T'),
        (write_cambridge, 'seq1/frame-000003.png', None, r'frame-000003\.png.*not there'),
        (write_cambridge, 'dataset_test.txt', 'a\nb\nc\nx.png 1 2 3\n', 'line 4'),
        (write_cambridge, 'dataset_test.txt', None, r'dataset_test\.txt'),
        (write_seven_scenes, 'TestSplit.txt', 'seq three\n', 'sequence1'),
        (write_seven_scenes, 'TestSplit.txt', 'sequence9\n', 'seq-09'),
    ],
)
def test_error_names_the_file(tmp_path, layout, name, content, words):
    layout(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        open_localization_set(tmp_path)


def test_lists_of_the_current_directory_are_of_something_else(tmp_path, monkeypatch):
    write_views(tmp_path / 'here')
    write_views(tmp_path / 'there')
    np.savetxt(tmp_path / 'there/intrinsics.txt', np.diag([FOCAL, FOCAL, 1]))
    (tmp_path / 'there/map.txt').write_text('frame-000000\n')
    (tmp_path / 'here/query.txt').write_text('frame-000001\n')
    monkeypatch.chdir(tmp_path / 'here')
    with pytest.raises(FileNotFoundError, match=r'No list .*there/query\.txt'):
        open_localization_set(tmp_path / 'there')


def test_list_of_a_tum_recording_that_names_an_image_without_a_pose_is_refused(tmp_path):
    directory = write_tum(tmp_path)
    truth = directory / 'groundtruth.txt'
    truth.write_text('\n'.join(truth.read_text().splitlines()[:3]))
    with pytest.raises(BenchmarkDataError, match='none of the 3 images with a pose'):
        open_localization_set(directory)


@pytest.mark.parametrize('name', ['map.txt', 'query.txt'])
@pytest.mark.parametrize(
    ('content', 'words'),
    [('rgb/9.jpg\n', r'{name} names rgb/9\.jpg'), ('# none\n', 'at least one of each')],
)
def test_list_of_a_tum_recording_that_names_nothing_is_refused(tmp_path, name, content, words):
    directory = write_tum(tmp_path)
    (directory / name).write_text(content)
    with pytest.raises(BenchmarkDataError, match=words.format(name=name)):
        open_localization_set(directory)


def test_folder_without_a_layout_is_refused_with_all_of_them(tmp_path):
    with pytest.raises(BenchmarkDataError, match=r'7-Scenes.*TUM.*Cambridge.*COLMAP'):
        open_localization_set(tmp_path)
    with pytest.raises(FileNotFoundError, match='No folder'):
        open_localization_set(tmp_path / 'none')


@pytest.mark.parametrize(
    ('model', 'params', 'distortion', 'kind'),
    [
        ('SIMPLE_RADIAL', [400, 224, 168, 0.1], (0.1, 0, 0, 0), 'plumb_bob'),
        ('RADIAL', [400, 224, 168, 0.1, -0.2], (0.1, -0.2, 0, 0), 'plumb_bob'),
        ('SIMPLE_RADIAL_FISHEYE', [400, 224, 168, 0.1], (0.1, 0, 0, 0), 'equidistant'),
        ('OPENCV', [400, 401, 224, 168, 1, 2, 3, 4], (1, 2, 3, 4), 'plumb_bob'),
        ('OPENCV_FISHEYE', [400, 401, 224, 168, 1, 2, 3, 4], (1, 2, 3, 4), 'equidistant'),
        (
            'FULL_OPENCV',
            [400, 401, 224, 168, *range(1, 9)],
            tuple(range(1, 9)),
            'rational_polynomial',
        ),
    ],
)
def test_camera_models_of_colmap_have_counterparts(model, params, distortion, kind):
    camera = colmap_camera(model, 448, 336, params)
    assert (camera.cx, camera.cy) == (223.5, 167.5)
    assert (camera.distortion, camera.distortion_model) == (distortion, kind)
    assert camera.fx == 400


def test_query_lists_with_intrinsics_are_read(tmp_path):
    path = tmp_path / 'queries.txt'
    path.write_text(
        '# by night\nquery/night/a.jpg SIMPLE_RADIAL 1600 1200 1469.2 800 600 -0.0353\n'
    )
    camera = read_query_cameras(path)['query/night/a.jpg']
    assert (camera.width, camera.fy, camera.cx) == (1600, 1469.2, 799.5)
    path.write_text('a.jpg SIMPLE_RADIAL 1600 1200 1469.2\n')
    with pytest.raises(SfmModelError, match='line 1'):
        read_query_cameras(path)
