"""Encoded images and RGB in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coam_ros.inference.files import write_aside
import cv2
import numpy as np
from numpy.typing import NDArray

# Times smaller than stored, which saves time with JPEG -> flag of OpenCV.
_REDUCTION_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
REDUCTIONS = tuple(_REDUCTION_FLAGS)


def decode_rgb(data: bytes, reduction: int = 1) -> NDArray[np.uint8] | None:
    """Decode an image.

    Args:
        data: JPEG, PNG or whatever else OpenCV reads.
        reduction: one of `REDUCTIONS`, how many times smaller it shall be than it is stored.

    Returns:
        (H, W, 3) uint8 RGB of the pixels as they are stored: an orientation in the metadata is
        ignored, because calibrations and ground truth are about the stored pixels. None where
        it does not decode.
    """
    image = decode_stored(data, _REDUCTION_FLAGS[reduction])
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def decode_stored(data: bytes, flags: int) -> NDArray[Any] | None:
    """Decode an image as OpenCV's flags say, an orientation in the metadata ignored.

    Returns:
        Grey or BGR; None where it does not decode.
    """
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # no data at all, or a size that OpenCV refuses
        return None


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Encode (H, W, 3) uint8 RGB or (H, W) grey as JPEG; quality in [1, 100]."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, data = cv2.imencode('.jpg', pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return data.tobytes()


def read_image(path: Path, reduction: int = 1) -> NDArray[np.uint8]:
    """Read an image file.

    Grey images get three equal channels, 16-bit ones their upper 8 bits.

    Args:
        path: of the file.
        reduction: as of `decode_rgb`. A pixel p of a JPEG is (p + 0.5) / reduction - 0.5 there;
            of a PNG only where the fraction of its size is whole.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not an image.
    """
    if not path.is_file():
        raise FileNotFoundError(f'No image {path}; check the path.')
    image = decode_rgb(path.read_bytes(), reduction)
    if image is None:
        raise ValueError(
            f'{path} is no image that OpenCV reads; wanted a whole JPEG, PNG or the like.'
        )
    return image


def check_image_name(path: Path) -> None:
    """Check that `write_image` can write what a name says, before the work of making it.

    Raises:
        ValueError: OpenCV does not write this kind.
    """
    # Not the whole name: OpenCV ends the process for one that is no UTF-8.
    if not (path.suffix.isascii() and cv2.haveImageWriter(f'image{path.suffix}')):
        raise ValueError(
            f'No way to write {path.suffix or "a file without suffix"}: got {path}, wanted a name '
            'such as matches.png or matches.jpg.'
        )


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB as the kind of file that the name says.

    Raises:
        ValueError: OpenCV does not write this kind, or the image is too large for it.
        OSError: the file cannot be written.
    """
    check_image_name(path)
    try:
        is_encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:  # of older versions, which newer ones answer with False
        is_encoded = False
    if not is_encoded:
        raise ValueError(
            f'{path}: OpenCV does not write an image of {image.shape[1]} x {image.shape[0]} px as '
            f'{path.suffix}; make it smaller, or write PNG.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, data.tobytes())
