"""Documents are written from reports, around what people wrote."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from bench_samples import pair_line, write_image
from coam_ros.cli import main
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / 'benchmarks/write_results.py'


def write_results(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def run_json(tmp_path) -> Path:
    data = tmp_path / 'data/room'
    data.mkdir(parents=True)
    for number in (0, 1, 2):
        write_image(data / f'{number}.png', number)
    lines = [pair_line(f'{number}.png', '2.png', np.eye(4)) for number in (0, 1)]
    (data / 'pairs.txt').write_text(''.join(lines))
    out = tmp_path / 'pose.json'
    words = ['bench', 'pose', data, '--matcher', 'sift', '--matcher', 'orb', '--out', out]
    assert main([*map(str, words), '--cache', str(tmp_path / 'cache')]) == 0
    return out


def test_tables_come_between_the_marks_and_the_rest_stays(run_json, tmp_path):
    docs = tmp_path / 'docs'
    words = [run_json, '--docs', docs, '--matcher', 'sift', '--data', tmp_path / 'data']
    assert write_results(*words).returncode == 0
    path = docs / 'results.md'
    text = path.read_text()
    assert text.startswith('# Results')
    assert '## coam bench pose' in text
    assert '| room | sift | orb |' in text
    assert '| auc 10deg |' in text
    assert 'Commit `' in text
    # Unrelated images: nothing is found, and the table says what else found nothing.
    failures = (docs / 'failures.md').read_text()
    assert '| room | 0.png 2.png | over 20 deg |' in failures
    path.write_text(text.replace('# Results', 'By hand.\n\n# Results') + '\nWhy we lose.\n')
    assert write_results(*words).returncode == 0
    again = path.read_text()
    assert again.startswith('By hand.')
    assert again.endswith('\nWhy we lose.\n')
    assert again.count('## coam bench pose') == 1


def test_a_document_without_marks_is_left_alone(run_json, tmp_path):
    (tmp_path / 'results.md').write_text('By hand.\n')
    done = write_results(run_json, '--docs', tmp_path)
    assert done.returncode != 0
    assert 'lacks the marks' in done.stderr
    assert (tmp_path / 'results.md').read_text() == 'By hand.\n'
