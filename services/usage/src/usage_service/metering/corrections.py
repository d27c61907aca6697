"""Corrections on their way into the database: what each one cancels, or that it waits for it.

A correction and the copies of the event that it cancels come through one partition, so its owner decides about them in
their order, whatever crashes and whoever owns it next:

- a correction without a time cancels the newest event of its identity that counts, one with a time that of its day;
- where there is none it waits, and cancels the first one that comes; that one is stored and never counted. Without a
  time it waits for events up to the day after it was made, by its tenant's clock: later ones are others under that id;
- a second correction of the same event is a copy where it says the same, and else a conflict: the first one holds, and
  what it put in the event's place can be corrected in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final
from uuid import UUID

import asyncpg
from prometheus_client import Counter

from usage_service.domain.corrections import CORRECTION, read_correction
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.identity import identity_of
from usage_service.domain.instants import DAY, day_of, instant, microseconds
from usage_service.metering.cancelled import NOT_CANCELLED
from usage_service.metering.cancelling import StoredEvent
from usage_service.metering.dead_letters import DeadLetter
from usage_service.metering.rows import EventRow, Position, decode_data, decode_event, row_of
from usage_service.metering.spreading import SpreadTenants

CORRECTIONS = Counter("usage_corrections_total", "Corrections of events by what became of them", ["outcome"])

_CORRECTED: Final = "the event is corrected already; correct what counts instead of it"

_KNOWN = """
SELECT correction.tenant_id, correction.identity, correction.id, correction.asked_day, correction.day
  FROM unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, identity)
  JOIN pool.correction USING (tenant_id, identity)
"""
# The newest event that counts. Ids that return after the dedupe window are events of their own.
_TARGETS = f"""
SELECT asked.ordinal - 1 AS ordinal, stored.*
  FROM unnest($1::uuid[], $2::uuid[], $3::date[]) WITH ORDINALITY AS asked (tenant_id, identity, day, ordinal)
 CROSS JOIN LATERAL (
       SELECT event.day, event.event_time, event.received_at, event.kafka_partition, event.kafka_offset,
              event.catalogue_version, event.type, event.data
         FROM pool.usage_event AS event
        WHERE event.tenant_id = asked.tenant_id AND event.identity = asked.identity
          AND (asked.day IS NULL OR event.day = asked.day)
          AND {NOT_CANCELLED}
        ORDER BY event.received_at DESC, event.kafka_partition DESC, event.kafka_offset DESC LIMIT 1) AS stored
"""  # noqa: S608 (our own)
_INSERT = """
INSERT INTO pool.correction (tenant_id, identity, id, asked_day, last_day, day, source, event_id, replacement_source,
                             replacement_id, reason, received_at, kafka_partition, kafka_offset, applied_at)
SELECT *, CASE WHEN day IS NOT NULL THEN clock_timestamp() END
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::date[], $5::date[], $6::date[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::int[], $14::bigint[])
       AS correction (tenant_id, identity, id, asked_day, last_day, day, source, event_id, replacement_source,
                      replacement_id, reason, received_at, kafka_partition, kafka_offset)
"""
_WAITING = """
SELECT kafka_partition, tenant_id, identity FROM pool.correction
 WHERE day IS NULL AND kafka_partition = ANY($1::int[])
"""
_WAITING_OF_TENANTS = """
SELECT tenant_id, identity FROM pool.correction WHERE day IS NULL AND tenant_id = ANY($1::uuid[])
"""
# Without `last_day` a correction is of the time before there was one.
_MEET = """
UPDATE pool.correction AS correction SET day = came.day, applied_at = clock_timestamp()
  FROM unnest($1::uuid[], $2::uuid[], $3::date[]) AS came (tenant_id, identity, day)
 WHERE correction.tenant_id = came.tenant_id AND correction.identity = came.identity AND correction.day IS NULL
   AND (correction.asked_day = came.day
        OR correction.asked_day IS NULL
           AND came.day <= COALESCE(correction.last_day, (correction.received_at AT TIME ZONE 'UTC')::date + 1))
RETURNING correction.tenant_id, correction.identity
"""


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction as it was received. `replacement` counts instead of what is cancelled.

    Where it names no day, `last_day` is the last one of an event that it may wait for.
    """

    tenant: bytes
    identity: bytes
    id: UUID
    asked_day: date | None
    last_day: date
    source: str
    event_id: str
    reason: str | None
    position: Position
    value: bytes
    replacement: EventRow | None

    @property
    def key(self) -> bytes:
        """What makes the cancelled event the same as its copies."""
        return self.tenant + self.identity

    @property
    def identities(self) -> list[tuple[str, str]]:
        """Source and id of the event that is cancelled and of what counts instead: their records have one key."""
        replacement = [] if self.replacement is None else [(self.replacement.source, self.replacement.id)]
        return [(self.source, self.event_id), *replacement]


@dataclass(slots=True)
class Decided:
    """`replacements` are to be stored, `cancelled` is what had been counted."""

    replacements: list[EventRow] = field(default_factory=list)
    cancelled: list[StoredEvent] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)


def correction_of(value: bytes, tenant: bytes, position: Position) -> Correction:
    """The correction that a record of the type `CORRECTION` is. Raises InvalidEvent."""
    event = decode_event(value)
    cancels, text, reason = read_correction(bytes(event.data))
    try:
        correction = UUID(event.id)
        asked_day = None if cancels.time is None else day_of(microseconds(cancels.time) // DAY)
        last_day = day_of(microseconds(event.time) // DAY + 1)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidEvent("data", f"not a correction: {error}") from None
    replacement = None if text is None else row_of(decode_event(text), tenant, position)
    return Correction(
        tenant=tenant,
        identity=identity_of(cancels.source, cancels.id),
        id=correction,
        asked_day=asked_day,
        last_day=last_day,
        source=cancels.source,
        event_id=cancels.id,
        reason=reason,
        position=position,
        value=value,
        replacement=replacement,
    )


class CorrectionStore:
    """Decides about corrections for one consumer member; remembers which events its partitions wait for."""

    def __init__(self, spreads: SpreadTenants) -> None:
        self._spreads = spreads
        self._waiting: dict[int, set[bytes]] = {}
        self._waiting_anywhere: set[bytes] = set()
        self._met: set[int] = set()

    def own(self, partition: int) -> None:
        """To be called when a partition is newly owned: another owner may have left corrections that wait."""
        self._waiting.pop(partition, None)

    async def load(self, connection: asyncpg.Connection, partitions: Iterable[int]) -> None:
        """What the partitions wait for, where it is not known; before their events are asked about.

        What is waited for of a spread tenant may come through another partition: it is asked for every batch.
        """
        if self._spreads.tenants:
            tenants = [UUID(bytes=tenant) for tenant in self._spreads.tenants]
            found = await connection.fetch(_WAITING_OF_TENANTS, tenants)
            self._waiting_anywhere = {row["tenant_id"].bytes + row["identity"].bytes for row in found}
        # What the last batch has met may be waited for still: it may have been rolled back.
        for partition in self._met:
            self.own(partition)
        self._met.clear()
        missing = [partition for partition in partitions if partition not in self._waiting]
        if not missing:
            return
        waiting: dict[int, set[bytes]] = {partition: set() for partition in missing}
        for partition, tenant, identity in await connection.fetch(_WAITING, missing):
            waiting[partition].add(tenant.bytes + identity.bytes)
        self._waiting |= waiting

    async def decide(self, connection: asyncpg.Connection, corrections: Sequence[Correction]) -> Decided:
        """Keeps the corrections, in the caller's transaction.

        No two of them, and no event that is not stored yet, may be of one identity.
        """
        decided = Decided()
        if not corrections:
            return decided
        tenants = [UUID(bytes=each.tenant) for each in corrections]
        identities = [UUID(bytes=each.identity) for each in corrections]
        known: dict[bytes, list[asyncpg.Record]] = {}
        for row in await connection.fetch(_KNOWN, tenants, identities):
            known.setdefault(row["tenant_id"].bytes + row["identity"].bytes, []).append(row)
        asked_days = [each.asked_day for each in corrections]
        found = {row["ordinal"]: row for row in await connection.fetch(_TARGETS, tenants, identities, asked_days)}
        kept: list[tuple[Correction, date | None]] = []
        for number, correction in enumerate(corrections):
            others, target = known.get(correction.key, []), found.get(number)
            if any(other["id"] == correction.id for other in others):
                CORRECTIONS.labels("duplicate").inc()
                continue
            if target is None and any(_covers(other, correction) for other in others):
                CORRECTIONS.labels("conflict").inc()
                decided.letters.append(_conflict(correction))
                continue
            CORRECTIONS.labels("waiting" if target is None else "applied").inc()
            kept.append((correction, None if target is None else target["day"]))
            if target is None:
                self._waiting.setdefault(correction.position.partition, set()).add(correction.key)
                if correction.tenant in self._spreads.tenants:
                    self._waiting_anywhere.add(correction.key)
            else:
                decided.cancelled.append(_stored(correction, target))
            if correction.replacement is not None:
                decided.replacements.append(correction.replacement)
        await _insert(connection, kept)
        return decided

    async def meet(self, connection: asyncpg.Connection, rows: Sequence[EventRow]) -> set[int]:
        """The ids (of objects) of those new events that corrections wait for; these wait no longer.

        The events are stored, and are not to be counted.
        """
        anywhere = self._waiting_anywhere
        if not anywhere and not any(self._waiting.values()):
            return set()
        expected = [row for row in rows if row.key in self._waiting.get(row.partition, ()) or row.key in anywhere]
        met: set[int] = set()
        while expected:
            first = {row.key: row for row in reversed(expected)}
            came = list(first.values())
            found = await connection.fetch(
                _MEET,
                [UUID(bytes=row.tenant) for row in came],
                [UUID(bytes=row.identity) for row in came],
                [day_of(row.day) for row in came],
            )
            for tenant, identity in found:
                row = first[tenant.bytes + identity.bytes]
                met.add(id(row))
                self._met.add(row.partition)
            expected = [row for row in expected if first[row.key] is not row]
        return met


def parts(rows: Sequence[EventRow], corrections: Sequence[Correction]) -> list[tuple[list[EventRow], list[Correction]]]:
    """A batch in parts that come one after the other, each in the order of (partition, offset), and as few as may be.

    In no part is a correction of the same identity as an event or another correction, and what is of one identity is in
    its order. What is of different identities may change its order, on which only depends which groups fill an hour.
    """
    if not corrections:
        return [(list(rows), [])]
    parted: list[tuple[list[EventRow], list[Correction]]] = []
    # In which part an identity was last stored, or cancelled: one that is stored may be stored again in that part.
    stored: dict[bytes, int] = {}
    cancelled: dict[bytes, int] = {}
    entries: list[EventRow | Correction] = sorted([*rows, *corrections], key=_place)
    for each in entries:
        row = each.replacement if isinstance(each, Correction) else each
        number = 0
        if row is not None:
            number = max(stored.get(row.key, 0), cancelled.get(row.key, -1) + 1)
        if isinstance(each, Correction):
            number = max(number, stored.get(each.key, -1) + 1, cancelled.get(each.key, -1) + 1)
            cancelled[each.key] = number
        if row is not None:
            stored[row.key] = number
        if number == len(parted):
            parted.append(([], []))
        if isinstance(each, Correction):
            parted[number][1].append(each)
        else:
            parted[number][0].append(each)
    return parted


def _place(each: EventRow | Correction) -> tuple[int, int]:
    position = each.position if isinstance(each, Correction) else each
    return position.partition, position.offset


def _covers(other: asyncpg.Record, correction: Correction) -> bool:
    """Whether a correction that is kept is about what another one, without a target, is about."""
    if correction.asked_day is None or (other["day"] is None and other["asked_day"] is None):
        return True
    return correction.asked_day in {other["day"], other["asked_day"]}


def _stored(correction: Correction, row: asyncpg.Record) -> StoredEvent:
    return StoredEvent(
        tenant=correction.tenant,
        type=row["type"],
        time=microseconds(row["event_time"]),
        received=microseconds(row["received_at"]),
        partition=row["kafka_partition"],
        offset=row["kafka_offset"],
        catalogue_version=row["catalogue_version"],
        data=decode_data(row["data"]),
    )


async def _insert(connection: asyncpg.Connection, kept: Sequence[tuple[Correction, date | None]]) -> None:
    if not kept:
        return
    replacements = [each.replacement for each, _ in kept]
    await connection.execute(
        _INSERT,
        [UUID(bytes=each.tenant) for each, _ in kept],
        [UUID(bytes=each.identity) for each, _ in kept],
        [each.id for each, _ in kept],
        [each.asked_day for each, _ in kept],
        [each.last_day for each, _ in kept],
        [day for _, day in kept],
        [each.source for each, _ in kept],
        [each.event_id for each, _ in kept],
        [None if row is None else row.source for row in replacements],
        [None if row is None else row.id for row in replacements],
        [each.reason for each, _ in kept],
        [instant(each.position.received) for each, _ in kept],
        [each.position.partition for each, _ in kept],
        [each.position.offset for each, _ in kept],
    )


def _conflict(correction: Correction) -> DeadLetter:
    return DeadLetter(
        tenant_id=UUID(bytes=correction.tenant),
        kind="conflict",
        reason=_CORRECTED,
        position=correction.position,
        payload=correction.value,
        type=CORRECTION,
        source=correction.source,
        event_id=correction.event_id,
    )
