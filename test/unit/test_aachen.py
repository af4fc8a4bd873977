"""Aachen's layout from files to a submission and its score."""

from __future__ import annotations

import json
from pathlib import Path

from coam_ros.cli import main
from coam_ros.evaluation.data.aachen import open_aachen
from coam_ros.geometry.transforms import invert, make_transform
from coam_ros.inference import default_model_directory
from coam_ros.inference.manifest import Manifest
import numpy as np
import pytest
from recording_samples import FOCAL, HEIGHT, WIDTH
from test_localization_sets import pose_words, poses, write_cambridge, write_colmap

CAMERA = f'SIMPLE_PINHOLE {WIDTH} {HEIGHT} {FOCAL} {WIDTH / 2} {HEIGHT / 2}'
# T_camera_map of the query.
TRUE_POSE = pose_words(invert(poses()[3]))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three map images; one image that is a query by day and, under another name, by night."""
    source, directory = tmp_path / 'source', tmp_path / 'aachen'
    write_colmap(source)
    query = (source / 'images/frame-000003.jpg').read_bytes()
    for condition in ('day', 'night'):
        folder = directory / 'images_upright/query' / condition
        folder.mkdir(parents=True)
        (folder / f'{condition}.jpg').write_bytes(query)
        path = directory / f'queries/{condition}_time_queries_with_intrinsics.txt'
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'query/{condition}/{condition}.jpg {CAMERA}\n')
    (directory / 'images_upright/db').mkdir()
    for number in range(3):
        name = f'frame-{number:06d}.jpg'
        (source / f'images/{name}').rename(directory / f'images_upright/db/{name}')
    model = directory / '3D-models/aachen_v_1_1'
    model.parent.mkdir()
    (source / 'sparse/0').rename(model)
    lines = (model / 'images.txt').read_text().replace(' frame-', ' db/frame-').splitlines()
    # Without the query, and its observations in the points.
    (model / 'images.txt').write_text('\n'.join(lines[:6]) + '\n')
    points = []
    for line in (model / 'points3D.txt').read_text().splitlines():
        words = line.split()
        track = zip(words[8::2], words[9::2], strict=True)
        kept = [word for pair in track if pair[0] != '4' for word in pair]
        points += [' '.join(words[:8] + kept) + '\n'] if kept else []
    ids = {line.split()[0] for line in points}
    (model / 'points3D.txt').write_text(''.join(points))
    assert {word for line in lines[1:6:2] for word in line.split()[2::3]} <= ids
    return directory


def bench(directory: Path, *words: object) -> dict[str, object]:
    out = directory.parent / 'report.json'
    words = [directory, *words, '--num-keyframes', 2, '--out', out]
    folders = ['--cache', directory.parent / 'cache', '--submissions', directory.parent / 'sent']
    assert main(['bench', 'aachen', *map(str, [*words, *folders])]) == 0
    return json.loads(out.read_text())['results'][0]


def test_submission_holds_the_poses_and_is_scored_by_day_and_by_night(directory):
    truth = directory.parent / 'truth.txt'
    # By night 1 m off.
    wrong = pose_words(make_transform(np.eye(3), [1, 0, 0]) @ invert(poses()[3]))
    truth.write_text(f'day.jpg {TRUE_POSE}\nnight.jpg {wrong}\n')
    result = bench(directory, '--truth', truth)
    summary = result['summary']
    assert summary['share_with_pose'] == 1
    assert summary['day_recall_25cm_2deg'] == 1
    assert summary['night_recall_50cm_5deg'] == 0
    assert summary['night_recall_500cm_10deg'] == 1
    (path,) = (directory.parent / 'sent').iterdir()
    # The id of a model ends with the backend that ran it; a file name goes without spaces. Then
    # comes what retrieved.
    retrieval = Manifest.load(default_model_directory()).descriptor_model_id
    name = f'aachen_{result["model_id"].replace(" ", "-")}_K2_{retrieval}'
    assert path.name == f'{name}.txt'
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [line[0] for line in lines] == ['day.jpg', 'night.jpg']
    for line in lines:
        np.testing.assert_allclose(
            np.array(line[1:], float), np.array(TRUE_POSE.split(), float), atol=0.05
        )


def test_a_triangulated_map_has_a_submission_of_its_own(directory):
    truth = directory.parent / 'truth.txt'
    truth.write_text(f'day.jpg {TRUE_POSE}\nnight.jpg {TRUE_POSE}\n')
    bench(directory, '--truth', truth)
    summary = bench(directory, '--truth', truth, '--triangulate')['summary']
    assert summary['day_recall_25cm_2deg'] == summary['night_recall_25cm_2deg'] == 1
    names = [path.stem for path in (directory.parent / 'sent').iterdir()]
    assert sorted('_K2_triangulated' in name for name in names) == [False, True]


def test_a_quick_look_leaves_a_whole_submission_alone(directory):
    for words in ([], ['--every', 2]):
        bench(directory, *words)
    sent = {path.stem: path.read_text() for path in (directory.parent / 'sent').iterdir()}
    assert sorted(name.endswith('_every2') for name in sent) == [False, True]
    assert sorted(len(text.splitlines()) for text in sent.values()) == [1, 2]


def test_query_without_a_pose_takes_that_of_the_first_retrieved_image(directory, caplog):
    pairs = directory.parent / 'pairs.txt'
    # Two are taken; of them the second is more alike.
    pairs.write_text(''.join(f'query/day/day.jpg db/frame-{i:06d}.jpg\n' for i in (0, 2, 1)))
    noise = directory / 'images_upright/db/frame-000002.jpg'
    night = directory / 'images_upright/query/night/night.jpg'
    noise.write_bytes(night.read_bytes())
    # Without landmarks nothing of both has a place.
    model = directory / '3D-models/aachen_v_1_1'
    lines = (model / 'images.txt').read_text().splitlines()
    (model / 'images.txt').write_text('\n'.join([lines[0], '', *lines[2:5], '']) + '\n')
    points = [
        ' '.join(
            line.split()[:8]
            + [
                word
                for pair in zip(line.split()[8::2], line.split()[9::2], strict=True)
                if pair[0] == '2'
                for word in pair
            ]
        )
        for line in (model / 'points3D.txt').read_text().splitlines()
    ]
    (model / 'points3D.txt').write_text('\n'.join(points) + '\n')
    truth = directory.parent / 'truth.txt'
    truth.write_text(f'night.jpg {TRUE_POSE}\n')
    result = bench(directory, '--pairs', pairs, '--truth', truth)
    assert f'{pairs} names no map image for 1 of 2 queries, such as query/night' in caplog.text
    assert result['summary']['share_with_pose'] == 0
    assert result['summary']['night_recall_500cm_10deg'] == 0
    assert result['per_pair'][0]['keyframe_ids'] == [2, 0]
    (path,) = (directory.parent / 'sent').iterdir()
    # By night nothing was retrieved: there is nothing to send.
    (line,) = path.read_text().splitlines()
    wanted = pose_words(invert(poses()[0])).split()
    np.testing.assert_allclose(np.array(line.split()[1:], float), np.array(wanted, float))


def test_version_1_comes_as_a_model_of_visualsfm(directory, tmp_path):
    write_cambridge(tmp_path / 'cambridge')
    models = directory / '3D-models'
    (models / 'aachen_cvpr2018_db.nvm').write_text('of version 1, which nobody reads then')
    assert len(open_aachen(directory).data.keyframes) == 3
    (models / 'aachen_v_1_1/images.txt').unlink()
    text = (tmp_path / 'cambridge/reconstruction.nvm').read_text()
    (models / 'aachen_cvpr2018_db.nvm').write_text(text.replace('seq1/', './db/'))
    names = [f'db/frame-{number:06d}.jpg' for number in range(3)]
    (models / 'database_intrinsics.txt').write_text(
        ''.join(f'{name} {CAMERA}\n' for name in names)
    )
    (directory / 'images').mkdir()
    (directory / 'images_upright').rename(directory / 'images/images_upright')
    keyframes = open_aachen(directory).data.keyframes
    assert keyframes.names == names
    np.testing.assert_allclose(keyframes[2].T_map_camera, poses()[2], atol=1e-9)


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('queries/night_time_queries_with_intrinsics.txt', None, 'No list'),
        ('queries/night_time_queries_with_intrinsics.txt', f'query/x.jpg {CAMERA}', 'no query/x'),
        ('queries/night_time_queries_with_intrinsics.txt', 'query/x.jpg 400\n', 'line 1'),
        (
            'queries/night_time_queries_with_intrinsics.txt',
            f'query/other/day.jpg {CAMERA}\n',
            r'several queries are called day\.jpg',
        ),
        ('3D-models/aachen_v_1_1/images.txt', None, 'No model in'),
        ('images_upright/db/frame-000001.jpg', None, 'no db/frame-000001'),
        ('truth.txt', 'x.jpg 1 0 0 0 0 0 0\n', 'line 1: x.jpg is no query'),
        ('truth.txt', 'day.jpg 1 0 0\n', 'line 1'),
        ('pairs.txt', 'query/day/day.jpg db/none.jpg\n', 'line 1'),
        ('pairs.txt', '# none\n', 'No pairs'),
    ],
)
def test_error_names_the_file(directory, name, content, words):
    (directory / 'truth.txt').write_text('')
    (directory / 'pairs.txt').write_text('')
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        open_aachen(directory, directory / 'truth.txt', directory / 'pairs.txt')


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='images_upright'):
        open_aachen(tmp_path)
