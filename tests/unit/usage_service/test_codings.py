"""Packed bodies: whole or refused, and never larger than they may be."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from usage_service.ingest.codings import BrokenPacking, Coding, TooLargeUnpacked, unpack

PACK: dict[Coding, Callable[[bytes], bytes]] = {Coding.GZIP: gzip.compress, Coding.ZSTD: zstandard.compress}
BOTH = pytest.mark.parametrize("coding", list(Coding))
TEXT = b'{"id":"1","data":{"bytes":1}}' * 50


def streamed(text: bytes) -> bytes:
    """A zstd frame that does not say how long it is, as streams are written."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(text) + packer.flush()


@given(st.sampled_from(list(Coding)), st.binary(max_size=2_000), st.integers(0, 4))
def test_what_was_packed_comes_out(coding, text, cuts):
    size = max(1, len(text) // (cuts + 1))
    parts = [text[start : start + size] for start in range(0, len(text), size)] or [b""]
    assert unpack(b"".join(map(PACK[coding], parts)), coding, limit=len(text)) == text


def test_a_frame_without_its_length():
    assert unpack(streamed(TEXT), Coding.ZSTD, limit=len(TEXT)) == TEXT


@BOTH
def test_one_byte_too_many(coding):
    with pytest.raises(TooLargeUnpacked):
        unpack(PACK[coding](TEXT), coding, limit=len(TEXT) - 1)
    with pytest.raises(TooLargeUnpacked):
        unpack(PACK[coding](TEXT) * 2, coding, limit=2 * len(TEXT) - 1)


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        (Coding.GZIP, gzip.compress(bytes(256 << 20))),
        (Coding.ZSTD, zstandard.compress(bytes(256 << 20))),
        (Coding.ZSTD, streamed(bytes(256 << 20))),
    ],
    ids=["gzip", "zstd", "zstd stream"],
)
def test_a_bomb_is_refused_before_it_takes_memory(coding, bomb):
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeUnpacked):
            unpack(bomb, coding, limit=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@BOTH
@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:3],
        lambda _: b"",
        lambda packed: packed + b"x",
        lambda packed: packed + b"\0",
        lambda packed: packed + packed[:-1],
        lambda packed: b"x" + packed,
        lambda _: TEXT,
        lambda packed: packed * 33,
    ],
    ids=["cut", "half", "head", "empty", "behind", "padding", "second cut", "before", "plain", "many members"],
)
def test_damaged_bodies(coding, damage):
    with pytest.raises(BrokenPacking):
        unpack(damage(PACK[coding](TEXT)), coding, limit=1 << 20)


def test_the_other_coding_and_none():
    for packed in (zlib.compress(TEXT), zstandard.compress(TEXT)):
        with pytest.raises(BrokenPacking):
            unpack(packed, Coding.GZIP, limit=1 << 20)
    with pytest.raises(BrokenPacking):
        unpack(gzip.compress(TEXT), Coding.ZSTD, limit=1 << 20)


def test_a_wrong_checksum():
    packed = bytearray(gzip.compress(TEXT))
    packed[-8] ^= 1
    with pytest.raises(BrokenPacking):
        unpack(bytes(packed), Coding.GZIP, limit=1 << 20)


def test_a_window_larger_than_anybody_needs():
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(BrokenPacking):
        unpack(packer.compress(TEXT) + packer.flush(), Coding.ZSTD, limit=1 << 20)
