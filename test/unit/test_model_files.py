"""A model folder that is damaged, incomplete or of another version is refused with reasons."""

from __future__ import annotations

import json
import shutil

from coam_ros.inference import CoamModel, default_model_directory, EngineIncompatibleError
from coam_ros.inference.manifest import Manifest
import pytest


@pytest.fixture
def model(tmp_path):
    """Return a private copy of the default model."""
    return shutil.copytree(default_model_directory(), tmp_path / 'model')


def test_default_model_is_intact():
    manifest = Manifest.load(default_model_directory())
    assert manifest.model_id.startswith(manifest.name)
    assert manifest.num_matches > 0


@pytest.mark.parametrize('file', ['encoder.onnx', 'pair_matcher.onnx'])
def test_a_changed_byte_is_noticed(model, file):
    content = bytearray((model / file).read_bytes())
    content[len(content) // 2] ^= 1
    (model / file).write_bytes(content)
    with pytest.raises(EngineIncompatibleError, match=rf'{file}.*sha256.*coam export'):
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


@pytest.mark.parametrize('content', ['', '{"format_version":', '[]', '{"format_version": 1}'])
def test_a_broken_manifest_is_named(model, content):
    (model / 'manifest.json').write_text(content)
    with pytest.raises(EngineIncompatibleError, match=r'manifest\.json'):
        CoamModel.load(model)


def test_another_manifest_version_is_told(model):
    path = model / 'manifest.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'format_version': 99}))
    with pytest.raises(EngineIncompatibleError, match='format version 99, this software reads 1'):
        CoamModel.load(model)


def test_networks_in_each_others_place_are_noticed(model):
    """Both hashes fit, only the names inside the files tell."""
    path = model / 'manifest.json'
    content = json.loads(path.read_text())
    for key in ('file', 'sha256'):
        content['encoder'][key], content['pair_matcher'][key] = (
            content['pair_matcher'][key],
            content['encoder'][key],
        )
    path.write_text(json.dumps(content))
    with pytest.raises(EngineIncompatibleError, match='Wrong inputs'):
        CoamModel.load(model)


def test_unknown_backend_names_the_known():
    with pytest.raises(ValueError, match=r"'cuda'.*auto, onnxruntime"):
        CoamModel.load(backend='cuda')
