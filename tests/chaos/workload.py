"""What is sent, and what was acknowledged: a seeded stream of events over HTTP, repeated until the answer is 202."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx

COPIES = 0.3
"""The part of all events that are copies of one that was sent before."""

_BATCH = 40
_SENDERS = 6
_TYPES = ("http.request", "file.stored", "nobody.counts")
_TOO_OLD = timedelta(days=60)


class Identity(NamedTuple):
    tenant: str
    source: str
    id: str


@dataclass
class Workload:
    """A stream for some tenants. `acknowledged` fills while it is sent."""

    seed: int
    tenants: list[str]
    acknowledged: set[Identity] = field(default_factory=set)
    refused: int = 0
    repeated: int = 0
    _sent: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311
        self._until = datetime.now(UTC).replace(microsecond=0)

    async def send(self, client: Callable[[], httpx.AsyncClient], *, until: asyncio.Event, pause: float) -> None:
        """Sends batches until the event is set, and returns when each of them has its 202.

        `client` gives a way to some process of the ingest, another one each time.
        """
        async with asyncio.TaskGroup() as senders:
            for _ in range(_SENDERS):
                senders.create_task(self._send_all(client, until, pause))

    async def _send_all(self, client: Callable[[], httpx.AsyncClient], until: asyncio.Event, pause: float) -> None:
        while not until.is_set():
            batch = self._batch()
            await self._send_one(client, batch)
            await asyncio.sleep(self._dice.uniform(0, 2 * pause))

    async def _send_one(self, client: Callable[[], httpx.AsyncClient], batch: list[dict[str, Any]]) -> None:
        body = json.dumps(batch).encode()
        while True:
            answer = await _answer(client().post("/v1/events?partial=true", content=body))
            if answer is None or answer.status_code in {429, 503}:
                # Whether it counts is not known, and does not matter: the same identities are sent again.
                self.repeated += 1
                await asyncio.sleep(0.2)
                continue
            assert answer.status_code == 202, f"{answer.status_code} {answer.text}"
            refused = {each["index"] for each in answer.json()["rejected"]}
            assert refused == {index for index, event in enumerate(batch) if event["source"] == "too-old"}
            self.refused += len(refused)
            self.acknowledged |= {identity(event) for index, event in enumerate(batch) if index not in refused}
            return

    def _batch(self) -> list[dict[str, Any]]:
        batch = [self._event() for _ in range(_BATCH)]
        if self._dice.random() < 0.05:
            old = self._new() | {"source": "too-old", "time": _text(self._until - _TOO_OLD)}
            batch.insert(self._dice.randrange(len(batch)), old)
        return batch

    def _event(self) -> dict[str, Any]:
        if self._sent and self._dice.random() < COPIES:
            return self._copy()
        event = self._new()
        self._sent.append(event)
        return event

    def _new(self) -> dict[str, Any]:
        dice = self._dice
        data: dict[str, Any] = {
            "method": dice.choice(["GET", "PUT"]),
            "path": f"/{dice.randrange(5)}",
            "bytes": round(dice.uniform(0, 10_000), 2) if dice.random() < 0.99 else "many",
        }
        return {
            "specversion": "1.0",
            "id": f"e-{dice.getrandbits(48):x}",
            "source": dice.choice(["one", "two"]),
            "type": dice.choices(_TYPES, weights=[60, 38, 2])[0],
            "subject": dice.choice(self.tenants),
            "time": self._time(),
            "data": data,
        }

    def _time(self) -> str:
        """Most of the last three days, in no order; some late, as old as three weeks."""
        days = 3 if self._dice.random() < 0.97 else 21
        return _text(self._until - timedelta(seconds=self._dice.uniform(0, days * 86_400)))

    def _copy(self) -> dict[str, Any]:
        """The same again, at another time of the neighbouring days, or saying something else (a conflict)."""
        recent = self._sent[-400:] if self._dice.random() < 0.7 else self._sent
        event = self._dice.choice(recent)
        kind = self._dice.random()
        if kind < 0.8:
            return event
        if kind < 0.95:
            moved = datetime.fromisoformat(event["time"]) + timedelta(days=self._dice.choice([-1, 1, -2]))
            return event | {"time": _text(min(moved, self._until))}
        return event | {"data": event["data"] | {"bytes": 1}}


def identity(event: dict[str, Any]) -> Identity:
    return Identity(event["subject"], event["source"], event["id"])


async def _answer(request: Awaitable[httpx.Response]) -> httpx.Response | None:
    try:
        return await request
    except httpx.TransportError:
        return None


def _text(moment: datetime) -> str:
    return moment.isoformat()
