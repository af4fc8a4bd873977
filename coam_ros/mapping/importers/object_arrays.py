"""Archives of NumPy arrays of objects, in which MegaDepth's scene_info comes.

Such arrays are pickles; they are read here without letting them run a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import pickle
from typing import Any, IO
import zipfile

from numpy.lib import format as npy
from numpy.typing import NDArray

# All that an array of objects needs to come back; nothing of it can run a program.
_SAFE_GLOBALS = {
    (module, name)
    for module, names in {
        'numpy': ('dtype', 'ndarray'),
        'numpy.core.multiarray': ('_reconstruct', 'scalar'),
        'numpy._core.multiarray': ('_reconstruct', 'scalar'),
        '_codecs': ('encode',),
    }.items()
    for name in names
}


def read_arrays(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read arrays of an npz, arrays of objects included.

    Args:
        path: of the archive.
        wanted: names of the arrays; those that it has not are left out.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or holds something else than arrays.
    """
    try:
        if not zipfile.is_zipfile(path):
            # LoFTR has its lists as one pickled dict, by the same name.
            with path.open('rb') as file:
                content = _SafeUnpickler(file).load()
            return {key: content[key] for key in wanted if key in content}
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for key in wanted:
                if f'{key}.npy' in archive.namelist():
                    with archive.open(f'{key}.npy') as file:
                        arrays[key] = _read_array(file)
            return arrays
    except OSError:
        raise
    except Exception as error:  # whatever zipfile, zlib, pickle and NumPy make of damage
        raise ValueError(str(error)) from error


class _SafeUnpickler(pickle.Unpickler):
    """Reads pickled NumPy arrays and nothing that could run a program."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - of the base class
        if (module, name) not in _SAFE_GLOBALS:
            raise pickle.UnpicklingError(f'holds {module}.{name}, wanted arrays only')
        return super().find_class(module, name)


def _read_array(file: IO[bytes]) -> NDArray:
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    if read_header(file)[2].hasobject:
        return _SafeUnpickler(file).load()
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)
