"""A map that grows, and what of it is on disk."""

from __future__ import annotations

from pathlib import Path
import threading

from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import resolve_folder, save_map


class RecordedMap(KeyframeMap):
    """A keyframe map that knows the folders that it has been saved to."""

    def __init__(self, frame_id: str) -> None:
        """Make an empty map in a frame."""
        super().__init__(frame_id=frame_id)
        self._save_lock = threading.Lock()
        self._num_saved: dict[Path, int] = {}

    def num_saved(self, path: str | None = None) -> int:
        """Count the keyframes in a folder, None: in that with the most of those saved to."""
        with self._save_lock:
            if path is not None:
                return self._num_saved.get(resolve_folder(path), 0)
            return max(self._num_saved.values(), default=0)

    def save(self, path: str, *, overwrite: bool) -> int:
        """Write the map, from any thread and one after the other.

        Args:
            path: of the folder.
            overwrite: whether a map that is there may be replaced; one that this map wrote may be
                in any case.

        Returns:
            The number of keyframes written.

        Raises:
            OSError, MapFormatError: see `storage.save_map`.
        """
        with self._save_lock:
            folder = resolve_folder(path)
            count = save_map(self, path, overwrite=overwrite or folder in self._num_saved)
            self._num_saved[folder] = count
        return count
