"""The manifest beside the ONNX files of a model: what they are, and whether they are intact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
import hashlib
from pathlib import Path
from typing import Any

from coam_ros.inference.sealed_json import (
    check_file,
    incomplete,
    load_sealed,
    save_sealed,
)

FORMAT_VERSION = 4
MANIFEST_NAME = 'manifest.json'
# A match starts as a pair of blocks of this size [px]: one block of each image.
BLOCK_PX = 8
_REMEDY = 'copy the whole model folder again or export it with `coam export`'


@dataclass(frozen=True)
class NetworkFile:
    """One network of a model.

    Attributes:
        file: file name beside the manifest.
        sha256: hex digest of the file.
        inputs: input name -> [element type, shape]; -1 marks a free dimension.
        outputs: the same for the outputs.
    """

    file: str
    sha256: str
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]


@dataclass(frozen=True)
class Manifest:
    """Description of a model: an encoder and a pair matcher.

    Attributes:
        format_version: layout of the manifest.
        name: name of the model.
        encoder: network that sees one image.
        pair_matcher: network that sees the features of a query and of keyframes.
        pair_matcher_int8: the same with convolutions in int8; None where the gate refused it.
        image_area_px: images are resized to this area before the encoder [px].
        size_multiple: width and height of the encoder's input are multiples of this [px].
        num_matches: matches that the pair matcher returns for a pair, valid or not.
        global_descriptor_dim: length of the descriptor for retrieval.
        global_descriptor_sha256: hex digest of the weights that it comes from: other ones in the
            rest of the encoder, as training makes them, leave it as it is.
        normalization: what the encoder does to the pixels.
        precision: arithmetic of the networks.
        training: how the weights came about (data, steps, commit), for people.
    """

    format_version: int
    name: str
    encoder: NetworkFile
    pair_matcher: NetworkFile
    pair_matcher_int8: NetworkFile | None
    image_area_px: int
    size_multiple: int
    num_matches: int
    global_descriptor_dim: int
    global_descriptor_sha256: str
    normalization: str
    precision: str
    training: dict[str, Any]

    @property
    def model_id(self) -> str:
        """Name and the first digits of the hash of both networks in float32."""
        both = self.encoder.sha256 + self.pair_matcher.sha256
        return f'{self.name}-{hashlib.sha256(both.encode()).hexdigest()[:8]}'

    @property
    def least_area_px(self) -> int:
        """Least area of an image [px]: the pair matcher picks one point of a block at most."""
        return BLOCK_PX**2 * self.num_matches

    @property
    def descriptor_model_id(self) -> str:
        """Identity of the global descriptor: models of one can use each other's maps."""
        return f'global-descriptor-{self.global_descriptor_sha256[:8]}'

    def save(self, directory: Path) -> None:
        """Write `manifest.json`, aside first and then renamed."""
        save_sealed(directory / MANIFEST_NAME, asdict(self))

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read the manifest of a model folder and check that the files are those it describes.

        Raises:
            FileNotFoundError: no such folder, no manifest in it, or a network file is missing.
            EngineIncompatibleError: unreadable manifest, another format version, or a byte of it
                or of a network was changed.
        """
        path = directory / MANIFEST_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f'No model: {path} does not exist; wanted a folder with {MANIFEST_NAME} and two '
                'ONNX files, as `coam export` writes it.'
            )
        content = load_sealed(path, FORMAT_VERSION, _REMEDY)
        try:
            int8 = content.pop('pair_matcher_int8')
            networks = {
                name: NetworkFile(**content.pop(name)) for name in ('encoder', 'pair_matcher')
            }
            if int8 is not None:
                networks['pair_matcher_int8'] = NetworkFile(**int8)
            manifest = cls(**{'pair_matcher_int8': None, **networks, **content})
        except (KeyError, TypeError) as error:
            raise incomplete(path, cls, error, _REMEDY) from error
        for network in networks.values():
            check_file(directory / network.file, network.sha256, _REMEDY)
        return manifest
