"""What no client library sends: raw bytes to the server as it runs in production."""

import asyncio
import contextlib

import pytest
from processes import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tenantry.cli import serve_http
from tenantry.cli._protocol import MAX_HEAD_BYTES
from tenantry.testing import eventually

POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
GET = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def echo():
    """The port of a server that answers with the size of a body, and the bodies that it has seen."""
    seen: list[bytes] = []

    async def answer(request: Request) -> PlainTextResponse:
        seen.append(await request.body())
        return PlainTextResponse(f"{len(seen[-1])} bytes")

    port = free_port()
    app = Starlette(routes=[Route("/echo", answer, methods=["GET", "POST"])])
    serving = asyncio.create_task(serve_http(app, host="127.0.0.1", port=port))

    async def is_there() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(is_there)
        yield port, seen
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def said(port: int, *parts: bytes) -> bytes:
    """All that the server says to these bytes, which are written one after the other, until it closes or resets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0)
        heard = bytearray()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while part := await reader.read(1 << 16):
                    heard += part
        return bytes(heard)
    finally:
        writer.close()


async def test_heads_as_they_are(echo):
    port, seen = echo
    assert (await said(port, GET + b"\r\n")).endswith(b"0 bytes")
    assert (await said(port, *(bytes([byte]) for byte in POST + b"Content-Length: 3\r\n\r\nabc"))).endswith(b"3 bytes")
    large = b"X-Large: " + b"x" * (MAX_HEAD_BYTES - 1_000) + b"\r\n"
    assert (await said(port, GET + large + b"\r\n")).endswith(b"0 bytes")
    body = b"x" * (1 << 20)
    together = POST + large + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert (await said(port, together)).endswith(b"1048576 bytes")
    assert (await said(port, together[:70_000], together[70_000:])).endswith(b"1048576 bytes")
    chunk = b"%x\r\n" % len(body) + body + b"\r\n"
    assert (await said(port, POST + CHUNKED + b"\r\n" + chunk * 2 + b"0\r\n\r\n")).endswith(b"2097152 bytes")
    small = b"1\r\nx\r\n" * 50_000
    assert (await said(port, POST + CHUNKED + b"\r\n" + small + b"0\r\n\r\n")).endswith(b"50000 bytes")
    assert len(seen) == 7


@pytest.mark.parametrize(
    "head",
    [
        b"GET /echo HTTP/1.1\r\nX-Endless: " + b"x" * (1 << 20),
        b"GET /echo HTTP/1.1\r\n" + b"X-Many: x\r\n" * 100_000,
        b"GET /echo?" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        GET + b"X-Large: " + b"x" * (MAX_HEAD_BYTES + 1_000) + b"\r\n\r\n",
        GET + b"X-Large: " + b"x" * (1 << 20) + b"\r\n\r\n",
    ],
    ids=["a header without end", "headers without end", "an address", "a large one", "a very large one"],
)
async def test_a_head_has_an_end(echo, head):
    port, seen = echo
    answer = await said(port, head)
    assert answer.startswith(b"HTTP/1.1 431 "), answer[:200]
    assert answer.count(b"HTTP/1.1") == 1
    assert seen == []
    assert (await said(port, GET + b"\r\n")).endswith(b"0 bytes")


async def test_a_head_behind_another_request_has_an_end(echo):
    port, _ = echo
    first = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
    assert b"431" not in await said(port, first * 2 + GET + b"\r\n")
    answer = await said(port, first, b"GET /echo HTTP/1.1\r\nX: " + b"x" * (1 << 20))
    assert answer.count(b"HTTP/1.1") <= 2
    assert b"431" in answer or answer.count(b"200 OK") <= 1


async def test_what_follows_a_body_has_an_end(echo):
    port, seen = echo
    trailers = b"X-More: x\r\n" * 100_000
    answer = await said(port, POST + CHUNKED + b"\r\n" + b"1\r\nx\r\n0\r\n" + trailers)
    assert b"200 OK" not in answer
    assert seen == []


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\n" + CHUNKED,
        CHUNKED + b"Content-Length: 3\r\n",
        b"Content-Length: 3, 4\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length : 3\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ],
)
async def test_a_length_that_could_be_understood_in_two_ways_is_refused(echo, head):
    """A proxy may have taken the other one: what follows would be somebody else's request."""
    port, seen = echo
    answer = await said(port, POST + head + b"\r\nabc" + b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert seen == []
