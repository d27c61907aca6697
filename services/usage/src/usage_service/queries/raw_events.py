"""What queries read of raw events. Every statement names the tenant: row security is the floor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.domain.jsonpath import Segment
from usage_service.queries.repository import Range, streamed

# A correction that came later than an answer looks has not cancelled anything yet.
_CANCELLED = """
SELECT FROM correction AS cancelled
 WHERE cancelled.tenant_id = event.tenant_id AND cancelled.identity = event.identity AND cancelled.day = event.day
   AND (CAST(:until AS timestamptz) IS NULL OR cancelled.received_at < :until)
"""
# Each stretch of time has a condition of its own, so that its block ranges are read and not its whole day; OFFSET keeps
# it so. All days are named beside it, as the planner leaves out no partition for what it learns from a row.
_STORED = f"""
  FROM unnest(CAST(:opening AS timestamptz[]), CAST(:closing AS timestamptz[])) AS span (opening, closing)
 CROSS JOIN LATERAL (
       SELECT * FROM usage_event AS event
        WHERE tenant_id = :tenant AND type = :type AND day = ANY(CAST(:days AS date[]))
          AND day = (span.opening AT TIME ZONE 'UTC')::date
          AND event_time >= span.opening AND event_time < span.closing
          AND (CAST(:until AS timestamptz) IS NULL OR received_at < :until)
          AND NOT EXISTS ({_CANCELLED})
       OFFSET 0) AS event
"""  # noqa: S608 (our own)
_RAW = f"SELECT event_time, received_at, kafka_partition, kafka_offset, catalogue_version, data {_STORED}"
_RAW_UNORDERED = text(_RAW)
_RAW_ORDERED = text(f"{_RAW} ORDER BY 1, 2, 3, 4")
# The document is read once for all of its places: OFFSET keeps it from being put in the place of its name.
_ALIKE = f"""
SELECT min(event_time) AS event_time, catalogue_version, data, count(*) AS events
  FROM (SELECT event_time, catalogue_version, {{places}} AS data,
               width_bucket(event_time, CAST(:starts AS timestamptz[])) AS bucket
        {_STORED}
         CROSS JOIN LATERAL (SELECT {{document}} AS document OFFSET 0) AS parsed) AS placed
 GROUP BY bucket, catalogue_version, data, event_time >= CAST(:since AS timestamptz){{hour}}
"""  # noqa: S608 (our own)
_PAGE_BYTES: Final = 4 << 20
# Two at least, so that a page of one event has a next one.
_EVENTS = text(
    """
    SELECT * FROM (
        SELECT *, count(*) OVER () AS looked_at, row_number() OVER placed AS place,
               sum(octet_length(data)) OVER placed - octet_length(data) AS bytes_before
          FROM (SELECT identity, event_id, source, type, event_time, received_at, kafka_partition, kafka_offset,
                       catalogue_version, data
                  FROM usage_event
                 WHERE tenant_id = :tenant AND day BETWEEN :first_day AND :last_day
                   AND event_time >= :first AND event_time < :last
                   AND (CAST(:type AS text) IS NULL OR type = :type)
                   AND (CAST(:until AS timestamptz) IS NULL OR received_at < :until)
                   AND (event_time, identity) > (:after_time, CAST(:after_identity AS uuid))
                 ORDER BY event_time, identity LIMIT :limit) AS event
        WINDOW placed AS (ORDER BY event_time, identity)) AS page
     WHERE bytes_before < :bytes OR place <= 2
     ORDER BY event_time, identity
    """
)
_CANCELLED_EVENTS = text(
    """
    SELECT identity, day, id FROM correction
     WHERE tenant_id = :tenant AND day BETWEEN :first_day AND :last_day
       AND (CAST(:identities AS uuid[]) IS NULL OR identity = ANY(CAST(:identities AS uuid[])))
       AND (CAST(:until AS timestamptz) IS NULL OR received_at < :until)
    """
)


def stream_raw(
    session: AsyncSession,
    tenant_id: UUID,
    event_type: str,
    ranges: Sequence[Range],
    *,
    received_before: datetime | None,
    ordered: bool,
) -> AsyncIterator[Row[Any]]:
    """The raw events of a type inside the ranges; `ordered` by time, receipt and place, else in no order."""
    asked = _raw(tenant_id, event_type, ranges, received_before) if ranges else None
    return streamed(session, _RAW_ORDERED if ordered else _RAW_UNORDERED, asked)


def stream_alike(
    session: AsyncSession,
    tenant_id: UUID,
    event_type: str,
    ranges: Sequence[Range],
    *,
    received_before: datetime | None,
    places: Sequence[tuple[str, Sequence[Segment]]],
    since: datetime | None,
    by_hour: bool,
) -> AsyncIterator[Row[Any]]:
    """The raw events of a type inside the ranges, those as one that are in the same range and version of the catalogue
    and have the same values at the places: how many `events`, the first one's time, and a document of the places.

    Events from `since` on are apart from those before it, and those of one hour from others where that is asked.
    """
    if not ranges:
        return streamed(session, _RAW_UNORDERED, None)
    members, names = [], {}
    for name, segments in places:
        steps = []
        for number, segment in enumerate(segments):
            if isinstance(segment, int):
                steps.append(f"({segment})")
            else:
                names[f"{name}_{number}"] = segment
                steps.append(f"CAST(:{name}_{number} AS text)")
        members.append(f"'{name}', {' -> '.join(['document', *steps])}")
    statement = _ALIKE.format(
        document="CAST(event.data AS jsonb)" if members else "NULL",
        places=f"CAST(jsonb_build_object({', '.join(members)}) AS text)",
        hour=", date_trunc('hour', event_time, 'UTC')" if by_hour else "",
    )
    asked = _raw(tenant_id, event_type, ranges, received_before)
    starts = [start for start, _ in ranges]
    return streamed(session, text(statement), {**asked, **names, "starts": starts, "since": since})


def _raw(tenant_id: UUID, event_type: str, ranges: Sequence[Range], received_before: datetime | None) -> dict[str, Any]:
    spans = list(_by_day(_joined(ranges)))
    return {
        "tenant": tenant_id,
        "type": event_type,
        "until": received_before,
        "opening": [opening for opening, _ in spans],
        "closing": [closing for _, closing in spans],
        "days": sorted({_utc_day(opening) for opening, _ in spans}),
    }


def _joined(ranges: Sequence[Range]) -> Iterator[Range]:
    """The same instants in as few ranges as there can be; they are in order and do not overlap."""
    opening, closing = ranges[0]
    for start, end in ranges[1:]:
        if start != closing:
            yield opening, closing
            opening = start
        closing = end
    yield opening, closing


def _by_day(ranges: Iterable[Range]) -> Iterator[Range]:
    """The same instants in ranges that lie in one UTC day each."""
    for start, end in ranges:
        opening = start
        while opening < end:
            midnight = datetime.combine(_utc_day(opening) + timedelta(days=1), time(), UTC)
            yield opening, min(midnight, end)
            opening = midnight


async def find_events(
    session: AsyncSession,
    tenant_id: UUID,
    span: Range,
    *,
    event_type: str | None,
    received_before: datetime | None,
    after: tuple[datetime, UUID],
    limit: int,
) -> tuple[Sequence[Row[Any]], bool]:
    """Raw events by (time, identity), after a place in that order; and whether they were cut short for their bytes.

    At most `limit`, and no more than begin within the first few MiB, but for two. Days are read from the first one on,
    more of them each time, until there are enough events: a page of a long range costs what a page of a short one does.
    """
    first, last = span
    found: list[Row[Any]] = []
    day, last_day, step = _utc_day(after[0]), _utc_day(last), 1
    room, cut = _PAGE_BYTES, False
    while day <= last_day and len(found) < limit and not cut:
        until = min(day + timedelta(days=step - 1), last_day)
        rows = await session.execute(
            _EVENTS,
            {
                "tenant": tenant_id,
                "first_day": day,
                "last_day": until,
                "first": first,
                "last": last,
                "type": event_type,
                "until": received_before,
                "after_time": after[0],
                "after_identity": after[1],
                "limit": limit - len(found),
                "bytes": room,
            },
        )
        more = rows.all()
        cut = bool(more) and more[0].looked_at > len(more)
        room -= sum(len(row.data) for row in more)
        found += more
        day, step = until + timedelta(days=1), step * 2
    return found, cut


async def find_cancelled(
    session: AsyncSession,
    tenant_id: UUID,
    span: Range,
    *,
    received_before: datetime | None,
    identities: Sequence[UUID] | None = None,
) -> dict[tuple[UUID, date], UUID]:
    """The corrections that cancel events of the days of a span, by identity and day; all, or of some identities."""
    found = await session.execute(
        _CANCELLED_EVENTS,
        {
            "tenant": tenant_id,
            "first_day": _utc_day(span[0]),
            "last_day": _utc_day(span[1]),
            "identities": None if identities is None else list(identities),
            "until": received_before,
        },
    )
    return {(row.identity, row.day): row.id for row in found}


def _utc_day(moment: datetime) -> date:
    """The day whose partition holds an instant, whatever offset it was asked with."""
    return moment.astimezone(UTC).date()
