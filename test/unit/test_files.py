"""Files that are written aside are whole under their name, or the former ones."""

from __future__ import annotations

import errno
import os

from coam_ros.inference.files import replace_folder, write_aside
import pytest


def test_a_written_file_replaces_the_former_one(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'former')
    write_aside(path, b'new')
    assert path.read_bytes() == b'new'
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_former_file_and_no_other(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / 'a.bin'
    path.write_bytes(b'former')
    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match=r'a\.bin could not be written \(No space left') as failure:
        write_aside(path, b'new')
    assert failure.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'former'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_former_one(tmp_path):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model/former').touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / 'model', tmp_path / 'none')
    assert [path.name for path in (tmp_path / 'model').iterdir()] == ['former']
    (tmp_path / 'new').mkdir()
    # What a replacement that was cut short leaves is no obstacle.
    (tmp_path / '.model-old' / 'left').mkdir(parents=True)
    replace_folder(tmp_path / 'model', tmp_path / 'new')
    assert [path.name for path in tmp_path.iterdir()] == ['model']
    assert not any((tmp_path / 'model').iterdir())
