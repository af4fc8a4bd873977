"""Camera messages to numpy arrays and back, with every check that a broken driver calls for."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
import math
from typing import Any

from builtin_interfaces.msg import Time
from coam_ros.mapping.depth import NO_DEPTH_COUNTS
from coam_ros.matching.image_files import decode_rgb, decode_stored, encode_jpeg
import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header


class ImageError(ValueError):
    """An image message that does not hold the picture that it claims to hold."""


@dataclass(frozen=True)
class _Encoding:
    """How the bytes of one pixel are laid out, and OpenCV's code that makes RGB of them.

    In half of the rows more than the image has, `has_chroma_rows`, come the colours of its 2 x 2
    blocks.
    """

    channels: int
    dtype: str = 'u1'
    code: int | None = None
    has_chroma_rows: bool = False


# Then come length and name of the header, width, height, and the bits of a channel.
_PNG_SIGNATURE, _PNG_BITS = b'\x89PNG\r\n\x1a\n', slice(24, 25)
# How JPEG and PNG end; some cameras pad what follows.
_END_MARKS = (b'\xff\xd9', b'IEND')
_END_SEARCH_BYTES = 1024

# OpenCV names a Bayer pattern by the second row, ROS by the first: rggb8 is its BG.
ENCODINGS = {
    'rgb8': _Encoding(3),
    'bgr8': _Encoding(3, code=cv2.COLOR_BGR2RGB),
    'rgba8': _Encoding(4, code=cv2.COLOR_RGBA2RGB),
    'bgra8': _Encoding(4, code=cv2.COLOR_BGRA2RGB),
    'mono8': _Encoding(1),
    'rgb16': _Encoding(3, dtype='u2'),
    'bgr16': _Encoding(3, dtype='u2', code=cv2.COLOR_BGR2RGB),
    'mono16': _Encoding(1, dtype='u2'),
    '8UC1': _Encoding(1),
    '8UC3': _Encoding(3, code=cv2.COLOR_BGR2RGB),
    '16UC1': _Encoding(1, dtype='u2'),
    'yuv422': _Encoding(2, code=cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': _Encoding(2, code=cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': _Encoding(2, code=cv2.COLOR_YUV2RGB_YUYV),
    'yuyv': _Encoding(2, code=cv2.COLOR_YUV2RGB_YUYV),
    'nv12': _Encoding(1, code=cv2.COLOR_YUV2RGB_NV12, has_chroma_rows=True),
    'nv21': _Encoding(1, code=cv2.COLOR_YUV2RGB_NV21, has_chroma_rows=True),
    **{
        f'bayer_{pattern}{bits}': _Encoding(1, dtype=dtype, code=code)
        for bits, dtype in ((8, 'u1'), (16, 'u2'))
        for pattern, code in (
            ('rggb', cv2.COLOR_BayerBG2RGB),
            ('bggr', cv2.COLOR_BayerRG2RGB),
            ('gbrg', cv2.COLOR_BayerGR2RGB),
            ('grbg', cv2.COLOR_BayerGB2RGB),
        )
    },
}


_DEPTH_ENCODINGS = {'16UC1': _Encoding(1, dtype='u2'), '32FC1': _Encoding(1, dtype='f4')}
_STORED_QUALITY = 95
# Some pixels of thermal and infrared cameras are stuck at one end.
_STRETCH_PERCENTILES = (0.2, 99.8)
# Enough pixels for these percentiles; all of them take a percentile longer than the rest.
_STRETCH_SAMPLES = 20_000


def check_stamp(stamp: Time) -> None:
    """Check that an image says when it was taken; TF takes a time of 0 for the newest.

    Raises:
        ImageError: it does not.
    """
    if stamp.sec < 0 or (stamp.sec, stamp.nanosec) == (0, 0):
        raise ImageError(
            f'Image with stamp {stamp.sec} s {stamp.nanosec} ns; wanted the time at which it was '
            'taken, above 0. Let the driver stamp its images.'
        )


def decode_image(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Read the pixels of a camera message.

    Args:
        message: raw, in one of `ENCODINGS`, or compressed as JPEG or PNG.

    Returns:
        (H, W, 3) uint8 RGB or (H, W) uint8 grey. For rgb8 and mono8 a view of the message's own
        memory, with its row padding; 16 bits are stretched from nearly the darkest to nearly the
        brightest of them.

    Raises:
        ImageError: zero size, unknown encoding, wrong step, truncated or damaged data.
    """
    if isinstance(message, CompressedImage):
        return _decode_compressed(message)
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageError(
            f'Image encoding {message.encoding!r} is not supported; wanted one of '
            f'{", ".join(ENCODINGS)}. Set the driver to one of them or convert with image_proc.'
        )
    pixels = _view(message, encoding)
    if encoding.dtype == 'u2':
        pixels = _stretch(pixels)
    if encoding.code is None:
        return pixels
    return cv2.cvtColor(np.ascontiguousarray(pixels), encoding.code)


def stored_image(message: Image | CompressedImage) -> bytes:
    """Give an image as a file: one of 8 bits that came as such as it is, else a good JPEG.

    Raises:
        ImageError: see `decode_image`.
    """
    pixels = decode_image(message)
    if isinstance(message, CompressedImage) and not _has_16_bits(bytes(message.data)):
        return bytes(message.data)
    return encode_jpeg(pixels, _STORED_QUALITY)


def encode_depth(message: Image) -> bytes:
    """Give a depth image as a 16-bit PNG in millimetres, 0 = none.

    Args:
        message: 16UC1 in millimetres or 32FC1 in metres, as REP-118 has them.

    Raises:
        ImageError: another encoding, data that do not fit it, or another unit.
    """
    encoding = _DEPTH_ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ImageError(
            f'Depth encoding {message.encoding!r} is not supported; wanted '
            f'{" or ".join(_DEPTH_ENCODINGS)}. Use the raw depth topic, registered to the image.'
        )
    depth = _view(message, encoding)
    if encoding.dtype == 'f4':
        with np.errstate(invalid='ignore'):
            counts = np.round(depth * 1e3)
            is_known = (counts >= 1) & (counts < max(NO_DEPTH_COUNTS))
        seen = depth[np.isfinite(depth) & (depth > 0)]
        if len(seen) and not is_known.any():
            raise ImageError(
                f'Depth of 32FC1 from {seen.min():g} on; wanted metres, of 0.001 to 65.5. Let its '
                'publisher give metres, or 16UC1 in millimetres.'
            )
        depth = np.where(is_known, counts, 0)
    _, data = cv2.imencode('.png', np.ascontiguousarray(depth, np.uint16))
    return data.tobytes()


def encode_image(pixels: NDArray[np.uint8], header: Header) -> Image:
    """Make a raw image message.

    Args:
        pixels: (H, W, 3) uint8 RGB or (H, W) uint8 grey.
        header: stamp and frame of the image.

    Returns:
        The message, rgb8 or mono8.
    """
    height, width = pixels.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding='rgb8' if pixels.ndim == 3 else 'mono8',
        step=pixels[0].nbytes,
        data=array('B', pixels.tobytes()),
    )


def _view(message: Image, encoding: _Encoding) -> NDArray[Any]:
    """Lay a checked numpy view over the message's data, without a copy."""
    height, width = message.height, message.width
    if height == 0 or width == 0:
        raise ImageError(
            f'Image of {width} x {height} px; wanted a width and height above 0. '
            'Look at the camera driver.'
        )
    dtype = np.dtype(encoding.dtype).newbyteorder('>' if message.is_bigendian else '<')
    row_bytes = width * encoding.channels * dtype.itemsize
    num_bytes = len(message.data)
    if (encoding.channels == 2 and width % 2) or (
        encoding.has_chroma_rows and (width % 2 or height % 2)
    ):
        raise ImageError(
            f'Image of {width} x {height} px in {message.encoding}; wanted even numbers, because '
            'pixels share their colour. Correct size or encoding in the driver.'
        )
    rows = height * 3 // 2 if encoding.has_chroma_rows else height
    if message.step < row_bytes:
        raise ImageError(
            f'Image step is {message.step} bytes; wanted at least {row_bytes} for {width} px of '
            f'{message.encoding}. Correct step, width or encoding in the driver.'
        )
    if num_bytes != message.step * rows:
        raise ImageError(
            f'Image data has {num_bytes} bytes; wanted step x rows = {message.step} x {rows} '
            f'= {message.step * rows}. It is truncated or step is wrong: look at the driver.'
        )
    strides = (message.step, encoding.channels * dtype.itemsize, dtype.itemsize)
    pixels = np.ndarray((rows, width, encoding.channels), dtype, message.data, strides=strides)
    return pixels[:, :, 0] if encoding.channels == 1 else pixels


def _stretch(counts: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Spread 10, 12, 14 or 16-bit counts over 8 bits; drivers do not say how many are used."""
    step = max(math.isqrt(counts.size // _STRETCH_SAMPLES), 1)
    sample = counts[::step, ::step]
    low, high = np.percentile(sample, _STRETCH_PERCENTILES).astype(np.float32)
    if low == high:
        # Nearly all of it is equal: what is not may be all there is to see.
        low, high = np.float32(counts.min()), np.float32(counts.max())
    scaled = (counts - low) * np.float32(255 / max(high - low, 1))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _decode_compressed(message: CompressedImage) -> NDArray[np.uint8]:
    data = bytes(message.data)
    # OpenCV decodes what there is of a truncated file, so the mark of its end is looked for.
    is_whole = any(mark in data[-_END_SEARCH_BYTES:] for mark in _END_MARKS)
    decode = _decode_16_bits if _has_16_bits(data) else decode_rgb
    pixels = decode(data) if is_whole else None
    if pixels is None:
        raise ImageError(
            f'Compressed image of format {message.format!r} and {len(data)} bytes does not '
            'decode; wanted a whole JPEG or PNG. Look at the publisher of the compressed topic.'
        )
    return pixels


def _has_16_bits(data: bytes) -> bool:
    return data.startswith(_PNG_SIGNATURE) and data[_PNG_BITS] == b'\x10'


def _decode_16_bits(data: bytes) -> NDArray[np.uint8] | None:
    counts = decode_stored(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if counts is None:
        return None
    pixels = _stretch(counts)
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
