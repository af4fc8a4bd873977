from __future__ import annotations

import pickle

from coam_ros.mapping.importers.object_arrays import read_arrays
import numpy as np
import pytest


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / 'scene.npz'
    np.savez(path, names=np.array(['a.jpg', None], object), poses=np.eye(4))
    return path


def test_arrays_of_numbers_and_of_objects_come_back(archive):
    arrays = read_arrays(archive, ('names', 'poses', 'nothing'))
    assert arrays.keys() == {'names', 'poses'}
    assert arrays['names'].tolist() == ['a.jpg', None]
    assert np.array_equal(arrays['poses'], np.eye(4))


@pytest.mark.parametrize(('offset', 'value'), [(8, 1), (10, 99)])
def test_damage_that_looks_like_another_kind_of_archive_is_a_value_error(archive, offset, value):
    # Flags (1: encrypted) and compression in the first entry of the archive's table.
    data = bytearray(archive.read_bytes())
    data[data.index(b'PK\x01\x02') + offset] = value
    archive.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r'encrypted|compression'):
        read_arrays(archive, ('names',))


def test_program_in_an_array_does_not_run(archive):
    archive.write_bytes(pickle.dumps({'names': print}))
    with pytest.raises(ValueError, match='wanted arrays only'):
        read_arrays(archive, ('names',))
