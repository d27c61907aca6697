"""One request and its response on their way through the middleware."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from starlette.types import Message, Receive, Scope, Send

from tenantry._errors import TenantryError
from tenantry._tenant import Tenant
from tenantry.http._metering import RequestMetering
from tenantry.http._metrics import RequestMetrics
from tenantry.http._privacy import private_headers
from tenantry.http._problems import problem
from tenantry.http._routes import route_template
from tenantry.http._watch import RECHECK_SECONDS, Readmit, Watch, count_ended
from tenantry.limits import Admission

log = structlog.get_logger(__name__)

_CLIENT_GONE: Final = 499
_POLICY_VIOLATION: Final = 1008
_EVENT_STREAM: Final = b"text/event-stream"

Recheck = Callable[[Scope], object]


class ResponseCut(Exception):
    """Stops an application whose response goes nowhere any more. Never leaves the middleware."""


class HttpExchange:
    """Counts, stamps, meters and, where it must, cuts a response.

    The head of a metered response is held back until the first part of its body, so that a response in one part can
    still become a 503 when its usage cannot be recorded.
    """

    __slots__ = (
        "_admission",
        "_bytes_in",
        "_bytes_out",
        "_checked_at",
        "_has_length",
        "_head",
        "_is_event_stream",
        "_metering",
        "_metrics",
        "_receive",
        "_recheck_seconds",
        "_request_id",
        "_send",
        "_serving",
        "_started_at",
        "_watch",
        "cut",
        "finished",
        "readmit",
        "recheck",
        "scope",
        "started",
        "status",
        "tenant",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        metrics: RequestMetrics,
        request_id: str,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._metrics = metrics
        self._request_id = request_id
        self._admission: Admission | None = None
        self._metering: RequestMetering | None = None
        self._head: Message | None = None
        self._has_length = False
        self._is_event_stream = False
        self._recheck_seconds = recheck_seconds
        self._bytes_in = 0
        self._bytes_out = 0
        self._started_at = self._checked_at = time.perf_counter()
        self.recheck: Recheck | None = None
        """Raises where the request would not be admitted any more; None for a public route."""
        self.readmit: Readmit | None = None
        """The same, for a stream while nothing is sent; the task that serves the request is cancelled then."""
        self._serving: asyncio.Task[object] | None = None
        self._watch: Watch | None = None
        self.tenant: Tenant | None = None
        """Whose request it is, from when that is known."""
        self.status = _CLIENT_GONE
        self.started = False
        """Whether the application has begun its response."""
        self.finished = False
        """Whether the response's end was passed on, or given up, and everything is counted."""
        self.cut = False
        """Whether the response was ended against the application's will."""

    @property
    def metered(self) -> bool:
        return self._metering is not None

    def meter(self, metering: RequestMetering) -> None:
        """From here on bytes are counted, and the request is recorded as its tenant's before its response ends."""
        self._metering = metering

    def admitted(self, admission: Admission | None) -> None:
        """From here on the request has a place among those of its tenant, and its response says what is left."""
        self._admission = admission

    def watch_for(self, recheck: Recheck, readmit: Readmit) -> None:
        """From here on a stream lasts no longer than the right to it. To be called by the task that serves it."""
        self.recheck, self.readmit = recheck, readmit
        self._serving = asyncio.current_task()

    def _start_watch(self) -> None:
        # Only streams pay for it: nearly all responses have one part.
        if self._watch is None and self.readmit is not None:
            self._watch = Watch(self.readmit, self.scope, self._recheck_seconds, self._serving)
            self._watch.start()

    def refusal(self) -> TenantryError | None:
        """Why the task was cancelled, where it was because its caller may not go on."""
        return None if self._watch is None else self._watch.taken_for_cancellation()

    def leave(self) -> None:
        """Gives the request's place back. To be called at the very end, whatever has happened."""
        if self._watch is not None:
            self._watch.stop()
        if self._admission is not None:
            self._admission.place.release()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self._send_body(message)
        elif message["type"] == "http.response.start":
            await self._send_head(message)
        else:
            await self._send(message)

    def abandon(self) -> None:
        """Counts a response that never came to its end: its caller went away, or the application failed."""
        self.finished = True
        self._observe()
        try:
            self._record()
        except TenantryError as error:
            log.warning("request_not_metered", detail=error.detail)

    async def _send_head(self, message: Message) -> None:
        self.started = True
        self.status = message["status"]
        headers = message.setdefault("headers", [])
        for name, value in headers:
            if name == b"content-length":
                self._has_length = True
            elif name == b"content-type":
                self._is_event_stream = value.startswith(_EVENT_STREAM)
        message["headers"] = [
            *headers,
            *(self._admission.headers if self._admission is not None else ()),
            *(private_headers(headers) if self.recheck is not None else ()),
            (b"x-request-id", self._request_id.encode()),
        ]
        if self._metering is None:
            await self._send(message)
        else:
            self._head = message

    async def _send_body(self, message: Message) -> None:
        self._bytes_out += len(message.get("body", b""))
        if message.get("more_body", False):
            if self._admission is not None:
                self._admission.place.turn_into_stream()
            self._start_watch()
            await self._recheck()
        else:
            try:
                self._record()
            except TenantryError as error:
                await self._refuse(error)
            self.finished = True
            self._observe()
        if self._head is not None:
            head, self._head = self._head, None
            await self._send(head)
        await self._send(message)

    async def _recheck(self) -> None:
        now = time.perf_counter()
        if self.recheck is None or now - self._checked_at < self._recheck_seconds:
            return
        self._checked_at = now
        try:
            self.recheck(self.scope)
        except TenantryError as error:
            count_ended(error)
            await self._refuse(error)

    async def end(self, error: TenantryError) -> None:
        """Ends a stream that nothing is sent on any more; may come too late, when it has ended by itself."""
        if not self.finished:
            count_ended(error)
            with contextlib.suppress(ResponseCut):
                await self._refuse(error)

    async def _refuse(self, error: TenantryError) -> None:
        """Ends the response: with the problem where nothing was sent, else where it is.

        A response that announced its length is left incomplete, so that nobody takes a part for the whole. A stream of
        events ends with one of the type `problem` (the first line ends a half-sent one).
        """
        self.cut = self.finished = True
        with contextlib.suppress(TenantryError):
            self._record()  # what was sent so far was used
        if self._head is not None:
            self._head = None
            self.status = error.status
            response = problem(error, self.scope["path"])
            response.headers["x-request-id"] = self._request_id
            await response(self.scope, self._receive, self._send)
        elif not self._has_length:
            await self._send({"type": "http.response.body", "body": self._last_words(error), "more_body": False})
        self._observe()
        raise ResponseCut

    def _last_words(self, error: TenantryError) -> bytes:
        if not self._is_event_stream:
            return b""
        document = {"type": error.type, "title": error.title, "status": error.status, "detail": error.detail}
        return b"\n\nevent: problem\ndata: " + msgspec.json.encode(document) + b"\n\n"

    def _record(self) -> None:
        metering, tenant = self._metering, self.tenant
        if metering is None or tenant is None:
            return
        self._metering = None
        metering.record(
            tenant,
            path=route_template(self.scope),
            method=self.scope["method"],
            status=self.status,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
        )

    def _observe(self) -> None:
        seconds = time.perf_counter() - self._started_at
        self._metrics.observe(route_template(self.scope), self.scope["method"], self.status, seconds)
        if self.tenant is not None:
            self._metrics.observe_tenant(self.tenant.id, self.status, seconds)


class WebSocketExchange:
    """A connection whose tenant is checked again with what is sent, and while nothing is."""

    def __init__(self, scope: Scope, send: Send, watch: Watch, recheck_seconds: float = RECHECK_SECONDS) -> None:
        self.scope = scope
        self._send = send
        self.recheck: Recheck | None = None
        """Raises where the connection would not be admitted any more; None for a public route."""
        self._recheck_seconds = recheck_seconds
        self._checked_at = time.perf_counter()
        self._closed = False
        self._admission: Admission | None = None
        self._watch = watch

    def admitted(self, admission: Admission | None) -> None:
        """The connection has a place among those of its tenant; it waits more than it works, as every stream."""
        self._admission = admission
        if admission is not None:
            admission.place.turn_into_stream()

    def leave(self) -> None:
        """Gives the connection's place back. To be called at the very end, whatever has happened."""
        if self._admission is not None:
            self._admission.place.release()

    async def send(self, message: Message) -> None:
        """Passes on, or closes and raises `ResponseCut` where the connection must end."""
        if self.recheck is not None:
            await self._check(message, self.recheck)
        if self._closed:
            raise ResponseCut
        self._closed = message["type"] == "websocket.close"
        await self._send(message)

    async def _check(self, message: Message, recheck: Recheck) -> None:
        now = time.perf_counter()
        if message["type"] == "websocket.accept":
            self._watch.start()
        elif message["type"] == "websocket.send" and now - self._checked_at >= self._recheck_seconds:
            self._checked_at = now
            try:
                recheck(self.scope)
            except TenantryError as error:
                await self.end(error)

    async def end(self, error: TenantryError) -> None:
        """Closes an open connection whose right to be there has ended."""
        if not self._closed:
            count_ended(error)
        await self.close(error)

    async def close(self, error: TenantryError) -> None:
        """Refuses the handshake (a 403 on the wire) or ends the connection, with the problem's type as reason."""
        if not self._closed:
            self._closed = True
            await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": error.type})
