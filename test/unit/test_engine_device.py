"""What is told about the GPU of this machine; PyCUDA is pretended."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

from coam_ros.inference import engines
from coam_ros.inference.engine_manifest import Target
from coam_ros.inference.errors import GpuMissingError
import pytest

ORIN = {'MULTIPROCESSOR_COUNT': 8, 'INTEGRATED': 1}


@pytest.fixture
def driver(monkeypatch):
    """Return a module that stands for PyCUDA on a Jetson Orin Nano."""
    driver = ModuleType('pycuda.driver')
    context = SimpleNamespace(push=lambda: None)
    device = SimpleNamespace(
        name=lambda: 'Orin',
        compute_capability=lambda: (8, 7),
        get_attribute=ORIN.get,
        retain_primary_context=lambda: context,
    )
    driver.init = lambda: None
    driver.Device = lambda index: device
    driver.Context = SimpleNamespace(pop=lambda: None)
    driver.Stream = lambda flags: object()
    driver.Event = lambda flags: object()
    driver.event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
    driver.device_attribute = SimpleNamespace(**{name: name for name in ORIN})
    driver.Error = type('Error', (Exception,), {})
    package = ModuleType('pycuda')
    package.driver = driver
    monkeypatch.setitem(sys.modules, 'pycuda', package)
    monkeypatch.setitem(sys.modules, 'pycuda.driver', driver)
    return driver


def test_a_gpu_is_told_by_more_than_its_name(driver, monkeypatch):
    tensorrt = ModuleType('tensorrt')
    tensorrt.__version__ = '10.3.0'
    monkeypatch.setattr(engines, 'import_tensorrt', lambda: tensorrt)
    assert engines.this_machine() == Target('tensorrt', '10.3.0', '8.7', 'Orin', 8, True)


def test_a_gpu_that_cuda_cannot_use_is_missing(driver):
    def refuse():
        raise driver.Error('cuInit failed: no CUDA-capable device is detected')

    driver.init = refuse
    with pytest.raises(GpuMissingError, match=r'no CUDA-capable device is detected.*nvidia-smi'):
        engines.this_machine()
