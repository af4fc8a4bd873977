"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER_MARKERS = {'ros': pytest.mark.ros, 'training': pytest.mark.training}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder they lie in, so that `-m 'not ros'` and the like work."""
    folder = Path(__file__).parent
    for item in items:
        marker = FOLDER_MARKERS.get(item.path.relative_to(folder).parts[0])
        if marker is not None:
            item.add_marker(marker)
