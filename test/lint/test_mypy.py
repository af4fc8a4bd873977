"""Types: what pyproject.toml names is checked."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from source_tree import ROOT


@pytest.mark.skipif(
    importlib.util.find_spec('mypy') is None, reason='mypy is not here; ./run test brings it'
)
def test_mypy_has_no_complaint() -> None:
    mypy = subprocess.run(
        [sys.executable, '-m', 'mypy'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert mypy.returncode == 0, mypy.stdout + mypy.stderr
