"""Use cases of replays.

A replay sends the event to Kafka as the ingest would have, past the limit of age alone: it is checked anew, goes to the
partition where its copies go, and counts once because its identity does (rule 2). It is sent before it is marked: what
dies in between is sent again by the next try, and no mark stands for an event that Kafka has not got.

Of an event that is stored, and that one meter could not count, it sends a correction (`invalid_values`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
from sqlalchemy import Row, text

from tenantry import NotFound
from tenantry.database import SystemSession
from usage_service.corrections.service import Corrections
from usage_service.dead_letters.invalid_values import NO_CHANGE, Change, correct_value, siblings
from usage_service.dead_letters.refusals import NotReplayable
from usage_service.dead_letters.repository import Filter, find_letter, lock_letter, lock_letters, mark_replayed
from usage_service.domain.erasing import PREFIX
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import MAX_EVENT_BYTES, Accepted, Resolver, check_event
from usage_service.tokens.vault import TreatedFields

ACCEPT_LATE: Final = "acceptlate"
"""The extension attribute that marks an event in `usage.events.v1` as a replay, which no age refuses."""
_AT_ONCE: Final = 20
"""Letters that are held in memory, and sent, at a time: each may be as large as an event may be."""

# As the meter worker asks: a day is gone where one in its dedupe window is.
_GONE: Final = text(
    """
    SELECT EXISTS (SELECT FROM system.gone_day
                    WHERE day BETWEEN CAST(:day AS date) - CAST(:window AS int)
                                  AND CAST(:day AS date) + CAST(:window AS int))
    """
)

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


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
    """What a replay needs beside the database: routes without a limit of age, and the producer.

    `corrections` treat no fields, because letters have them as they are kept; `fields` are for data that is given anew.
    `window_days` is how many days on either side of its own an event is compared with.
    """

    routes: Routes
    sender: Sender
    corrections: Corrections
    fields: TreatedFields
    window_days: int


@dataclass(slots=True)
class Replayed:
    """What came of a page of letters: which were sent, which were not and why, and where the next page begins."""

    before: UUID | None
    ids: list[UUID] = field(default_factory=list)
    refused: list[tuple[UUID, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Sending:
    """The record that a letter becomes, and the letters that it settles."""

    record: tuple[bytes, bytes]
    settles: list[UUID]


async def replay_letter(
    session: SystemSession,
    letter_id: UUID,
    replays: Replays,
    *,
    tenant: UUID | None,
    by: str,
    change: Change = NO_CHANGE,
) -> tuple[Row[Any], datetime]:
    """The letter, of `tenant` where one is given, and when it was replayed; one that was is not sent again.

    `change` is what an event with an invalid value should have said. The caller commits. Raises NotFound,
    NotReplayable, and Unavailable while Kafka does not take it.
    """
    row = await find_letter(session, letter_id)
    if row is not None and row.kind == "invalid-value":
        # Before its own: letters about one event are locked in one order, or their replays wait for each other.
        await siblings(session, row)
    row = await lock_letter(session, letter_id)
    if row is None or tenant not in {None, row.tenant_id}:
        raise NotFound("There is no such dead letter.")
    if row.replayed_at is not None:
        return row, row.replayed_at
    replays.routes.at()
    sending = await _sending(session, row, replays, change)
    await replays.sender.send([sending.record])
    return row, (await mark_replayed(session, sending.settles, by=by))[row.id]


async def replay_letters(
    session: SystemSession, asked: Filter, replays: Replays, *, before: UUID, limit: int, by: str
) -> Replayed:
    """Replays the next `limit` letters below `before` that match and were not replayed.

    The caller commits; may be repeated. Raises Unavailable while Kafka does not take them: none is marked then, and
    those that it has taken are copies the next time.
    """
    done = Replayed(before)
    replays.routes.at()
    while done.before is not None and limit > 0:
        slice_ = min(limit, _AT_ONCE)
        rows = await lock_letters(session, asked, before=done.before, limit=slice_)
        await _replay(session, rows, replays, done, by=by)
        done.before = rows[-1].id if len(rows) == slice_ else None
        limit -= slice_
    return done


async def _replay(
    session: SystemSession, rows: Sequence[Row[Any]], replays: Replays, done: Replayed, *, by: str
) -> None:
    records: list[tuple[bytes, bytes]] = []
    settled: list[UUID] = []
    for row in rows:
        if row.id in settled:
            continue
        try:
            sending = await _sending(session, row, replays, NO_CHANGE)
        except NotReplayable as error:
            done.refused.append((row.id, error.detail))
            continue
        records.append(sending.record)
        settled += sending.settles
    if settled:
        await replays.sender.send(records)
        await mark_replayed(session, settled, by=by)
        done.ids += settled


async def _sending(session: SystemSession, row: Row[Any], replays: Replays, change: Change) -> _Sending:
    """Raises NotReplayable."""
    if any(name is not None and name.startswith(PREFIX) for name in (row.source, row.event_id)):
        raise NotReplayable("Its source or id was erased: sent again it would be another event.")
    if row.kind == "invalid-value":
        if change.data is not None:
            treated = await replays.fields.treated(row.type, str(row.tenant_id), change.data)
            change = msgspec.structs.replace(change, data=treated)
        correction, day = await correct_value(session, row, change, replays.corrections)
        await _check_day(session, day, replays.window_days)
        return _Sending(correction.record, await siblings(session, row))
    if change is not NO_CHANGE:
        raise NotReplayable("Only of an invalid value can be said what it should have been.")
    event = _event_of(row, replays.routes.resolve)
    await _check_day(session, event.time.astimezone(UTC).date(), replays.window_days)
    return _Sending((event.key, event.value), [row.id])


async def _check_day(session: SystemSession, day: date, window_days: int) -> None:
    if await session.scalar(_GONE, {"day": day, "window": window_days}):
        raise NotReplayable(
            f"Its day, {day}, or one beside it, has left PostgreSQL for the archive: whether it is a copy of an event "
            "there cannot be told any more, and the day takes no events."
        )


def _event_of(row: Row[Any], resolve: Resolver) -> Accepted:
    """The event as the ingest would send it now. Raises NotReplayable."""
    if row.kind == "conflict":
        raise NotReplayable(
            "Another event with this source and id is stored, and only the first one counts. Send it under another id "
            "if both happened."
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
