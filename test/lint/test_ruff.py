"""Ruff finds nothing to say about the sources."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from source_tree import ROOT

pytestmark = pytest.mark.skipif(
    shutil.which('ruff') is None, reason='ruff is not here; ./run test brings it'
)


@pytest.mark.parametrize(
    'arguments', [['check', '--output-format=concise'], ['format', '--check']], ids=' '.join
)
def test_ruff_has_no_complaint(arguments: list[str]) -> None:
    ruff = subprocess.run(
        ['ruff', *arguments, '--no-cache', str(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ruff.returncode == 0, ruff.stdout + ruff.stderr
