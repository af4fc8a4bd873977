"""Engines on disk: found where they fit, refused with reasons where they do not."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import json
import os
from pathlib import Path
import shutil

import pytest

pytest.importorskip('onnx', reason='onnx is not here; ./run test brings it')
trt = pytest.importorskip(
    'tensorrt_rtx', reason='tensorrt_rtx is not here; ./run test brings it on x86-64'
)

from coam_ros.inference import default_model_directory, EngineIncompatibleError  # noqa: E402
from coam_ros.inference.engine_manifest import (  # noqa: E402
    EngineManifest,
    EngineOptions,
    Target,
)
from coam_ros.inference.engines import (  # noqa: E402
    build_engines,
    EnginePlan,
    EngineRefusedError,
    find_engines,
    load_engines,
    pass_gate,
)
from coam_ros.inference.errors import BuildCancelledError  # noqa: E402
from coam_ros.inference.gate import GateReport, NothingToCompareError  # noqa: E402
from coam_ros.inference.manifest import Manifest  # noqa: E402

MODEL = default_model_directory()
OPTIONS = EngineOptions('fp16', (480, 320), 3)
AHEAD = Target('tensorrt_rtx', trt.__version__, '8.9', gpu='')
MACHINE = dataclasses.replace(AHEAD, gpu='NVIDIA GeForce RTX 4090')
REFUSAL = GateReport(
    'reference', 'candidate', 8, 100, 90, 0.9, (0.8, 0.9, 1.0), (0.8, 0.9, 1.0), (), 0, 1.0
)


def go_on(text):
    return True


def plan(engines, target=MACHINE, options=OPTIONS, model=MODEL):
    return EnginePlan.make(model, options, target, engines)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp('engines') / 'built'
    build_engines(plan(folder, AHEAD), go_on)
    return folder


@pytest.fixture
def engines(built, tmp_path):
    """Return a private copy."""
    return shutil.copytree(built, tmp_path / 'engines')


def test_engines_built_ahead_of_time_fit_any_such_gpu(engines):
    manifest = find_engines(plan(engines))
    assert manifest.target == AHEAD
    assert manifest.options == OPTIONS
    assert manifest.gate is None
    assert manifest.model_id == Manifest.load(MODEL).model_id
    assert sorted(path.name for path in engines.iterdir()) == [
        manifest.encoder.file,
        'engine.json',
        manifest.pair_matcher.file,
    ]


@pytest.mark.parametrize('max_keyframes', [1, 10])
def test_engines_do_for_any_number_of_keyframes(engines, max_keyframes):
    wanted = dataclasses.replace(OPTIONS, max_keyframes=max_keyframes)
    find_engines(plan(engines, options=wanted))


@pytest.mark.parametrize(
    ('options', 'target', 'message'),
    [
        ({}, {'package_version': '10.3.0'}, r'version of TensorRT: built .*, wanted 10\.3\.0'),
        ({}, {'compute_capability': '8.6'}, r'compute capability: built 8\.9, wanted 8\.6'),
        ({}, {'package': 'tensorrt'}, 'package: built tensorrt_rtx, wanted tensorrt'),
        ({'precision': 'fp32'}, {}, 'precision: built fp16, wanted fp32'),
        ({'image_size': (640, 480)}, {}, r'image size: built \(480, 320\), wanted \(640, 480\)'),
    ],
)
def test_engines_that_do_not_fit_are_refused_with_the_command(engines, options, target, message):
    wanted = dataclasses.replace(OPTIONS, **options)
    with pytest.raises(EngineIncompatibleError, match=message) as refusal:
        find_engines(plan(engines, dataclasses.replace(MACHINE, **target), options=wanted))
    width, height = wanted.image_size
    assert f'coam build-engine {MODEL} --out {engines}' in str(refusal.value)
    assert f'--precision {wanted.precision} --image-size {width}x{height}' in str(refusal.value)


def test_engines_of_another_gpu_are_refused(engines):
    manifest = EngineManifest.load(engines)
    dataclasses.replace(manifest, target=MACHINE).save(engines)
    find_engines(plan(engines))
    other = dataclasses.replace(MACHINE, gpu='NVIDIA GeForce RTX 4060')
    with pytest.raises(EngineIncompatibleError, match=r'GPU: built .* 4090, wanted .* 4060'):
        find_engines(plan(engines, other))


def test_engines_of_a_smaller_gpu_of_the_same_name_are_refused(engines):
    """AGX, NX and Nano are all called Orin."""
    agx = dataclasses.replace(MACHINE, gpu='Orin', num_multiprocessors=16)
    nano = dataclasses.replace(agx, num_multiprocessors=8)
    manifest = EngineManifest.load(engines)
    find_engines(plan(engines, nano))
    dataclasses.replace(manifest, target=agx).save(engines)
    find_engines(plan(engines, agx))
    with pytest.raises(EngineIncompatibleError, match='multiprocessors: built 16, wanted 8'):
        find_engines(plan(engines, nano))


@pytest.mark.parametrize(
    ('name', 'other', 'message'),
    [
        ('encoder', 'pair_matcher', 'encoder ONNX: built'),
        ('pair_matcher', 'encoder', 'pair matcher ONNX: built'),
    ],
)
def test_engines_of_another_model_are_refused(engines, tmp_path, name, other, message):
    """The manifest of the model agrees with its files, the engines were built from others."""
    model = shutil.copytree(MODEL, tmp_path / 'model')
    manifest = Manifest.load(model)
    wrong = getattr(manifest, other)
    swapped = dataclasses.replace(getattr(manifest, name), file=wrong.file, sha256=wrong.sha256)
    dataclasses.replace(manifest, **{name: swapped}).save(model)
    with pytest.raises(EngineIncompatibleError, match=message):
        find_engines(plan(engines, model=model))


@pytest.mark.parametrize('kind', ['encoder-*.engine', 'pair_matcher-*.engine', 'engine.json'])
@pytest.mark.parametrize('place', [0.0, 0.3, 1.0])
def test_a_changed_byte_is_noticed(engines, kind, place):
    (path,) = engines.glob(kind)
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)
    with pytest.raises(EngineIncompatibleError, match=f'(?i){path.name}.*coam build-engine'):
        find_engines(plan(engines))


def test_a_truncated_engine_is_noticed(engines):
    (path,) = engines.glob('encoder-*.engine')
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EngineIncompatibleError, match='damaged'):
        find_engines(plan(engines))


def test_a_missing_engine_is_named(engines):
    (path,) = engines.glob('pair_matcher-*.engine')
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f'{path.name}.*coam build-engine'):
        find_engines(plan(engines))


def test_no_engines_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'No engines: .*engine\.json'):
        find_engines(plan(tmp_path))


@pytest.mark.parametrize('content', ['', '[]', '{"format_version": 1}', '{"format_version": 7}'])
def test_a_broken_manifest_is_named(engines, content):
    (engines / 'engine.json').write_text(content)
    with pytest.raises(EngineIncompatibleError, match=r'engine\.json'):
        find_engines(plan(engines))


def test_a_cancelled_build_leaves_the_former_engines_and_nothing_else(engines):
    before = {path.name: path.read_bytes() for path in engines.iterdir()}
    with pytest.raises(BuildCancelledError):
        build_engines(plan(engines, AHEAD), lambda text: 'pair_matcher' not in text)
    assert {path.name: path.read_bytes() for path in engines.iterdir()} == before
    assert [path.name for path in engines.parent.iterdir()] == ['engines']


def test_engines_may_lie_beside_the_model_and_a_new_build_takes_out_the_former_ones(tmp_path):
    model = shutil.copytree(MODEL, tmp_path / 'model')
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    folder = model.stat().st_ino
    named = []
    for max_keyframes in (1, 2):
        options = dataclasses.replace(OPTIONS, max_keyframes=max_keyframes)
        build_engines(plan(model, AHEAD, options=options, model=model), go_on)
        manifest = EngineManifest.load(model)
        named.append({manifest.encoder.file, manifest.pair_matcher.file})
    assert named[0] != named[1]
    assert {path.name for path in model.iterdir()} == {*before, *named[1], 'engine.json'}
    assert all((model / name).read_bytes() == content for name, content in before.items())
    # A folder that is mounted cannot be put in the place of another one.
    assert model.stat().st_ino == folder


def test_processes_that_share_a_folder_build_one_after_the_other(engines):
    told = []
    descriptor = os.open(engines, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(BuildCancelledError, match='Waiting for the engines'):
            load_engines(plan(engines), lambda text: told.append(text) or False)
        with pytest.raises(EngineIncompatibleError, match='Another process is at'):
            load_engines(plan(engines), go_on, may_build=False)
    finally:
        os.close(descriptor)
    assert told == ['wait for another process that builds engines']


def test_builds_in_different_folders_do_not_measure_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    timing = tmp_path / 'coam_ros/engines/timing'
    timing.mkdir(parents=True)
    told = []
    descriptor = os.open(timing, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(BuildCancelledError, match='Waiting for the engines'):
            build_engines(plan(tmp_path / 'mine', AHEAD), lambda text: told.append(text) or False)
    finally:
        os.close(descriptor)
    assert told == ['wait for another process that builds engines']
    build_engines(plan(tmp_path / 'mine', AHEAD), go_on)


def test_a_folder_that_cannot_be_written_is_no_reason_to_go_without_the_cpu(tmp_path):
    path = tmp_path / 'engines'
    path.write_bytes(b'in the way')
    told = []
    with pytest.raises(EngineIncompatibleError, match='cannot be built or run'):
        load_engines(plan(path), lambda text: told.append(text) or True)
    assert not told  # before the work


def test_what_the_gate_refused_stays_refused_without_asking_again(engines):
    manifest = EngineManifest.load(engines)
    refused = dataclasses.replace(manifest, target=MACHINE, gate=dataclasses.asdict(REFUSAL))
    refused.save(engines)
    with pytest.raises(EngineRefusedError, match=r'90\.0% of the matches retained'):
        load_engines(plan(engines), go_on)


@pytest.mark.parametrize('target', [AHEAD, MACHINE])
def test_a_refusal_is_kept_with_engines_that_are_for_this_gpu_alone(engines, monkeypatch, target):
    monkeypatch.setattr('coam_ros.inference.engines.compare_backends', lambda *_: REFUSAL)
    manifest = dataclasses.replace(EngineManifest.load(engines), target=target)
    manifest.save(engines)
    with pytest.raises(EngineRefusedError, match='of the matches retained'):
        pass_gate(plan(engines), manifest, None)
    assert (EngineManifest.load(engines).gate is None) == (target is AHEAD)


def test_a_gate_that_has_nothing_to_compare_is_no_reason_to_go_without_the_cpu(
    engines, monkeypatch
):
    def compare(*_):
        raise NothingToCompareError('no match in 8 pairs')

    monkeypatch.setattr('coam_ros.inference.engines.compare_backends', compare)
    manifest = EngineManifest.load(engines)
    with pytest.raises(EngineIncompatibleError, match='cannot judge the engines in'):
        pass_gate(plan(engines), manifest, None)
    assert EngineManifest.load(engines) == manifest


@pytest.mark.parametrize('size', [(640, 400), (320, 256), (0, 0)])
def test_an_image_size_that_the_model_cannot_take_is_named(tmp_path, size):
    options = dataclasses.replace(OPTIONS, image_size=size)
    message = f'{size[0]} x {size[1]}: wanted multiples of 32 px and at least 131072 px'
    with pytest.raises(EngineIncompatibleError, match=message):
        build_engines(plan(tmp_path / 'engines', AHEAD, options=options), go_on)


@pytest.mark.parametrize('precision', ['fp16', 'fp32'])
def test_engines_are_built_as_the_options_say(tmp_path, monkeypatch, precision):
    asked = []

    def build(tensorrt, path, shapes, settings, report):
        asked.append((shapes['image'], settings.is_half, settings.max_keyframes))
        raise BuildCancelledError('This is enough.')

    monkeypatch.setattr('coam_ros.inference.tensorrt_builder.build', build)
    options = EngineOptions(precision, (480, 320), 3)
    with pytest.raises(BuildCancelledError):
        build_engines(plan(tmp_path / 'engines', AHEAD, options=options), go_on)
    assert asked == [((1, 320, 480, 3), precision == 'fp16', 3)]


def test_a_build_that_is_not_allowed_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError, match='No engines'):
        load_engines(plan(tmp_path / 'none'), go_on, may_build=False)
    assert not (tmp_path / 'none').exists()


@pytest.mark.skipif(importlib.util.find_spec('pycuda') is not None, reason='PyCUDA is here')
def test_without_pycuda_fitting_engines_are_not_loaded_and_the_message_says_why(engines):
    with pytest.raises(EngineIncompatibleError, match=r'No PyCUDA.*pip install pycuda'):
        load_engines(plan(engines), go_on)


def test_each_kind_of_engine_has_a_folder_of_its_own(monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/cache')
    folders = {
        EnginePlan.make(MODEL, options, MACHINE).engines
        for options in (OPTIONS, EngineOptions('fp32', (480, 320)), EngineOptions('fp16'))
    }
    assert len(folders) == 3
    assert {folder.parent for folder in folders} == {Path('/cache/coam_ros/engines')}
    model_id = Manifest.load(MODEL).model_id
    assert all(folder.name.startswith(model_id) for folder in folders)


def test_what_the_gate_found_is_kept_with_the_engines(engines):
    """Whoever loads them next need not ask again, and cannot have forged it by an editor."""
    manifest = EngineManifest.load(engines)
    accepted = dataclasses.replace(manifest, gate={'retention': 0.997})
    accepted.save(engines)
    assert EngineManifest.load(engines) == accepted
    path = engines / 'engine.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {'gate': {'retention': 1.0}}, indent=2) + '\n')
    with pytest.raises(EngineIncompatibleError, match='edited or damaged'):
        EngineManifest.load(engines)


@pytest.mark.skipif(importlib.util.find_spec('pycuda') is not None, reason='PyCUDA is here')
def test_engines_that_fit_are_built_again_only_when_asked_to(engines):
    told = []
    for must_build in (False, True):
        told.clear()
        with pytest.raises(EngineIncompatibleError, match='No PyCUDA'):
            load_engines(
                plan(engines), lambda text: told.append(text) or True, must_build=must_build
            )
        assert any('Building engine' in text for text in told) == must_build
    assert EngineManifest.load(engines).target == MACHINE
