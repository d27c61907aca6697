"""Bytes on their way in and out, so that no slow client ever holds a database transaction.

An upload is received whole into an unnamed temporary file before the first row is written; a client that goes away, or
a killed process, leaves nothing behind. A download reads a few chunks at a time, each time in a transaction of its own.
"""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import SpooledTemporaryFile

from tenantry import PayloadTooLarge

CHUNK_BYTES = 256 * 1024
CHUNKS_PER_READ = 4
_IN_MEMORY = 4 * CHUNK_BYTES

ChunkReader = Callable[[int, int], Awaitable[Sequence[bytes]]]


@dataclass(frozen=True, slots=True)
class Upload:
    """A received body. It can be read once."""

    size: int
    sha256: bytes
    _file: SpooledTemporaryFile[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of CHUNK_BYTES, the last one shorter; an empty body has none."""
        await self._file.seek(0)
        while chunk := await self._file.read(CHUNK_BYTES):
            yield chunk


@asynccontextmanager
async def receive(body: AsyncIterable[bytes], *, limit: int) -> AsyncIterator[Upload]:
    """Receive `body` to its end.

    Raises PayloadTooLarge as soon as more than `limit` bytes have come, and what `body` raises when the client leaves.
    """
    digest = hashlib.sha256()
    size = 0
    async with SpooledTemporaryFile[bytes](max_size=_IN_MEMORY) as file:
        pending = bytearray()
        async for piece in body:
            size += len(piece)
            if size > limit:
                raise PayloadTooLarge(f"A file has at most {limit} bytes.")
            digest.update(piece)
            pending += piece
            if len(pending) >= CHUNK_BYTES:
                await file.write(bytes(pending))
                pending.clear()
        await file.write(bytes(pending))
        yield Upload(size=size, sha256=digest.digest(), _file=file)


async def send(size: int, read: ChunkReader) -> AsyncIterator[bytes]:
    """The content of a file, got by `read(first chunk, how many)`.

    Raises ContentGone when the chunks end early: the file was replaced or deleted meanwhile. The response breaks off
    then, short of its Content-Length, and never goes on with other content.
    """
    sent = position = 0
    while sent < size:
        chunks = await read(position, CHUNKS_PER_READ)
        if not chunks:
            raise ContentGone(f"the content ended after {sent} of {size} bytes")
        for chunk in chunks:
            yield chunk
            sent += len(chunk)
        position += len(chunks)


class ContentGone(Exception):
    """A file was replaced or deleted while it was being sent."""
