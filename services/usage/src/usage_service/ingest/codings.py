"""Bodies that come packed: gzip (RFC 1952) and zstd (RFC 8878), unpacked in one go and never beyond a bound."""

from __future__ import annotations

import zlib
from enum import Enum
from typing import Final

import zstandard

_GZIP_WINDOW_BITS: Final = 16 + zlib.MAX_WBITS
# Any decoder of the content coding takes windows of this size, so nobody may need larger ones (RFC 9659).
_ZSTD_WINDOW_BYTES: Final = 8 << 20
# Each member is set up, and finding its end copies what follows: a body of nothing but ends would take minutes.
_MAX_MEMBERS: Final = 32
_CHUNK: Final = 64 << 10


class Coding(Enum):
    """A content coding."""

    GZIP = "gzip"
    ZSTD = "zstd"


ACCEPTED: Final = ", ".join(coding.value for coding in Coding)


class BrokenPacking(ValueError):
    """The body is not what its coding says: damaged, cut off, or with something behind it."""


class TooLargeUnpacked(ValueError):
    """The body has more bytes than it may; hardly more than that was unpacked."""


def unpack(packed: bytes, coding: Coding, *, limit: int) -> bytes:
    """The body, of `limit` bytes at most. Raises BrokenPacking and TooLargeUnpacked.

    It is given as a whole, because a decoder that waits for the rest of a body keeps its window meanwhile, of up to
    8 MiB for some bytes of a client. Both codings allow members one after the other.
    """
    if coding is Coding.ZSTD:
        _check_zstd_size(packed, limit)
    members: list[bytes] = []
    room = limit
    try:
        while True:
            member, is_whole, rest = _gunzip(packed, room + 1) if coding is Coding.GZIP else _unzstd(packed)
            room -= len(member)
            if room < 0:
                raise TooLargeUnpacked
            if not is_whole:
                raise BrokenPacking("it is cut off")
            members.append(member)
            if not rest:
                return members[0] if len(members) == 1 else b"".join(members)
            if len(members) == _MAX_MEMBERS:
                raise BrokenPacking(f"it has more than {_MAX_MEMBERS} members")
            packed = rest
    except (zlib.error, zstandard.ZstdError) as error:
        raise BrokenPacking(f"{error}") from None


def _gunzip(packed: bytes, most: int) -> tuple[bytes, bool, bytes]:
    """The first member, of which no more than `most` bytes; whether it is whole; and what follows it."""
    member = zlib.decompressobj(_GZIP_WINDOW_BITS)
    return member.decompress(packed, most), member.eof, member.unused_data


def _unzstd(packed: bytes) -> tuple[bytes, bool, bytes]:
    """As `_gunzip`, but unbounded: it tells where a frame ends, and the reader that has a bound does not."""
    frame = _zstd().decompressobj()
    return frame.decompress(packed), frame.eof, frame.unused_data


def _check_zstd_size(packed: bytes, limit: int) -> None:
    buffer = bytearray(_CHUNK)
    unpacked = 0
    try:
        with _zstd().stream_reader(packed, read_across_frames=True) as reader:
            while size := reader.readinto(buffer):
                unpacked += size
                if unpacked > limit:
                    raise TooLargeUnpacked
    except zstandard.ZstdError as error:
        raise BrokenPacking(f"{error}") from None


def _zstd() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
