"""What is sent, and what was acknowledged: a seeded stream of events and corrections, repeated until it has its 202."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
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
_CORRECTING = 0.3
"""How often a sender sends corrections after a batch."""


class Identity(NamedTuple):
    tenant: str
    source: str
    id: str


@dataclass
class Workload:
    """A stream for some tenants. `acknowledged` fills while it is sent.

    Of `hot` tenants nothing is corrected: which of a correction and two events of its id comes first depends on their
    keys, and no oracle could say it.
    """

    seed: int
    tenants: list[str]
    hot: list[str]
    acknowledged: set[Identity] = field(default_factory=set)
    corrections: set[str] = field(default_factory=set)
    refused: int = 0
    repeated: int = 0
    _sent: list[dict[str, Any]] = field(default_factory=list)
    _corrected: list[dict[str, Any]] = field(default_factory=list)

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
            if self._dice.random() < _CORRECTING:
                await self._correct(client, [self._correction() for _ in range(self._dice.randint(1, 6))])
            await asyncio.sleep(self._dice.uniform(0, 2 * pause))

    async def _send_one(self, client: Callable[[], httpx.AsyncClient], batch: list[dict[str, Any]]) -> None:
        answer = await self._repeated(client, "/v1/events?partial=true", batch)
        refused = {each["index"] for each in answer["rejected"]}
        assert refused == {index for index, event in enumerate(batch) if event["source"] == "too-old"}
        self.refused += len(refused)
        self.acknowledged |= {identity(event) for index, event in enumerate(batch) if index not in refused}

    async def _correct(self, client: Callable[[], httpx.AsyncClient], corrections: list[dict[str, Any]]) -> None:
        answer = await self._repeated(client, "/v1/events/correct", corrections)
        self.corrections |= set(answer["ids"])
        replacements = [each["replacement"] for each in corrections if "replacement" in each]
        self.acknowledged |= {identity(event) for event in replacements}

    async def _repeated(self, client: Callable[[], httpx.AsyncClient], path: str, document: Any) -> dict[str, Any]:
        body = json.dumps(document).encode()
        while True:
            answer = await _answer(client().post(path, content=body))
            if answer is None or answer.status_code in {429, 503}:
                # Whether it counts is not known, and does not matter: the same identities are sent again.
                self.repeated += 1
                await asyncio.sleep(0.2)
                continue
            assert answer.status_code == 202, f"{answer.status_code} {answer.text}"
            found: dict[str, Any] = answer.json()
            return found

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

    def _correction(self) -> dict[str, Any]:
        """Of something that was sent, or is about to be; with something else instead, or not; or the same again."""
        dice = self._dice
        if self._corrected and dice.random() < COPIES:
            return dice.choice(self._corrected)
        event = self._new() if dice.random() < 0.2 or not self._sent else dice.choice(self._sent[-1_000:])
        if event["subject"] in self.hot:
            event = self._new() | {"subject": dice.choice([each for each in self.tenants if each not in self.hot])}
        cancels = {"source": event["source"], "id": event["id"], "subject": event["subject"]}
        if dice.random() < 0.3:
            cancels["time"] = event["time"]
        correction: dict[str, Any] = {"cancels": cancels}
        if dice.random() < 0.5:
            correction["replacement"] = self._new() | {"subject": event["subject"]}
            self._sent.append(correction["replacement"])
        self._corrected.append(correction)
        self._sent.append(event)
        return correction

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


def identity(event: Mapping[str, Any]) -> Identity:
    return Identity(event["subject"], event["source"], event["id"])


async def _answer(request: Awaitable[httpx.Response]) -> httpx.Response | None:
    try:
        return await request
    except httpx.TransportError:
        return None


def _text(moment: datetime) -> str:
    return moment.isoformat()
