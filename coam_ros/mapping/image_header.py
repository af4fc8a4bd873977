"""Size and completeness of JPEG and PNG bytes, found without decoding a pixel.

A map of 1,000 keyframes is checked by these in a fraction of a second; decoding all of it
would take a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
import struct
import zlib

from coam_ros.mapping.errors import MapFormatError

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_JPEG_START = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_JPEG_SCAN = 0xDA
# Start-of-frame markers; C4, C8 and CC of this range mean something else (ITU T.81, table B.1).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length field: TEM and RST0..RST7.
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True)
class ImageHeader:
    """What the first bytes of an encoded image say.

    Attributes:
        format: 'jpeg' or 'png'.
        width: columns.
        height: rows.
        bits: bits a channel.
        channels: 1 grey, 2 grey + alpha, 3 colour (also a PNG palette), 4 colour + alpha.
    """

    format: str
    width: int
    height: int
    bits: int
    channels: int


def read_image_header(data: bytes) -> ImageHeader:
    """Read the header of a JPEG or PNG and check that the data is whole.

    A cut PNG is found by walking its chunks to the end mark, each with its CRC. A cut JPEG is
    found by its missing end mark after the start of the pixel data (a thumbnail's end mark, which
    lies before it, does not count).

    Args:
        data: the encoded image, as a file of it holds it.

    Raises:
        MapFormatError: empty, neither JPEG nor PNG, cut short or damaged.
    """
    if data.startswith(_PNG_SIGNATURE):
        return _read_png(data)
    if data.startswith(_JPEG_START):
        return _read_jpeg(data)
    start = bytes(data[:8]).hex(' ') or 'nothing'
    raise MapFormatError(
        f'Not an encoded image: {len(data)} bytes that start with {start}, wanted a JPEG '
        '(ff d8) or PNG (89 50 4e 47); encode the image as one of these'
    )


def _read_png(data: bytes) -> ImageHeader:
    header = None
    offset = len(_PNG_SIGNATURE)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from('>I4s', data, offset)
        end = offset + 12 + length
        if end > len(data):
            break
        (crc,) = struct.unpack_from('>I', data, end - 4)
        if zlib.crc32(memoryview(data)[offset + 4 : end - 4]) != crc:
            raise MapFormatError(
                f'PNG is damaged: the CRC of chunk {kind!r} at byte {offset} is not right; '
                'write the image again'
            )
        if kind == b'IHDR' and length == 13:
            width, height, bits, colour_type = struct.unpack_from('>IIBB', data, offset + 8)
            channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour_type, 0)
            header = ImageHeader('png', width, height, bits, channels)
        if kind == b'IEND':
            if header is None or min(header.width, header.height, header.channels) < 1:
                raise MapFormatError(
                    'PNG has no valid header (IHDR): wanted a width and height of at least 1; '
                    'write the image again'
                )
            return header
        offset = end
    raise MapFormatError(
        f'PNG is cut short: {len(data)} bytes without an end mark (IEND); '
        'copy or write the image again'
    )


def _read_jpeg(data: bytes) -> ImageHeader:
    header = None
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker in _JPEG_BARE:
            offset += 2
            continue
        (length,) = struct.unpack_from('>H', data, offset + 2)
        if marker in _JPEG_FRAMES and offset + 10 <= len(data):
            bits, height, width, channels = struct.unpack_from('>BHHB', data, offset + 4)
            header = ImageHeader('jpeg', width, height, bits, channels)
        if marker == _JPEG_SCAN:
            break
        offset += 2 + length
    if data.rfind(_JPEG_END) < offset + 2 or header is None:
        raise MapFormatError(
            f'JPEG is cut short: {len(data)} bytes without an end mark (ff d9) after the start of '
            'its pixels; copy or write the image again'
        )
    if min(header.width, header.height) < 1:
        raise MapFormatError(
            f'JPEG states a size of {header.width} x {header.height}, wanted at least 1 x 1; '
            'write the image again'
        )
    return header
