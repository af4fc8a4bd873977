"""A slot for one item between a callback and a worker thread: the newest wins."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

T = TypeVar('T')


class Mailbox(Generic[T]):
    """Hands the newest item to one worker; what it replaces is counted as dropped."""

    def __init__(self) -> None:
        """Make an empty, open mailbox."""
        self._condition = threading.Condition()
        self._item: T | None = None
        self._is_closed = False
        self._is_urgent = False
        self._num_dropped = 0

    @property
    def num_dropped(self) -> int:
        """Items that a newer one replaced before the worker took them."""
        with self._condition:
            return self._num_dropped

    def put(self, item: T) -> None:
        """Put an item in, in the place of one that still waits there; never blocks."""
        with self._condition:
            self._num_dropped += self._item is not None
            self._item = item
            self._condition.notify_all()

    def take(self, not_before_s: float = 0.0) -> T | None:
        """Wait for the newest item.

        Args:
            not_before_s: time.monotonic() [s] before which nothing is handed out, which limits
                the rate of the worker; `hurry` overrides it once.

        Returns:
            The item, or None when the mailbox was closed.
        """
        with self._condition:
            while not self._is_closed:
                wait_s = 0.0 if self._is_urgent else not_before_s - time.monotonic()
                if self._item is not None and wait_s <= 0.0:
                    item, self._item, self._is_urgent = self._item, None, False
                    return item
                # The slowest rates ask for more than a thread may wait.
                wait_s = min(wait_s, threading.TIMEOUT_MAX)
                self._condition.wait(None if self._item is None else wait_s)
        return None

    def hurry(self) -> None:
        """Hand out the next item as soon as it is there, whatever the rate limit says."""
        with self._condition:
            self._is_urgent = True
            self._condition.notify_all()

    def close(self) -> None:
        """Let go of the item and wake the worker, which then gets None."""
        with self._condition:
            self._is_closed = True
            self._item = None
            self._condition.notify_all()
