"""`coam export` from the weights that come with the package: the real networks, the real check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
pytest.importorskip('onnxscript', reason='onnxscript is not installed')

from coam_ros.cli import main  # noqa: E402
from coam_ros.inference import default_model_directory, EngineIncompatibleError  # noqa: E402
from coam_ros.matching import CoamMatcher  # noqa: E402
from coam_ros.training import export  # noqa: E402
from coam_ros.training.checkpoint import save_checkpoint  # noqa: E402
from skimage import data  # noqa: E402

WEIGHTS = default_model_directory() / 'weights.pt'


@pytest.mark.slow
def test_export_of_the_shipped_weights_is_the_shipped_model(tmp_path):
    assert main(['export', str(WEIGHTS), '--out', str(tmp_path / 'model')]) == 0
    photo = data.astronaut()
    shifted = np.roll(photo, 20, axis=1)
    found, wanted = (
        CoamMatcher.load(model).match(photo, shifted) for model in (tmp_path / 'model', None)
    )
    assert len(found) == len(wanted) > 500
    np.testing.assert_allclose(found.points0, wanted.points0, atol=0.05)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ['model']  # nothing left aside
    # No folder of the machine that exported it.
    source = str(Path(export.__file__).parent).encode()
    for network in (tmp_path / 'model').glob('*.onnx'):
        assert source not in network.read_bytes()
    # A changed byte is noticed.
    network = tmp_path / 'model' / 'encoder.onnx'
    network.write_bytes(network.read_bytes()[:-1] + b'\0')
    with pytest.raises(EngineIncompatibleError, match='Changed model file'):
        CoamMatcher.load(tmp_path / 'model')


def test_disagreement_is_refused():
    wanted = np.linspace(-1, 1, 200, dtype=np.float32)
    found = wanted.copy()
    found[0] += 0.1  # one of 200 may be a tie that fell the other way
    export._compare('x.onnx', 'scores', found, wanted)
    found[:5] += 0.1
    with pytest.raises(RuntimeError, match=r'2\.5% of scores differ'):
        export._compare('x.onnx', 'scores', found, wanted)


def test_what_is_no_checkpoint_of_a_deployable_network_is_refused(tmp_path, capsys):
    content = torch.load(WEIGHTS, weights_only=True)
    paper = {**content['config']['network'], 'has_refiner': False}
    for name, what, words in (
        ('paper.pt', {**content, 'config': {'network': paper}}, 'has_refiner False'),
        ('weights.pt', content['average'], 'no checkpoint'),
    ):
        save_checkpoint(tmp_path / name, what)
        assert main(['export', str(tmp_path / name), '--out', str(tmp_path / 'out')]) == 2
        assert words in capsys.readouterr().err
    assert main(['export', str(Path('nowhere.pt')), '--out', str(tmp_path / 'out')]) == 2
    assert not (tmp_path / 'out').exists()
