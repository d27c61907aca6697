"""The file of an import: named or on standard input, plain or packed, known by the digest of its bytes."""

import gzip
import hashlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tenantry.cli import Misused

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_DIGEST_DIGITS: Final = 16


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
    """The content, unpacked where it is gzip or zstd by its first bytes."""
    with source.path.open("rb") as raw:
        source.reading = raw
        head = raw.read(4)
        raw.seek(0)
        if head.startswith(_GZIP):
            with gzip.open(raw) as unpacked:
                yield unpacked  # type: ignore[misc]  # GzipFile reads as a file does
        elif head == _ZSTD:
            import zstandard  # noqa: PLC0415 - few files are

            # A file may be several frames one behind the other, as `zstd` and log rotation write them.
            reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            with io.BufferedReader(reader) as unpacked_frames:
                yield unpacked_frames
        else:
            yield raw


@contextmanager
def open_text(source: Source, *, newline: str) -> Iterator[IO[str]]:
    """The content as UTF-8; bytes that are none become U+FFFD, so that one bad line stops no other."""
    with open_bytes(source) as raw, io.TextIOWrapper(raw, "utf-8", errors="replace", newline=newline) as text:
        yield text
