"""HTTP as uvicorn speaks it, with an end to what a client may send before anybody has asked who it is."""

from asyncio import AbstractEventLoop
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

MAX_HEAD_BYTES: Final = 64 << 10
_LINGER_SECONDS: Final = 1.0
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class HeadTooLarge(Exception):
    """Stops the parser. Never leaves the protocol."""


class BoundedHttp(HttpToolsProtocol):
    """Answers 431 to a head of more than `MAX_HEAD_BYTES`: the parser keeps headers, and parts of one, without end.

    What follows a chunked body has the same bound. A client that sends without end is told after the read that is one
    too many. Reads are counted, as a request has one of them and a dozen headers.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._read = 0
        self._kept = 0
        """Bytes of the reads since the one in which the message began, or in which its body went on."""
        self._refused = False

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._read = len(data)
        self._kept += self._read
        super().data_received(data)
        if self._kept > MAX_HEAD_BYTES:
            self._refuse()

    def on_message_begin(self) -> None:
        self._kept = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # What was read may be a body as well: it is added up where it may be too much.
        if self._kept + self._read > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._refuse()
            raise HeadTooLarge
        self._kept = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._kept = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            super().send_400_response(msg)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse(self) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self.transport.close()  # an answer of ours would stand in the place of its own
            return
        self.transport.write(_TOO_LARGE)
        # A socket that is closed with something unread resets the connection, and the answer may be lost on the way.
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
