"""The file of an import: named or on standard input, plain or packed, known by the digest of its bytes."""

import gzip
import hashlib
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tenantry.cli import Misused

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_DIGEST_DIGITS: Final = 16
_CHUNK: Final = 16 << 10
"""May unpack to a thousand times as much."""
_BUFFER: Final = 128 << 10


@dataclass(slots=True)
class Source:
    """A file that can be read more than once. `prefix` begins the ids of its events; `size` is on disk."""

    path: Path
    name: str
    prefix: str
    size: int
    reading: IO[bytes] | None = None

    @property
    def position(self) -> int:
        """How many of the bytes on disk have been read."""
        if self.reading is None:
            return 0
        return self.size if self.reading.closed else self.reading.tell()

    @classmethod
    def of(cls, path: Path, name: str) -> "Source":
        """Raises OSError."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, name, digest[:_DIGEST_DIGITS], path.stat().st_size)


@contextmanager
def open_source(file: Path) -> Iterator[Source]:
    """The file, or a copy of standard input for `-`, which is removed at the end. Raises Misused."""
    if str(file) != "-":
        try:
            source = Source.of(file, str(file))
        except OSError as error:
            raise Misused(f"{file} cannot be read: {error.strerror}") from None
        yield source
        return
    with tempfile.NamedTemporaryFile(prefix="tenantry-import-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield Source.of(Path(copy.name), "standard input")


@contextmanager
def open_bytes(source: Source) -> Iterator[IO[bytes]]:
    """The content, unpacked where it is gzip or zstd by its first bytes. Raises Misused where it is cut off."""
    with source.path.open("rb") as raw:
        source.reading = raw
        head = raw.read(4)
        raw.seek(0)
        try:
            if head.startswith(_GZIP):
                with gzip.open(raw) as unpacked:
                    yield unpacked  # type: ignore[misc]  # GzipFile reads as a file does
            elif head == _ZSTD:
                with io.BufferedReader(_Chunks(_unpack(raw)), _BUFFER) as unpacked_frames:
                    yield unpacked_frames
            else:
                yield raw
        except (EOFError, zlib.error, gzip.BadGzipFile, BrokenFrame) as error:
            raise Misused(f"{source.name} is cut off or damaged: {error}") from None


class BrokenFrame(Exception):
    """A frame of zstd that does not end, or is none."""


def _unpack(raw: IO[bytes]) -> Iterator[bytes]:
    """The content of frames of zstd one behind the other, as `zstd` and log rotation write them. Raises BrokenFrame.

    The reader of zstandard takes a frame that is cut off for one that has ended.
    """
    import zstandard  # noqa: PLC0415 - few files are

    unpacker = zstandard.ZstdDecompressor()
    frame, is_open = unpacker.decompressobj(), False
    while packed := raw.read(_CHUNK):
        while packed:
            try:
                yield frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise BrokenFrame(f"{error}") from None
            packed, is_open = frame.unused_data, not frame.eof
            if frame.eof:
                frame = unpacker.decompressobj()
    if is_open:
        raise BrokenFrame("its end is missing")


class _Chunks(io.RawIOBase):
    """A file of what an iterator gives."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


@contextmanager
def open_text(source: Source, *, newline: str) -> Iterator[IO[str]]:
    """The content as UTF-8; bytes that are none become U+FFFD, so that one bad line stops no other."""
    with open_bytes(source) as raw, io.TextIOWrapper(raw, "utf-8", errors="replace", newline=newline) as text:
        yield text
