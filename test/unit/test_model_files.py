"""A model folder that is damaged, incomplete or of another version is refused with reasons."""

from __future__ import annotations

from dataclasses import replace
import json
import shutil

from coam_ros.inference import CoamModel, default_model_directory, EngineIncompatibleError
from coam_ros.inference import model as model_module
from coam_ros.inference.manifest import FORMAT_VERSION, Manifest
from coam_ros.inference.sealed_json import load_sealed, save_sealed
import numpy as np
import pytest


@pytest.fixture
def model(tmp_path):
    """Return a private copy of the default model."""
    return shutil.copytree(default_model_directory(), tmp_path / 'model')


def test_default_model_is_intact():
    manifest = Manifest.load(default_model_directory())
    assert manifest.model_id.startswith(manifest.name)
    assert manifest.num_matches > 0


def test_descriptors_are_those_of_their_weights_and_a_model_is_both_networks():
    manifest = Manifest.load(default_model_directory())
    of_others = [
        replace(manifest, **{name: replace(getattr(manifest, name), sha256='0' * 64)})
        for name in ('encoder', 'pair_matcher')
    ]
    assert manifest.model_id not in [other.model_id for other in of_others]
    assert {other.descriptor_model_id for other in of_others} == {manifest.descriptor_model_id}
    other = replace(manifest, global_descriptor_sha256='0' * 64)
    assert other.descriptor_model_id != manifest.descriptor_model_id


@pytest.mark.parametrize('place', [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize('flip', [1, 4, 16, 128])
def test_a_changed_byte_of_the_manifest_is_noticed(model, place, flip):
    path = model / 'manifest.json'
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= flip
    path.write_bytes(content)
    with pytest.raises(EngineIncompatibleError, match=r'manifest\.json.*coam export'):
        Manifest.load(model)


def test_an_edited_manifest_is_noticed(model):
    path = model / 'manifest.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {'image_area_px': 76800}, indent=2) + '\n')
    with pytest.raises(EngineIncompatibleError, match='it was edited or damaged'):
        Manifest.load(model)


def test_a_manifest_without_its_seal_is_noticed(model):
    path = model / 'manifest.json'
    content = json.loads(path.read_text())
    del content['sha256']
    path.write_text(json.dumps(content, indent=2) + '\n')
    with pytest.raises(EngineIncompatibleError, match='carries the hash None'):
        Manifest.load(model)


@pytest.mark.parametrize('file', ['encoder.onnx', 'pair_matcher.onnx'])
def test_a_changed_byte_is_noticed(model, file):
    content = bytearray((model / file).read_bytes())
    content[len(content) // 2] ^= 1
    (model / file).write_bytes(content)
    with pytest.raises(EngineIncompatibleError, match=rf'(?i){file}.*sha256.*coam export'):
        CoamModel.load(model)


def test_a_truncated_network_is_noticed(model):
    path = model / 'encoder.onnx'
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EngineIncompatibleError, match='damaged'):
        CoamModel.load(model)


def test_a_missing_network_is_named(model):
    (model / 'pair_matcher.onnx').unlink()
    with pytest.raises(FileNotFoundError, match=r'pair_matcher\.onnx'):
        CoamModel.load(model)


def test_a_folder_without_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'manifest\.json'):
        CoamModel.load(tmp_path)


def test_a_folder_in_the_home_of_nobody_is_named():
    with pytest.raises(FileNotFoundError, match='No folder ~nobody_there/model'):
        CoamModel.load('~nobody_there/model')


@pytest.mark.parametrize('content', ['', '{"format_version":', '[]', '{"format_version": 1}'])
def test_a_broken_manifest_is_named(model, content):
    (model / 'manifest.json').write_text(content)
    with pytest.raises(EngineIncompatibleError, match=r'manifest\.json'):
        CoamModel.load(model)


def test_another_manifest_version_is_told(model):
    path = model / 'manifest.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'format_version': 99}))
    with pytest.raises(EngineIncompatibleError, match='format version 99, this software'):
        CoamModel.load(model)


def test_networks_in_each_others_place_are_noticed(model):
    """Both hashes fit, only the names inside the files tell."""
    path = model / 'manifest.json'
    content = load_sealed(path, FORMAT_VERSION, '')
    for key in ('file', 'sha256'):
        content['encoder'][key], content['pair_matcher'][key] = (
            content['pair_matcher'][key],
            content['encoder'][key],
        )
    save_sealed(path, content)
    with pytest.raises(EngineIncompatibleError, match='Wrong inputs'):
        CoamModel.load(model)


def test_a_network_of_other_outputs_is_noticed(model):
    path = model / 'manifest.json'
    content = load_sealed(path, FORMAT_VERSION, '')
    del content['pair_matcher']['outputs']['scores']
    save_sealed(path, content)
    with pytest.raises(EngineIncompatibleError, match='Wrong outputs'):
        CoamModel.load(model)


def test_unknown_backend_names_the_known():
    with pytest.raises(ValueError, match=r"'cuda'.*auto, .*onnxruntime"):
        CoamModel.load(backend='cuda')


def test_no_thread_is_no_fault_of_the_model():
    with pytest.raises(ValueError, match='threads is 0, wanted at least 1'):
        CoamModel.load(num_threads=0)


def test_both_networks_run_in_the_threads_that_they_are_given_and_sleep_when_idle():
    model = CoamModel.load(backend='onnxruntime', num_threads=1)
    for network in (model._encoder, model._pair_matcher):
        options = network._session.get_session_options()
        assert options.intra_op_num_threads == 1
        assert options.get_session_config_entry('session.intra_op.allow_spinning') == '0'


def test_more_keyframes_than_go_at_once_are_matched_one_after_the_other():
    model = CoamModel.load(backend='onnxruntime')
    images = np.random.default_rng(0).integers(0, 255, (3, 384, 384, 3), np.uint8)
    features = [model.encode(image)[0] for image in images]
    sizes = [(384, 384), (352, 384), (320, 384)]
    two_at_once = CoamModel(model.manifest, model._encoder, model._pair_matcher, max_keyframes=2)
    wanted, found = (
        each.match(features[1], (384, 384), features, sizes) for each in (model, two_at_once)
    )
    np.testing.assert_allclose(found.keyframe_points, wanted.keyframe_points, atol=1e-3)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


def test_a_closed_model_says_so():
    model = CoamModel.load(backend='onnxruntime')
    features, _ = model.encode(np.zeros((384, 384, 3), np.uint8))
    model.close()
    with pytest.raises(RuntimeError, match='closed'):
        model.encode(np.zeros((384, 384, 3), np.uint8))
    with pytest.raises(RuntimeError, match='closed'):
        model.match(features, (384, 384), [features], [(384, 384)])


@pytest.mark.parametrize('site', ['site-packages', 'dist-packages'])
def test_model_of_an_installation_is_found_wherever_that_is(tmp_path, monkeypatch, site):
    # As pip puts it for a user, below ~/.local, and Debian's for all, below /usr/local.
    module = tmp_path / 'lib' / 'python3.12' / site / 'coam_ros' / 'inference' / 'model.py'
    model = tmp_path / 'share' / 'coam_ros' / 'models' / 'default'
    model.mkdir(parents=True)
    monkeypatch.setattr(model_module, '__file__', str(module))
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    assert default_model_directory() == model
    model.rmdir()
    with pytest.raises(FileNotFoundError, match=r'looked in .*share/coam_ros'):
        default_model_directory()
    of_ros = tmp_path / 'ros' / 'share' / 'coam_ros' / 'models' / 'default'
    of_ros.mkdir(parents=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path / "ros"}')
    assert default_model_directory() == of_ros
