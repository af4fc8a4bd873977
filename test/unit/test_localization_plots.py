from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='plots need matplotlib')

from coam_ros.evaluation.reports.localization_plots import plot_errors, plot_top_view
from test_localization_metrics import failed, localized


@pytest.mark.parametrize('outcomes', [[localized(0.1), failed(), localized(0.2)], [failed()], []])
def test_plots_are_written_for_any_outcome(tmp_path: Path, outcomes):
    plot_top_view(tmp_path / 'top.png', np.eye(3), outcomes)
    plot_errors(tmp_path / 'errors.png', outcomes)
    assert cv2.imread(str(tmp_path / 'top.png')).std() > 1
    assert cv2.imread(str(tmp_path / 'errors.png')).std() > 1
