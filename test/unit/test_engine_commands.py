"""`coam build-engine` and `coam check-engine` from the command line."""

from __future__ import annotations

import importlib.util

from coam_ros import cli
from coam_ros.inference.gate_pairs import fixed_pairs
from coam_ros.inference.model import CoamModel
from coam_ros.matching.image_files import write_image
import numpy as np
import pytest


def one_line(capsys):
    return ' '.join(capsys.readouterr().out.split())


def test_engines_are_built_ahead_of_time_for_a_gpu_that_is_not_here(tmp_path, capsys):
    pytest.importorskip('onnx', reason='onnx is not here; ./run test brings it')
    pytest.importorskip('tensorrt_rtx', reason='tensorrt_rtx is not here; ./run test brings it')
    words = ['build-engine', '--compute-capability', '8.6', '--out', str(tmp_path / 'engines')]
    assert cli.main([*words, '--image-size', '480x320', '--max-keyframes', '2']) == 0
    said = one_line(capsys)
    assert 'any GPU of compute capability 8.6' in said
    assert 'The gate will be asked where they are first used.' in said
    assert 'HALF' in said
    assert len(list((tmp_path / 'engines').glob('pair_matcher-*.engine'))) == 1


def test_a_gpu_that_nobody_builds_for_is_refused(tmp_path, capsys):
    pytest.importorskip('onnx', reason='onnx is not here; ./run test brings it')
    pytest.importorskip('tensorrt_rtx', reason='tensorrt_rtx is not here; ./run test brings it')
    words = ['build-engine', '--compute-capability', '6.1', '--out', str(tmp_path / 'engines')]
    assert cli.main(words) == 2
    assert '7.5, 8.0' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec('pycuda') is not None, reason='PyCUDA is here')
@pytest.mark.parametrize('words', [['build-engine'], ['check-engine', '--backend', 'tensorrt']])
def test_without_pycuda_both_say_what_is_missing(words, capsys):
    assert cli.main(words) == 2
    assert 'pip install pycuda' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['build-engine', 'check-engine'])
def test_a_folder_without_a_model_is_named_whatever_gpu_is_here(tmp_path, capsys, command):
    assert cli.main([command, str(tmp_path)]) == 2
    assert f'No model: {tmp_path}/manifest.json' in capsys.readouterr().err


@pytest.mark.parametrize('words', [['--image-size', 'large'], ['--max-keyframes', 'many']])
def test_wrong_words_are_refused(words):
    with pytest.raises(SystemExit):
        cli.main(['build-engine', *words])


def test_engines_for_another_machine_want_a_folder_of_their_own(capsys):
    assert cli.main(['build-engine', '--compute-capability', '8.6']) == 2
    assert 'wanted --out' in capsys.readouterr().err


def test_no_keyframes_at_once_are_refused(capsys):
    assert cli.main(['build-engine', '--max-keyframes', '0']) == 2
    assert '--max-keyframes is 0, wanted 1 or more' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--max-pairs', '0'], '--max-pairs is 0'),
        (['--image-size', '641x480'], 'wanted multiples of 32 px'),
        (['--image-size', '0x0'], 'wanted multiples of 32 px'),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_work(words, message, capsys):
    assert cli.main(['check-engine', *words]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def pairs(tmp_path):
    """Write one of the fixed pairs as a sequence in the layout of HPatches, not of 4:3."""
    pair = next(fixed_pairs((640, 480)))
    folder = tmp_path / 'pairs' / 'plane'
    for number, image in ((1, pair.query), (2, pair.keyframe)):
        write_image(folder / f'{number}.png', image[:, :600])
    # The errors of four points tell the homography.
    corners = np.array([(0.0, 0.0), (500.0, 0.0), (500.0, 400.0), (0.0, 400.0)])
    homography = pair.errors_px.args[0]
    moved = np.column_stack([corners, np.ones(4)]) @ homography.T
    assert pair.errors_px(corners, moved[:, :2] / moved[:, 2:]).max() < 1e-6
    np.savetxt(folder / 'H_1_2', homography)
    return tmp_path / 'pairs'


def test_the_reference_is_accepted_on_pairs_of_ones_own(pairs, capsys):
    words = ['check-engine', '--backend', 'onnxruntime', '--pairs', str(pairs)]
    assert cli.main(words) == 0
    said = one_line(capsys)
    assert '100.00%' in said
    assert '0 of 1' in said
    # The truth of the pair came through the resize and the cut; the last share is of 5 px.
    shares = [float(word[:-1]) for word in said.split() if word.endswith('%')]
    assert shares[-1] > 95


def test_a_backend_that_answers_otherwise_is_refused_with_status_1(pairs, capsys, monkeypatch):
    match = CoamModel.match

    def match_worse(self, *args):
        found = match(self, *args)
        found.query_points[:] += 4.0 * self.is_spoilt
        return found

    load = CoamModel.load.__func__

    def load_spoilt(cls, directory, backend, threads):
        model = load(cls, directory, 'onnxruntime', threads)
        model.is_spoilt = backend == 'cpu'
        return model

    monkeypatch.setattr(CoamModel, 'match', match_worse)
    monkeypatch.setattr(CoamModel, 'load', classmethod(load_spoilt))
    assert cli.main(['check-engine', '--pairs', str(pairs)]) == 1
    assert 'refused: 0.0% of the matches retained, wanted 98%' in one_line(capsys)
