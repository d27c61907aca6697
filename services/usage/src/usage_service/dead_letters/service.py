"""Use cases of dead letters but for their replay (`replaying`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Clock, NotFound, Unavailable
from tenantry.database import Databases
from usage_service.dead_letters.repository import find_letter, find_stored
from usage_service.domain.event_checks import Resolver, parse_time
from usage_service.domain.identity import identity_of, identity_on_day
from usage_service.domain.instants import DAY, microseconds
from usage_service.domain.intake import Refusal
from usage_service.metering.dead_letters import DeadLetter, write_dead_letters

_KEEP_SECONDS: Final = 5.0
"""How long a sender of late events waits for a database that does not answer."""
_TOO_OLD: Final = "time: is older than events may be"

LATE_LOST: Final = Counter("usage_late_events_not_kept_total", "Late events refused while no letter could be written")

log = structlog.get_logger(__name__)


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


async def keep_late_events(databases: Databases, clock: Clock, refused: Sequence[Refusal], resolve: Resolver) -> None:
    """Keeps the events that were refused for their age as letters, each once, in a transaction of its own.

    Raises nothing: the sender has been told that the event is refused, and a database that is away does not stop the
    ingest. What is refused for anything else is not kept.
    """
    now = clock.now()
    late = [_late(refusal.raw, resolve, now) for refusal in refused if refusal.raw]
    if not late:
        return
    try:
        async with asyncio.timeout(_KEEP_SECONDS), databases.system_session() as session:
            await write_dead_letters(await session.connection(), late)
    except (SQLAlchemyError, OSError, Unavailable) as error:
        log.warning("usage_late_events_not_kept", count=len(late), error=type(error).__name__)
        LATE_LOST.inc(len(late))


class _Time(msgspec.Struct):
    time: datetime


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


def _late(raw: bytes, resolve: Resolver, received_at: datetime) -> DeadLetter:
    # As it was judged: of a member that is there twice the last one counts, whatever the first one is. Its data is not
    # read again: there may be much of it.
    members = _members(raw)
    event = {name: _text(members[name]) for name in ("id", "source", "type", "subject", "time")}
    source, event_id = event["source"], event["id"]
    day = microseconds(parse_time(event["time"])) // DAY
    return DeadLetter(
        tenant_id=UUID(resolve(event["subject"]).subject),
        kind="late",
        reason=_TOO_OLD,
        position=None,
        payload=raw,
        type=event["type"],
        source=source,
        event_id=event_id,
        identity=UUID(bytes=identity_on_day(identity_of(source, event_id), day)),
        received_at=received_at,
    )
