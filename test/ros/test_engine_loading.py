"""Which engines a node plans to run on, and what it says when there are none."""

from __future__ import annotations

import logging
import shutil

from coam_ros.inference import default_model_directory, EngineIncompatibleError
from coam_ros.inference import engines as tensorrt_engines
from coam_ros.inference.engine_manifest import EngineOptions, Target
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


def test_engines_are_those_of_the_parameters(monkeypatch, tmp_path):
    machine = Target('tensorrt', '10.3.0', '8.7', 'Orin')
    monkeypatch.setattr(tensorrt_engines, 'this_machine', lambda: machine)
    assert plan_engines(MatcherParameters()).options == EngineOptions()
    model = shutil.copytree(default_model_directory(), tmp_path / 'model')
    parameters = MatcherParameters(
        model_file_path=str(model),
        engine_file_path=str(tmp_path / 'engines'),
        enable_fp16=False,
        engine_width_px=480,
        engine_height_px=320,
    )
    plan = plan_engines(parameters)
    assert (plan.model, plan.engines, plan.target) == (model, tmp_path / 'engines', machine)
    assert plan.options == EngineOptions('fp32', (480, 320))
