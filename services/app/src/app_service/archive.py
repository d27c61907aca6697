"""A ZIP archive that is written into an unnamed temporary file, piece by piece, and read from it once."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import IO, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from app_service.streams import CHUNK_BYTES

_COMPRESSION_LEVEL: Final = 6


class Archive:
    """Packing takes time, and so happens in threads: the event loop has heartbeats to send."""

    def __init__(self, file: IO[bytes], packer: ZipFile) -> None:
        """`packer` writes to `file`."""
        self._file = file
        self._zip = packer

    async def add(self, name: str, at: datetime, pieces: AsyncIterable[bytes]) -> None:
        """An entry with this path, time and content."""
        entry = ZipInfo(name, date_time=at.timetuple()[:6])
        entry.compress_type = ZIP_DEFLATED
        with self._zip.open(entry, "w", force_zip64=True) as out:
            async for piece in pieces:
                await asyncio.to_thread(out.write, piece)

    async def close(self) -> tuple[int, bytes]:
        """The size and the SHA-256 of the whole archive, to which nothing can be added any more."""
        await asyncio.to_thread(self._zip.close)
        return await asyncio.to_thread(self._measure)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The closed archive in pieces of CHUNK_BYTES, the last one shorter."""
        self._file.seek(0)
        while chunk := await asyncio.to_thread(self._file.read, CHUNK_BYTES):
            yield chunk

    def _measure(self) -> tuple[int, bytes]:
        digest = hashlib.sha256()
        self._file.seek(0)
        while piece := self._file.read(CHUNK_BYTES):
            digest.update(piece)
        return self._file.tell(), digest.digest()


@asynccontextmanager
async def new_archive() -> AsyncIterator[Archive]:
    """An empty archive; it is gone when the block ends, or the process dies."""
    with (
        tempfile.TemporaryFile(prefix="export-") as file,
        ZipFile(file, "w", ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as packer,
    ):
        yield Archive(file, packer)
