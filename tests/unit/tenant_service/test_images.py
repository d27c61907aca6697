"""Logos: told by their content."""

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.images import MAX_BYTES, MAX_SIDE, Image, UnusableImage, inspect_image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))


def png(width=3, height=2, *, body=None):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", b"pixels") if body is None else body
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def jpeg(width=3, height=2, *, frame=0xC0):
    application = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + bytes(9)
    start = bytes([0xFF, frame]) + struct.pack(">HBHHB", 11, 8, height, width, 1) + bytes(3)
    return b"\xff\xd8" + application + b"\xff" + start + b"\xff\xda" + struct.pack(">H", 2) + b"scan" + b"\xff\xd9"


def webp(kind, data):
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


LOSSY = webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 3 | 0x4000, 2))
LOSSLESS = webp(b"VP8L", struct.pack("<BI", 0x2F, (3 - 1) | (2 - 1) << 14) + b"\0")
EXTENDED = webp(b"VP8X", b"\x10\0\0\0" + (3 - 1).to_bytes(3, "little") + (2 - 1).to_bytes(3, "little"))


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (png(), "image/png"),
        (jpeg(), "image/jpeg"),
        (jpeg(frame=0xC2), "image/jpeg"),
        (LOSSY, "image/webp"),
        (LOSSLESS, "image/webp"),
        (EXTENDED, "image/webp"),
    ],
    ids=["png", "jpeg", "progressive jpeg", "lossy webp", "lossless webp", "extended webp"],
)
def test_type_and_size_are_read(content, media_type):
    assert inspect_image(content) == Image(media_type, 3, 2)
    for length in range(len(content)):
        with pytest.raises(UnusableImage):
            inspect_image(content[:length])
    with pytest.raises(UnusableImage, match="end of the picture"):
        inspect_image(content + b"<script>")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF89a" + bytes(20),
        png(MAX_SIDE + 1, 1),
        png(1, MAX_SIDE + 1),
        png(0, 1),
        png(body=b""),
        png().replace(b"IHDR", b"IHDX"),
        png(body=struct.pack(">I", 2**31) + b"IDAT"),
        jpeg(0, 0),
        jpeg(frame=0xC4),
        b"\xff\xd8" + b"\xff\xda\0\2\xff\xd9",
        b"\xff\xd8\0\0\xff\xd9",
        webp(b"VP8 ", bytes(10)),
        webp(b"VP8L", bytes(10)),
        webp(b"ICCP", bytes(10)),
        png() + bytes(MAX_BYTES),
    ],
)
def test_what_cannot_be_shown(content):
    with pytest.raises(UnusableImage):
        inspect_image(content)


@given(st.sampled_from([png(), jpeg(), LOSSY, LOSSLESS, EXTENDED]), st.integers(0, 80), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(content, place, value):
    damaged = bytearray(content)
    damaged[place % len(content)] = value
    try:
        image = inspect_image(bytes(damaged))
    except UnusableImage:
        return
    assert image.media_type in {"image/png", "image/jpeg", "image/webp"}
