import hashlib

import pytest

from app_service.streams import CHUNK_BYTES, CHUNKS_PER_READ, ContentGone, receive, send
from tenantry import PayloadTooLarge


async def body(*pieces):
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 17])
async def test_an_upload_comes_back_in_whole_chunks(size):
    content = bytes(n % 251 for n in range(size))
    pieces = [content[at : at + 10_007] for at in range(0, size, 10_007)]
    async with receive(body(*pieces), limit=size) as upload:
        chunks = [chunk async for chunk in upload.chunks()]
    assert b"".join(chunks) == content
    assert upload.size == size
    assert upload.sha256 == hashlib.sha256(content).digest()
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1])


async def test_an_upload_is_cut_off_at_its_limit_and_not_read_further():
    taken = []

    async def endless():
        while True:
            taken.append(1)
            yield b"x" * 1000

    with pytest.raises(PayloadTooLarge):
        async with receive(endless(), limit=5_500):
            raise AssertionError("an oversized upload was handed over")
    assert len(taken) == 6


async def test_what_the_body_raises_comes_through():
    async def breaks():
        yield b"some"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        async with receive(breaks(), limit=100):
            raise AssertionError("half an upload was handed over")


def reader(content, reads):
    chunks = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]

    async def read(start, count):
        reads.append((start, count))
        return chunks[start : start + count]

    return read


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES * CHUNKS_PER_READ, CHUNK_BYTES * 9 + 5])
async def test_a_download_reads_a_few_chunks_at_a_time(size):
    content = bytes(n % 249 for n in range(size))
    reads: list[tuple[int, int]] = []
    assert b"".join([piece async for piece in send(size, reader(content, reads))]) == content
    assert [start for start, _ in reads] == list(range(0, -(-size // CHUNK_BYTES), CHUNKS_PER_READ))


async def test_a_download_breaks_off_when_the_content_is_gone():
    pieces = send(3 * CHUNK_BYTES, reader(b"x" * CHUNK_BYTES, []))
    assert await anext(pieces) == b"x" * CHUNK_BYTES
    with pytest.raises(ContentGone):
        await anext(pieces)
