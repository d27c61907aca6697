"""Use cases of dead letters.

A replay sends the event to Kafka as the ingest would have, past the limit of age alone: it is checked anew, goes to the
partition where its copies go, and counts once because its identity does (rule 2). It is sent before it is marked: what
dies in between is sent again by the next try, and no mark stands for an event that Kafka has not got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Clock, Conflict, NotFound, Unavailable, uuid7
from tenantry.database import Databases, SystemSession
from usage_service.dead_letters.repository import (
    Filter,
    LateEvent,
    find_letter,
    find_letters,
    find_stored,
    keep_late,
    lock_letter,
    mark_replayed,
)
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import MAX_EVENT_BYTES, Accepted, Resolver, check_event
from usage_service.domain.identity import identity_of
from usage_service.domain.intake import Refusal
from usage_service.metering.dead_letters import report_letters

ACCEPT_LATE: Final = "acceptlate"
"""The extension attribute that marks an event in `usage.events.v1` as a replay, which no age refuses."""
_AT_ONCE: Final = 20
"""Letters that are held in memory, and sent, at a time: each may be as large as an event may be."""
_KEEP_SECONDS: Final = 5.0
"""How long a sender of late events waits for a database that does not answer."""
_TOO_OLD: Final = "time: is older than events may be"

LATE_LOST: Final = Counter("usage_late_events_not_kept_total", "Late events refused while no letter could be written")

log = structlog.get_logger(__name__)

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class NotReplayable(Conflict):
    """Sending the event again would not count it."""

    type = "not-replayable"
    title = "This dead letter cannot be replayed"


class Sender(Protocol):
    """Returns when all (key, value) are acknowledged; raises Unavailable otherwise."""

    async def send(self, events: Sequence[tuple[bytes, bytes]]) -> None: ...


class Routes(Protocol):
    """Where the events of a subject go; `at` takes the time of a request."""

    def at(self) -> None: ...

    @property
    def resolve(self) -> Resolver: ...


@dataclass(frozen=True, slots=True)
class Replays:
    """What a replay needs beside the database: routes without a limit of age, and the producer."""

    routes: Routes
    sender: Sender


@dataclass(slots=True)
class Replayed:
    """What came of a page of letters: which were sent, which were not and why, and where the next page begins."""

    ids: list[UUID]
    refused: list[tuple[UUID, str]]
    before: UUID | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter, and of a conflict or an invalid value the event that is stored under its identity, if it still is."""

    row: Row[Any]
    stored: Row[Any] | None


async def get_letter(session: AsyncSession, letter_id: UUID) -> Letter:
    """Raises NotFound, also where row security hides the letter."""
    row = await find_letter(session, letter_id)
    if row is None:
        raise NotFound("There is no such dead letter.")
    if row.kind not in {"conflict", "invalid-value"}:
        return Letter(row, None)
    time = msgspec.json.decode(row.payload, type=_Time).time
    return Letter(row, await find_stored(session, row.tenant_id, identity_of(row.source, row.event_id), time.date()))


async def replay_letter(
    session: SystemSession, letter_id: UUID, replays: Replays, *, tenant: UUID | None, by: str
) -> tuple[Row[Any], datetime]:
    """The letter, of `tenant` where one is given, and when it was replayed; one that was is not sent again.

    The caller commits. Raises NotFound, NotReplayable, and Unavailable while Kafka does not take it.
    """
    row = await lock_letter(session, letter_id)
    if row is None or tenant not in {None, row.tenant_id}:
        raise NotFound("There is no such dead letter.")
    if row.replayed_at is not None:
        return row, row.replayed_at
    replays.routes.at()
    event = _event_of(row, replays.routes.resolve)
    await replays.sender.send([(event.key, event.value)])
    return row, (await mark_replayed(session, [row.id], by=by))[row.id]


async def replay_letters(
    session: SystemSession, asked: Filter, replays: Replays, *, before: UUID, limit: int, by: str
) -> Replayed:
    """Replays the next `limit` letters below `before` that match and were not replayed.

    The caller commits; may be repeated. Raises Unavailable while Kafka does not take them: none is marked then, and
    those that it has taken are copies the next time.
    """
    done = Replayed([], [], before)
    replays.routes.at()
    while done.before is not None and limit > 0:
        slice_ = min(limit, _AT_ONCE)
        rows = await find_letters(session, asked, before=done.before, limit=slice_, lock=True)
        await _replay(session, rows, replays, done, by=by)
        done.before = rows[-1].id if len(rows) == slice_ else None
        limit -= slice_
    return done


async def keep_late_events(databases: Databases, clock: Clock, refused: Sequence[Refusal], resolve: Resolver) -> None:
    """Keeps the events that were refused for their age as letters, each identity once, in a transaction of its own.

    Raises nothing: the sender has been told that the event is refused, and a database that is away does not stop the
    ingest. What is refused for anything else is not kept, nor what is larger than an event may be.
    """
    late = [_late(refusal.raw, resolve) for refusal in refused if 0 < len(refusal.raw) <= MAX_EVENT_BYTES]
    if not late:
        return
    try:
        async with asyncio.timeout(_KEEP_SECONDS), databases.system_session() as session:
            kept = await keep_late(session, late, [uuid7() for _ in late], received_at=clock.now(), reason=_TOO_OLD)
    except (SQLAlchemyError, OSError, Unavailable) as error:
        log.warning("usage_late_events_not_kept", count=len(late), error=type(error).__name__)
        LATE_LOST.inc(len(late))
        return
    report_letters({"late": kept})


async def _replay(
    session: SystemSession, rows: Sequence[Row[Any]], replays: Replays, done: Replayed, *, by: str
) -> None:
    events: list[Accepted] = []
    sent: list[UUID] = []
    for row in rows:
        try:
            events.append(_event_of(row, replays.routes.resolve))
            sent.append(row.id)
        except NotReplayable as error:
            done.refused.append((row.id, error.detail))
    if events:
        await replays.sender.send([(event.key, event.value) for event in events])
        await mark_replayed(session, sent, by=by)
        done.ids += sent


class _Time(msgspec.Struct):
    time: datetime


class _Named(msgspec.Struct):
    id: str
    source: str
    type: str
    subject: str


_decode_named = msgspec.json.Decoder(_Named).decode


def _late(raw: bytes, resolve: Resolver) -> LateEvent:
    named = _decode_named(raw)
    tenant = UUID(resolve(named.subject).subject)
    return LateEvent(tenant, identity_of(named.source, named.id), named.type, named.source, named.id, raw)


def _event_of(row: Row[Any], resolve: Resolver) -> Accepted:
    """The event as the ingest would send it now. Raises NotReplayable."""
    if row.kind == "conflict":
        raise NotReplayable(
            "Another event with this source and id is stored, and only the first one counts. Send it under another id "
            "if both happened."
        )
    if row.kind == "invalid-value":
        raise NotReplayable(
            "The event is stored, and the meters that could read it have counted it: sent again it is a copy. "
            "It would count nothing. Send what it should have said under another id."
        )
    if len(row.payload) > MAX_EVENT_BYTES:
        raise NotReplayable(f"An event has at most {MAX_EVENT_BYTES:,} bytes.")
    try:
        event = _decode(row.payload)
        return check_event(_encode({**event, ACCEPT_LATE: True}), resolve)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotReplayable("It still cannot be read as an event.") from None
    except InvalidEvent as error:
        reason = f"{error.loc}: {error.reason}" if error.loc else error.reason
        raise NotReplayable(f"It would be refused again: {reason}.") from None
