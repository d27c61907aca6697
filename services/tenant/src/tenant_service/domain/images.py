"""Pictures that may be served to browsers: what they are is told by their content, never by what their sender says.

PNG (W3C PNG, third edition), JPEG (ITU-T T.81) and WebP (RFC 9649) are read as far as to their size and their end, so
that nothing else can hide behind a picture. SVG is a document that runs scripts and is not among them.
"""

import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

MAX_BYTES: Final = 512 * 1024
MAX_SIDE: Final = 4096

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
# Start of frame: all codings but the four numbers that mean tables and extensions.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})


class UnusableImage(ValueError):
    """What was sent is no picture that may be shown."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a picture is, as its content says."""

    media_type: str
    width: int
    height: int


def inspect_image(content: bytes) -> Image:
    """What `content` is. Raises `UnusableImage` with the reason."""
    if len(content) > MAX_BYTES:
        raise UnusableImage(f"a logo has at most {MAX_BYTES} bytes")
    try:
        if content.startswith(_PNG):
            image = Image("image/png", *_png_size(content))
        elif content.startswith(_JPEG):
            image = Image("image/jpeg", *_jpeg_size(content))
        elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            image = Image("image/webp", *_webp_size(content))
        else:
            raise UnusableImage("a logo is a PNG, JPEG or WebP picture")
    except (struct.error, IndexError):
        raise UnusableImage("the picture is cut off") from None
    if not (1 <= image.width <= MAX_SIDE and 1 <= image.height <= MAX_SIDE):
        raise UnusableImage(f"a logo is at most {MAX_SIDE} pixels wide and high")
    return image


def _png_size(content: bytes) -> tuple[int, int]:
    size, at, kind, data_seen = None, len(_PNG), b"", False
    while kind != b"IEND":
        (length,) = struct.unpack_from(">I", content, at)
        kind = content[at + 4 : at + 8]
        (checksum,) = struct.unpack_from(">I", content, at + 8 + length)
        if crc32(content[at + 4 : at + 8 + length]) != checksum:
            raise UnusableImage("a part of the picture is damaged")
        if size is None:
            if kind != b"IHDR" or length != 13:
                raise UnusableImage("the picture does not begin with its header")
            size = struct.unpack_from(">II", content, at + 8)
        data_seen = data_seen or kind == b"IDAT"
        at += 12 + length
    if at != len(content):
        raise UnusableImage("something follows the end of the picture")
    if size is None or not data_seen:
        raise UnusableImage("the picture is empty")
    return size


def _jpeg_size(content: bytes) -> tuple[int, int]:
    if not content.endswith(b"\xff\xd9"):
        raise UnusableImage("something follows the end of the picture, or it is cut off")
    at = len(_JPEG)
    while True:
        if content[at] != 0xFF:
            raise UnusableImage("a part of the picture is damaged")
        marker = content[at + 1]
        if marker == 0xFF:  # a marker may be padded
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        elif marker in {0xD9, 0xDA}:
            raise UnusableImage("the picture has no size")
        else:
            (length,) = struct.unpack_from(">H", content, at + 2)
            at += 2 + length


def _webp_size(content: bytes) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", content, 4)
    if length + 8 != len(content):
        raise UnusableImage("something follows the end of the picture, or it is cut off")
    kind = content[12:16]
    if kind == b"VP8 ":
        if content[23:26] != b"\x9d\x01\x2a":
            raise UnusableImage("a part of the picture is damaged")
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", content, 20)
        if signature != 0x2F:
            raise UnusableImage("a part of the picture is damaged")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width = int.from_bytes(content[24:27], "little") + 1
        height = int.from_bytes(content[27:30], "little") + 1
        if len(content) < 30:
            raise UnusableImage("the picture is cut off")
        return width, height
    raise UnusableImage("a part of the picture is damaged")
