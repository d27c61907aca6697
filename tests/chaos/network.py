"""Connections that can be cut: what a process knows as a server's address is a port of ours."""

from __future__ import annotations

import asyncio
from contextlib import suppress

HOST = "127.0.0.1"
_CHUNK = 1 << 16


class Wire:
    """Passes bytes between whoever connects to `port` and the server on another port of this machine."""

    def __init__(self, server: int, port: int = 0) -> None:
        """`port` 0 is one of the system's choice."""
        self._server = server
        self._port = port
        self._listening: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Stays what it was at first, whatever is cut. Only after join()."""
        return self._port

    async def join(self) -> None:
        """Accepts connections, from now on or again."""
        self._listening = await asyncio.start_server(self._accept, HOST, self._port, reuse_address=True)
        self._port = self._listening.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Ends all connections, on both sides, and refuses new ones."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        passing = list(self._passing)
        for each in passing:
            each.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: those of the streams complain when they are cancelled.
        passing = asyncio.create_task(self._pass_both(reader, writer))
        self._passing.add(passing)
        passing.add_done_callback(self._passing.discard)

    async def _pass_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            beyond_reader, beyond = await asyncio.open_connection(HOST, self._server)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pass(reader, beyond), _pass(beyond_reader, writer))
        finally:
            writer.transport.abort()
            beyond.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()
