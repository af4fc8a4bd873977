"""`coam export` from the weights that come with the package: the real networks, the real check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import shutil

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
pytest.importorskip('onnxscript', reason='onnxscript is not installed')

from coam_ros.cli import main  # noqa: E402
from coam_ros.inference import default_model_directory, EngineIncompatibleError  # noqa: E402
from coam_ros.inference.gate_pairs import draw_pairs  # noqa: E402
from coam_ros.inference.manifest import Manifest  # noqa: E402
from coam_ros.inference.onnxruntime_backend import OnnxRuntimeBackend  # noqa: E402
from coam_ros.matching import CoamMatcher  # noqa: E402
from coam_ros.matching.image_files import write_image  # noqa: E402
from coam_ros.training import export, quantization  # noqa: E402
from coam_ros.training.checkpoint import save_checkpoint  # noqa: E402
from coam_ros.training.config import load_config  # noqa: E402
from coam_ros.training.config_file import to_values  # noqa: E402
from coam_ros.training.deployment import DeployedEncoder, DeployedPairMatcher  # noqa: E402
from coam_ros.training.global_descriptor import GlobalDescriptor  # noqa: E402
from skimage import data  # noqa: E402

WEIGHTS = default_model_directory() / 'weights.pt'


def load_shipped():
    content = torch.load(WEIGHTS, weights_only=True)
    network = export._load_network(content, WEIGHTS)
    descriptor = GlobalDescriptor()
    descriptor.load_state_dict(content['global_descriptor'])
    return network, descriptor


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
    np.testing.assert_allclose(found.similarities, wanted.similarities, atol=1e-3)
    np.testing.assert_allclose(found.distinctiveness, wanted.distinctiveness, atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ['model']  # nothing left aside
    manifest, shipped = Manifest.load(tmp_path / 'model'), Manifest.load(WEIGHTS.parent)
    assert manifest.pair_matcher_int8 is not None
    assert manifest.pair_matcher_int8.inputs == shipped.pair_matcher.inputs
    # No folder of the machine that exported it.
    source = str(Path(export.__file__).parent).encode()
    for network in (tmp_path / 'model').glob('*.onnx'):
        assert source not in network.read_bytes()
    # A changed byte is noticed.
    network = tmp_path / 'model' / 'encoder.onnx'
    network.write_bytes(network.read_bytes()[:-1] + b'\0')
    with pytest.raises(EngineIncompatibleError, match='Changed model file'):
        CoamMatcher.load(tmp_path / 'model')


@torch.no_grad()
def test_the_shipped_weights_answer_as_the_shipped_model_does_on_padded_images():
    network, descriptor = load_shipped()
    manifest = Manifest.load(WEIGHTS.parent)
    encoder = DeployedEncoder(network, descriptor).eval()
    matcher = DeployedPairMatcher(network, manifest.num_matches).eval()
    examples = export._example(encoder, (480, 640), (512, 576), num_keyframes=2)
    for file, module, inputs in zip(
        (manifest.encoder, manifest.pair_matcher), (encoder, matcher), examples, strict=True
    ):
        names = zip(file.inputs, inputs, strict=True)
        found = OnnxRuntimeBackend(WEIGHTS.parent / file.file).run(
            {name: value.numpy() for name, value in names}
        )
        for name, value in zip(file.outputs, module(*inputs), strict=True):
            export._compare(file.file, name, found[name], value.numpy())


@torch.no_grad()
def test_what_training_changes_outside_of_the_encoder_leaves_the_descriptors_of_maps():
    network, descriptor = load_shipped()
    encoder = DeployedEncoder(network, descriptor)
    image = torch.from_numpy(data.astronaut())[None]
    shipped = Manifest.load(WEIGHTS.parent).global_descriptor_sha256

    def encode():
        *features, of_image = encoder(image)
        return features, of_image, export._descriptor_sha256(network, descriptor)

    features, before, found = encode()
    assert found == shipped
    for weight in network.decoder.parameters():
        weight += 0.01
    others, after, found = encode()
    assert not torch.equal(others[0], features[0])
    assert torch.equal(after, before)
    assert found == shipped
    for weight in network.encoder.parameters():
        weight += 0.01
    _, after, found = encode()
    assert not torch.equal(after, before)
    assert found != shipped


def test_disagreement_is_refused():
    wanted = np.linspace(-1, 1, 200, dtype=np.float32)
    found = wanted.copy()
    found[0] += 0.1  # one of 200 may be a tie that fell the other way
    export._compare('x.onnx', 'scores', found, wanted)
    found[:5] += 0.1
    with pytest.raises(ValueError, match=r'2\.5% of scores differ'):
        export._compare('x.onnx', 'scores', found, wanted)
    with pytest.raises(ValueError, match=r'100\.0% of scores differ'):
        export._compare('x.onnx', 'scores', np.full_like(wanted, np.nan), wanted)


@pytest.mark.slow
def test_int8_that_the_gate_refuses_is_left_out(tmp_path, monkeypatch, capsys):
    def draw_night(size, seeds):
        for pair in draw_pairs(size, seeds[:2]):
            yield replace(pair, query=0 * pair.query, keyframe=0 * pair.keyframe)

    monkeypatch.setattr(quantization, 'draw_pairs', draw_night)
    model = shutil.copytree(WEIGHTS.parent, tmp_path / 'model')
    (model / 'pair_matcher_int8.onnx').unlink()
    manifest = Manifest.load(WEIGHTS.parent)
    assert quantization.quantize_pair_matcher(model, manifest) is None
    assert 'left out' in capsys.readouterr().out
    assert not (model / 'pair_matcher_int8.onnx').exists()


@pytest.mark.slow
def test_a_network_that_learned_without_a_refiner_can_be_deployed(tmp_path):
    content = torch.load(WEIGHTS, weights_only=True)
    content['config']['network']['has_refiner'] = False
    content['average'] = {
        name: value
        for name, value in content['average'].items()
        if not name.startswith('refiner.')
    }
    save_checkpoint(tmp_path / 'plain.pt', content)
    assert main(['export', str(tmp_path / 'plain.pt'), '--out', str(tmp_path / 'model')]) == 0
    photo = data.astronaut()
    found = CoamMatcher.load(tmp_path / 'model').match(photo, np.roll(photo, 20, axis=1))
    shift = found.points1 - found.points0
    assert np.median(shift, axis=0) == pytest.approx((20, 0), abs=1)


def test_a_folder_of_something_else_is_not_replaced(tmp_path, capsys):
    (tmp_path / 'holiday.jpg').write_bytes(b'precious')
    assert main(['export', str(WEIGHTS), '--out', str(tmp_path)]) == 2
    assert 'holds no model' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['holiday.jpg']


def test_too_few_photos_for_the_global_descriptor_are_named(tmp_path, capsys):
    write_image(tmp_path / 'photos' / 'one.jpg', data.astronaut())
    words = ['export', str(WEIGHTS), '--photos', str(tmp_path / 'photos')]
    assert main([*words, '--out', str(tmp_path / 'model')]) == 2
    assert '1 photos for the global descriptor, wanted at least 512' in capsys.readouterr().err
    assert not (tmp_path / 'model').exists()


def test_what_is_no_checkpoint_of_a_deployable_network_is_refused(tmp_path, capsys):
    content = torch.load(WEIGHTS, weights_only=True)
    paper = to_values(load_config('paper_resnet50', leaves_unset=True).network)
    for name, what, words in (
        ('paper.pt', {**content, 'config': {'network': paper}}, 'local features (xfeat)'),
        ('weights.pt', content['average'], 'no checkpoint'),
    ):
        save_checkpoint(tmp_path / name, what)
        assert main(['export', str(tmp_path / name), '--out', str(tmp_path / 'out')]) == 2
        assert words in capsys.readouterr().err
    assert main(['export', str(Path('nowhere.pt')), '--out', str(tmp_path / 'out')]) == 2
    assert not (tmp_path / 'out').exists()


def test_a_file_is_not_replaced(tmp_path, capsys):
    (tmp_path / 'model').write_bytes(b'precious')
    assert main(['export', str(WEIGHTS), '--out', str(tmp_path / 'model')]) == 2
    assert 'holds no model' in capsys.readouterr().err
    assert (tmp_path / 'model').read_bytes() == b'precious'


@pytest.mark.parametrize('words', [('--matches', '4801'), ('--matches', '0'), ('--area', '9999')])
def test_more_matches_than_blocks_are_refused(tmp_path, capsys, words):
    assert main(['export', str(WEIGHTS), '--out', str(tmp_path / 'model'), *words]) == 2
    assert 'the blocks of 8 x 8 px in --area' in capsys.readouterr().err
    assert not (tmp_path / 'model').exists()


def test_the_examples_hold_as_many_matches_as_are_wanted(tmp_path, monkeypatch):
    def answer(path, module, examples, *_names):
        with torch.no_grad():
            return [module(*inputs)[0].shape[1] for inputs in examples]

    monkeypatch.setattr(export, '_export', answer)
    network = export._load_network(torch.load(WEIGHTS, weights_only=True), WEIGHTS)
    for count in (4600, 5000):
        networks = export._export_networks(network, GlobalDescriptor(), count, tmp_path)
        assert networks['pair_matcher'] == [count, count]
