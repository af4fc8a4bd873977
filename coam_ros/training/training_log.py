"""Figures of a training: metrics.jsonl, TensorBoard beside it, and the progress bar."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

from coam_ros.inference.files import write_aside
from tqdm import tqdm

_LOGGER = logging.getLogger(__name__)


class TrainingLog:
    """Appends a line for each set of figures; what was logged after the checkpoint is dropped."""

    def __init__(self, out: Path, step: int, steps: int, *, tensorboard: bool) -> None:
        """Open the log of a training.

        Args:
            out: folder.
            step: that training goes on from; 0 begins anew.
            steps: that training has.
            tensorboard: whether to write events for TensorBoard.
        """
        path = out / 'metrics.jsonl'
        # A training that was killed before its first checkpoint left lines of step 0 too.
        kept = _lines_up_to(path, step) if step else ''
        write_aside(path, kept.encode())
        self._stream = path.open('a', encoding='utf-8')
        self._board = _open_board(out, step) if tensorboard else None
        self._progress = tqdm(initial=step, total=steps, unit='step', dynamic_ncols=True)

    def advance(self) -> None:
        """Count a step."""
        self._progress.update()

    def write(self, group: str, step: int, figures: dict[str, float]) -> None:
        """Log figures of a group, `train` or `validation`.

        Raises:
            OSError: they cannot be written.
        """
        entry = {'step': step, 'group': group, **figures}
        try:
            self._stream.write(json.dumps(entry) + '\n')
            self._stream.flush()
        except OSError as error:
            raise OSError(
                error.errno,
                f'{self._stream.name} could not be written ({error.strerror}); the last '
                'checkpoint is untouched. Make room, and run the same command again',
            ) from error
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(f'{group}/{name}', value, step)

    def show(self, figures: dict[str, str]) -> None:
        """Show figures behind the progress bar."""
        self._progress.set_postfix(figures)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._progress.write(text)

    def close(self) -> None:
        """Close files and progress bar."""
        self._progress.close()
        # What a full disk did not take was told by `write`, and is tried once more here.
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._board is not None:
            self._board.close()


def _lines_up_to(path: Path, step: int) -> str:
    """Return the lines of a log up to a step; a kill may have torn the last one."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
            if not line.endswith('\n') or json.loads(line)['step'] > step:
                break
            kept.append(line)
    return ''.join(kept)


def _open_board(out: Path, step: int) -> Any | None:  # noqa: ANN401  (an optional class)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _LOGGER.warning(
            'TensorBoard is not installed: figures go to %s alone. Install it (pip install '
            'tensorboard), or set tensorboard=false.',
            out / 'metrics.jsonl',
        )
        return None
    return SummaryWriter(out / 'tensorboard', purge_step=step + 1 if step else 0)
