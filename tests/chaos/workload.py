"""What is sent, and what was acknowledged: a seeded stream of events and corrections, repeated until it has its 202."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import httpx

COPIES = 0.3
"""The part of all events that are copies of one that was sent before."""

_BATCH = 40
_SENDERS = 6
_TYPES = ("http.request", "file.stored", "nobody.counts")
TOO_OLD = "too-old"
"""The source of events that are refused."""

_TOO_OLD = timedelta(days=60)
_PLAIN = "plain-"
_CORRECTING = 0.3
"""How often a sender sends corrections after a batch."""


class Identity(NamedTuple):
    tenant: str
    source: str
    id: str


Sent = tuple[Identity, date]
"""An event: what it is called, and its day, for an identity that returns after the dedupe window is another event."""


@dataclass
class Workload:
    """Streams for some tenants, one of each sender. What was acknowledged, and refused, fills while they are sent."""

    seed: int
    tenants: list[str]
    hot: list[str]
    acknowledged: set[Sent] = field(default_factory=set)
    corrections: set[str] = field(default_factory=set)
    refused: set[Identity] = field(default_factory=set)
    repeated: int = 0

    async def send(self, client: Callable[[], httpx.AsyncClient], *, until: asyncio.Event, pause: float) -> None:
        """Sends batches until the event is set, and returns when each of them has its 202.

        `client` gives a way to some process of the ingest, another one each time. The last sender says what the first
        one says, at about the same time.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        async with asyncio.TaskGroup() as senders:
            for number in [*range(_SENDERS - 1), 0]:
                stream = Stream(random.Random(f"{self.seed}/{number}"), self.tenants, self.hot, now)  # noqa: S311
                senders.create_task(self._send_all(stream, client, until, pause))

    async def _send_all(
        self, stream: Stream, client: Callable[[], httpx.AsyncClient], until: asyncio.Event, pause: float
    ) -> None:
        while not until.is_set():
            batch, corrections, rest = stream.next()
            await self._send_one(client, batch)
            if corrections:
                await self._correct(client, corrections)
            await asyncio.sleep(2 * pause * rest)

    async def _send_one(self, client: Callable[[], httpx.AsyncClient], batch: list[dict[str, Any]]) -> None:
        answer = await self._repeated(client, "/v1/events?partial=true", batch)
        refused = {each["index"] for each in answer["rejected"]}
        assert refused == {index for index, event in enumerate(batch) if event["source"] == TOO_OLD}
        self.refused |= {identity(batch[index]) for index in refused}
        self.acknowledged |= {sent(event) for index, event in enumerate(batch) if index not in refused}

    async def _correct(self, client: Callable[[], httpx.AsyncClient], corrections: list[dict[str, Any]]) -> None:
        answer = await self._repeated(client, "/v1/events/correct", corrections)
        self.corrections |= set(answer["ids"])
        self.acknowledged |= {sent(each["replacement"]) for each in corrections if "replacement" in each}

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


@dataclass
class Stream:
    """What one sender sends: the same whenever the dice are the same, but for the time that it counts back from.

    Which of a correction and two different events of its id comes first depends on their keys, and of `hot` tenants
    these change, so no oracle could say it. Of them plain events alone are corrected: all of whose copies are equal,
    and which have one correction at most.
    """

    dice: random.Random
    tenants: list[str]
    hot: list[str]
    now: datetime
    _sent: list[dict[str, Any]] = field(default_factory=list)
    _plain: list[dict[str, Any]] = field(default_factory=list)
    _corrected: list[dict[str, Any]] = field(default_factory=list)

    def next(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
        """A batch, the corrections to send after it, and how long to rest then: 0 to 1."""
        batch = [self._event() for _ in range(_BATCH)]
        if self.dice.random() < 0.05:
            old = self._new() | {"source": TOO_OLD, "time": _text(self.now - _TOO_OLD)}
            batch.insert(self.dice.randrange(len(batch)), old)
        correcting = self.dice.randint(1, 6) if self.dice.random() < _CORRECTING else 0
        return batch, [self._correction() for _ in range(correcting)], self.dice.random()

    def _event(self) -> dict[str, Any]:
        if self._sent and self.dice.random() < COPIES:
            return self._copy()
        event = self._new()
        if event["subject"] in self.hot and self.dice.random() < 0.1:
            event = _made_plain(event)
            self._plain.append(event)
        self._sent.append(event)
        return event

    def _new(self) -> dict[str, Any]:
        dice = self.dice
        data: dict[str, Any] = {
            "method": dice.choice(["GET", "PUT"]),
            "section": f"/{dice.randrange(5)}",
            "path": f"/{dice.randrange(200)}",
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
        dice = self.dice
        if self._corrected and dice.random() < COPIES:
            return dice.choice(self._corrected)
        event = self._new() if dice.random() < 0.2 or not self._sent else dice.choice(self._sent[-1_000:])
        is_hot = event["subject"] in self.hot
        if is_hot and self._plain and dice.random() < 0.7:
            event = self._plain.pop(dice.randrange(len(self._plain)))
        elif is_hot:
            event = _made_plain(self._new() | {"subject": event["subject"]})
        cancels = {"source": event["source"], "id": event["id"], "subject": event["subject"]}
        if dice.random() < 0.3:
            cancels["time"] = event["time"]
        correction: dict[str, Any] = {"cancels": cancels}
        if dice.random() < 0.5:
            replacement = self._new() | {"subject": event["subject"]}
            correction["replacement"] = _made_plain(replacement) if is_hot else replacement
            self._sent.append(correction["replacement"])
        self._corrected.append(correction)
        self._sent.append(event)
        return correction

    def _time(self) -> str:
        """Most of the last three days, in no order; some late, as old as three weeks."""
        days = 3 if self.dice.random() < 0.97 else 21
        return _text(self.now - timedelta(seconds=self.dice.uniform(0, days * 86_400)))

    def _copy(self) -> dict[str, Any]:
        """The same again, at another time of the neighbouring days, or saying something else (a conflict)."""
        recent = self._sent[-400:] if self.dice.random() < 0.7 else self._sent
        event = self.dice.choice(recent)
        kind = self.dice.random()
        if kind < 0.8 or event["id"].startswith(_PLAIN):
            return event
        if kind < 0.95:
            moved = datetime.fromisoformat(event["time"]) + timedelta(days=self.dice.choice([-1, 1, -2]))
            return event | {"time": _text(min(moved, self.now))}
        return event | {"data": event["data"] | {"bytes": 1}}


def _made_plain(event: dict[str, Any]) -> dict[str, Any]:
    return event | {"id": f"{_PLAIN}{event['id']}"}


def sent(event: Mapping[str, Any]) -> Sent:
    return identity(event), datetime.fromisoformat(event["time"]).astimezone(UTC).date()


def identity(event: Mapping[str, Any]) -> Identity:
    return Identity(event["subject"], event["source"], event["id"])


async def _answer(request: Awaitable[httpx.Response]) -> httpx.Response | None:
    try:
        return await request
    except httpx.TransportError:
        return None


def _text(moment: datetime) -> str:
    return moment.isoformat()
