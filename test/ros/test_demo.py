"""The demo as users call it: a short drive through the real nodes."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

from coam_ros.demo import player
from coam_ros.demo.player import play, PlayError
from demo_samples import make_scenario
import pytest

pytestmark = pytest.mark.ros


@pytest.mark.slow
def test_short_drive_is_localized_and_reported(tmp_path):
    out = tmp_path / 'report'
    command = ['demo', '--duration', '16', '--rate', '2', '--seed', '3', '--out', str(out)]
    done = subprocess.run(
        [sys.executable, '-m', 'coam_ros.cli', *command],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'false poses' in done.stdout
    report = json.loads((out / 'report.json').read_text())
    assert report['sent_frames'] == 32
    answered = report['queries'] + report['unmapped_frames']
    assert answered + report['dropped_frames'] == report['sent_frames']
    # A busy machine answers few images, but those rightly.
    assert report['queries'] > 0
    assert report['recall_5cm_2deg'] >= 0.9
    assert report['false_poses'] == 0
    assert len(report['recovery_s']) == 2
    assert report['keyframes'] == 56
    for name in ('report.html', 'demo.rrd', 'matcher.log', 'map_server.log', 'map/map.json'):
        assert (out / name).stat().st_size > 0


def test_play_without_a_map_ends_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(player, '_STARTUP_TIMEOUT_S', 12.0)
    scenario = make_scenario(2, unmapped=set(), kidnappings=())
    with pytest.raises(PlayError, match=r'(?s)localized nothing.*Log of map_server.*no_map_here'):
        play(scenario, Path(tmp_path / 'no_map_here'), tmp_path, lambda *_: None)
