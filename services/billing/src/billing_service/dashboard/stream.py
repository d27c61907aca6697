"""Server-sent events to many pages: one frame for all of them, and nobody waits for a slow one."""

import asyncio
from contextlib import suppress
from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = structlog.get_logger(__name__)

CLIENTS = Gauge("billing_console_clients", "Open console streams")
DROPPED = Counter("billing_console_dropped_total", "Console streams ended because their client was too slow")

QUEUE_FRAMES: Final = 8
HEARTBEAT: Final = b": still here\n\n"
_SEND_SECONDS: Final = 10.0


def frame(event: str, data: bytes) -> bytes:
    """One server-sent event; `data` is JSON without line breaks."""
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


class Client:
    """One open page. Its queue is bounded; a client that lets it fill is closed and will connect again by itself."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_FRAMES)
        self.closed = asyncio.Event()

    def offer(self, frame_bytes: bytes) -> bool:
        try:
            self.frames.put_nowait(frame_bytes)
        except asyncio.QueueFull:
            self.closed.set()
            return False
        return True


class Hub:
    """The open pages and the latest frame, which a new one gets first."""

    def __init__(self, max_clients: int = 200) -> None:
        self._clients: set[Client] = set()
        self._latest: bytes | None = None
        self._max_clients = max_clients

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def is_full(self) -> bool:
        return len(self._clients) >= self._max_clients

    def publish(self, frame_bytes: bytes) -> None:
        self._latest = frame_bytes
        for client in [each for each in self._clients if not each.offer(frame_bytes)]:
            self.leave(client)
            DROPPED.inc()

    def join(self) -> Client:
        client = Client()
        if self._latest is not None:
            client.offer(self._latest)
        self._clients.add(client)
        CLIENTS.set(len(self._clients))
        return client

    def leave(self, client: Client) -> None:
        self._clients.discard(client)
        CLIENTS.set(len(self._clients))


class EventStream(Response):
    """The ASGI response of one page.

    The tenancy middleware asks again with every part that is sent whether the caller may still see it, so a heartbeat
    every `heartbeat_seconds` is also how soon the stream of an ended or revoked session ends.
    """

    def __init__(self, hub: Hub, *, heartbeat_seconds: float = 2.0) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type="text/event-stream")
        self._hub = hub
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        client = self._hub.join()
        gone = asyncio.create_task(_disconnected(receive))
        try:
            # A stream has no length.
            headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
            await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
            await self._write(b"retry: 1000\n\n", send)
            while not gone.done() and not client.closed.is_set():
                await self._write(await self._next(client, gone), send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, OSError):
            log.info("console stream dropped", reason="the client does not read")
        finally:
            self._hub.leave(client)
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _next(self, client: Client, gone: "asyncio.Task[None]") -> bytes:
        """The next frame, or a heartbeat where there is none for a while."""
        getting = asyncio.ensure_future(client.frames.get())
        done, _ = await asyncio.wait(
            {getting, gone}, timeout=self._heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if getting in done:
            return getting.result()
        getting.cancel()
        return HEARTBEAT

    async def _write(self, body: bytes, send: Send) -> None:
        """Sending waits while the socket is full; a client that does not read for long has lost its place."""
        async with asyncio.timeout(_SEND_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
