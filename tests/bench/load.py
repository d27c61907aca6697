"""An open-loop HTTP load generator: requests fall due at a fixed rate, whether or not earlier ones were answered.

Latency counts from the instant a request was due, so a server that stalls cannot hide it. The client is a bare protocol
on ready-made bytes, because on two cores a full HTTP client would be most of what is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

_HEADER_END = b"\r\n\r\n"
_ACCEPTED = 202


@dataclass(slots=True)
class Outcome:
    seconds: float = 0.0
    sent: int = 0
    answered: int = 0
    accepted: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests a second that were accepted (202); a refusal is soon given."""
        return self.accepted / self.seconds if self.seconds else 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._due = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._load.free(self)

    def request(self, body: bytes, due: float) -> None:
        assert self.transport is not None
        self._due = due
        self.transport.write(body)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(_HEADER_END)
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._load.answered(int(head[9:12]), time.perf_counter() - self._due)
        self._load.free(self)


class _Load:
    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._free: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self.outcome = Outcome()

    def free(self, connection: _Connection) -> None:
        if self._due:
            self._send(connection, self._due.popleft())
        else:
            self._free.append(connection)

    def fall_due(self, due: float) -> None:
        if self._free:
            self._send(self._free.popleft(), due)
        else:
            self._due.append(due)

    def answered(self, status: int, latency: float) -> None:
        outcome = self.outcome
        outcome.answered += 1
        outcome.accepted += status == _ACCEPTED
        outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
        outcome.latencies.append(latency)

    def drop_due(self) -> None:
        self._due.clear()

    def _send(self, connection: _Connection, due: float) -> None:
        body = next(self._requests, None)
        if body is not None:
            self.outcome.sent += 1
            connection.request(body, due)


async def offer(port: int, requests: Iterator[bytes], *, rate: float, seconds: float, connections: int = 64) -> Outcome:
    """Offers `rate` requests a second; what was not sent when the time is over is not sent any more."""
    loop = asyncio.get_running_loop()
    load = _Load(requests)
    opened = [await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port) for _ in range(connections)]
    started = time.perf_counter()
    number = 0
    while (now := time.perf_counter()) - started < seconds:
        while started + number / rate <= now:
            load.fall_due(started + number / rate)
            number += 1
        await asyncio.sleep(0.001)
    load.outcome.seconds = time.perf_counter() - started
    answered, accepted = load.outcome.answered, load.outcome.accepted
    load.drop_due()
    for _ in range(200):
        if load.outcome.answered >= load.outcome.sent:
            break
        await asyncio.sleep(0.01)
    for transport, _ in opened:
        transport.close()
    load.outcome.answered, load.outcome.accepted = answered, accepted
    return load.outcome


def statuses(outcomes: Iterable[Outcome]) -> dict[int, int]:
    """How many answers of each status there were."""
    total: dict[int, int] = {}
    for outcome in outcomes:
        for status, count in outcome.statuses.items():
            total[status] = total.get(status, 0) + count
    return total


def post(body: bytes, content_type: str, secret: str, port: int) -> bytes:
    """A whole request."""
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
