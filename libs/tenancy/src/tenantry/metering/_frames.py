"""How an event lies in a spool segment: length, checksum, key and value; a torn frame can be told from a whole one.

A frame is `<u32 body length><u32 crc32 of the body><body>`, the body `<u16 key length><key><value>`, little-endian.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

_HEAD: Final = struct.Struct("<IIH")
HEAD_BYTES: Final = _HEAD.size
_KEY_LENGTH_BYTES: Final = 2

# Longer than any event: a length beyond it is not a length.
MAX_BODY_BYTES: Final = 1 << 20


class Damage(NamedTuple):
    """Where a segment stops being readable. `torn` means that it ends inside a frame, as a killed writer leaves it."""

    offset: int
    torn: bool


def frame(key: bytes, value: bytes) -> bytes:
    length = len(key).to_bytes(_KEY_LENGTH_BYTES, "little")
    checksum = crc32(value, crc32(key, crc32(length)))
    return _HEAD.pack(_KEY_LENGTH_BYTES + len(key) + len(value), checksum, len(key)) + key + value


def read_frames(data: bytes, base: int = 0) -> Iterator[tuple[bytes, bytes, int] | Damage]:
    """Each frame's key, value and the offset behind it; a `Damage` last, where the data does not end with a frame."""
    view = memoryview(data)
    at, end = 0, len(data)
    while at < end:
        if end - at < HEAD_BYTES:
            yield Damage(base + at, torn=True)
            return
        length, checksum, key_length = _HEAD.unpack_from(view, at)
        body = at + HEAD_BYTES - _KEY_LENGTH_BYTES
        after = body + length
        if not _KEY_LENGTH_BYTES + key_length <= length <= MAX_BODY_BYTES:
            yield Damage(base + at, torn=False)
            return
        if after > end:
            yield Damage(base + at, torn=True)
            return
        if crc32(view[body:after]) != checksum:
            yield Damage(base + at, torn=False)
            return
        value_at = body + _KEY_LENGTH_BYTES + key_length
        yield bytes(view[body + _KEY_LENGTH_BYTES : value_at]), bytes(view[value_at:after]), base + after
        at = after
