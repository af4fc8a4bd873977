"""Which engines a node plans to run on, and what it says when there are none."""

from __future__ import annotations

import logging

from coam_ros.inference import EngineIncompatibleError
from coam_ros.inference import engines as tensorrt_engines
from coam_ros.inference.errors import GpuMissingError
from coam_ros.nodes.engine_loading import plan_engines
from coam_ros.nodes.parameters import MatcherParameters
import pytest


@pytest.mark.parametrize(
    ('kind', 'level'), [(GpuMissingError, 'INFO'), (EngineIncompatibleError, 'WARNING')]
)
def test_why_the_cpu_runs_the_model_is_told(monkeypatch, caplog, kind, level):
    def refuse():
        raise kind('It is not here.')

    monkeypatch.setattr(tensorrt_engines, 'this_machine', refuse)
    caplog.set_level(logging.INFO)
    assert plan_engines(MatcherParameters(backend='auto')) is None
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (level, 'No TensorRT: It is not here. The CPU runs the model instead.')
    ]
    with pytest.raises(kind):
        plan_engines(MatcherParameters(backend='tensorrt'))
    assert plan_engines(MatcherParameters(backend='cpu')) is None
    assert len(caplog.records) == 1
