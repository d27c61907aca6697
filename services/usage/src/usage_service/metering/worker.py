"""One batch of `usage.events.v1` in one transaction: events, rollups, queue of changes, dead letters, progress.

The consumer that calls `MeterWorker.handle` commits, together with its offsets. Every statement of a batch:

1.  catalogue version, offsets and owner epochs, parked records of the batch's partitions
2.  (filters of partitions and days that are new to this member)
3.  look-up of suspected copies                       4.  COPY of events         5.  INSERT of events
6.  (groups of windows that are new to this member)   7.  COPY of increments     8.  upsert of rollups
9.  queue of changed rollups                          10. progress               (11. unmatched, dead letters)

Rollups of latest, unique_count and time_weighted add, after 6, the values that are new, a look-up that locks their
rows, where samples came out of order the raw events of their hours, the write, and a queue of their own.

A batch with corrections is handled in parts (`metering.corrections`): before 3 what is known of the corrected events,
and the corrections' own rows; after 9 the rollups that counted what is cancelled.

A batch of tenants whose events lie under several keys (`metering.spreading`) adds before 2 the rows of `spread_tenant`
where they have changed, the locks of the mixed ones, and what corrections of them wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from uuid import UUID

import asyncpg
import structlog
from aiokafka import ConsumerRecord
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry import TenantDirectory
from tenantry.events import InvalidRecord, InvalidRecords
from usage_service.domain.corrections import CORRECTION
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.instants import UNIX_EPOCH_MILLISECONDS, day_of, instant
from usage_service.domain.meters import Catalogue
from usage_service.driver import driver_of
from usage_service.metering.catalogue import load_catalogue, load_versions
from usage_service.metering.corrections import Correction, CorrectionStore, correction_of, parts
from usage_service.metering.counting import count_events
from usage_service.metering.days import Days
from usage_service.metering.dead_letters import NO_TENANT, DeadLetter, write_dead_letters
from usage_service.metering.events import EventStore
from usage_service.metering.identities import KnownIdentities
from usage_service.metering.parking import PARKED_SECONDS, Parked, oldest_parked, park, take_parked
from usage_service.metering.rollups import RollupStore
from usage_service.metering.rows import FUTURE, TENANT_LENGTH, EventRow, Position, decode_event, read_rows, row_of
from usage_service.metering.spreading import DIGEST, SHARED, SpreadTenants
from usage_service.metering.staging import STAGES
from usage_service.metering.tenants import KnownTenants
from usage_service.routing.rates import TenantRates

GROUP = "usage-meter"
TOPIC = "usage.events.v1"
DAY_GONE = "time: its day, or one that it is compared with, has left for the archive and takes no events any more"
NUDGE = "nudge"
"""Header of a record that only wakes the owner of a partition, so that it looks at its parked records."""

EVENTS = Counter("usage_events_total", "Records of usage.events.v1 by what became of them", ["outcome"])

# When at least nine in ten of this many records cannot be read, the worker is wrong and not the records: it hands them
# to the consumer's guard, which stops before a topic is drained into dead letters.
_SUSPICIOUS = 50
_TENANTS_REMEMBERED = 200_000

log = structlog.get_logger(__name__)

# It reads no events, but locks their parent: until the batch ends no day can go that it does not know to be gone.
_STATE = text(
    f"""
    SELECT COALESCE((SELECT version FROM system.meter_catalogue), 0) AS version,
           owned.partition, owned.owner_epoch, owned.next_offset,
           EXISTS (SELECT FROM system.parked_record AS parked WHERE parked.partition = owned.partition) AS parked,
           (SELECT count(*) FROM system.gone_day) AS gone_days,
           EXISTS (SELECT FROM pool.usage_event WHERE false) AS locked,
           {SHARED} AS spread_locked, {DIGEST} AS spread,
           to_regclass('pg_temp.staged_event') IS NOT NULL AS staged
      FROM system.consumer_offset AS owned
     WHERE owned.group_id = :group AND owned.topic = :topic AND owned.partition = ANY(CAST(:partitions AS int[]))
    """  # noqa: S608 (statements of our own)
)
# Up to the last record, and not what is parked.
_PROGRESS = """
INSERT INTO system.partition_progress AS progress (partition, received_until)
SELECT last.partition, LEAST(last.received_at, (
       SELECT parked.received_at - interval '1 microsecond' FROM system.parked_record AS parked
        WHERE parked.partition = last.partition ORDER BY parked."offset" LIMIT 1))
  FROM unnest($1::int[], $2::timestamptz[]) AS last (partition, received_at) ORDER BY 1
ON CONFLICT (partition) DO UPDATE SET received_until = GREATEST(progress.received_until, excluded.received_until)
"""


@dataclass(slots=True)
class Batch:
    """A batch while it is read: rows to store, records to park, letters to write."""

    rows: list[EventRow] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    undecodable: list[InvalidRecord] = field(default_factory=list)
    dropped: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0


class MeterWorker:
    """The handler of one consumer member. What it remembers between batches is only ever a saving of look-ups."""

    def __init__(
        self,
        *,
        directory: TenantDirectory,
        days: Days,
        window_days: int = 1,
        group: str = GROUP,
        topic: str = TOPIC,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rates: TenantRates | None = None,
        identities: KnownIdentities | None = None,
    ) -> None:
        """`window_days`: days on either side of an event's own in which a copy never counts.

        `group` and `topic` are the names on the cluster. `rates` gets samples of what comes. `identities`
        are those of the process, for workers of one event loop.
        """
        self._directory = directory
        self._days = days
        self._group = group
        self._topic = topic
        self._now = now
        self._rates = rates
        self._spreads = SpreadTenants(window_days=window_days)
        identities = identities or KnownIdentities(group=group, topic=topic)
        self._events = EventStore(self._spreads, identities, window_days=window_days)
        self._rollups = RollupStore(self._spreads)
        self._corrections = CorrectionStore(self._spreads)
        self._catalogue = Catalogue(-1, {})
        self._gone_days = 0
        self._tenants = KnownTenants(directory)
        self._tenants_version = -1
        self._written: dict[int, int] = {}
        self._transaction: object = None

    async def handle(self, connection: AsyncConnection, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        """Counts the records in the transaction of `connection`; the caller commits. May be repeated after a rollback.

        Raises InvalidRecords when so many cannot be read that the worker itself is in doubt.
        """
        if not records:
            return
        transaction = connection.sync_connection.get_transaction() if connection.sync_connection else None
        again = transaction is self._transaction
        self._transaction = transaction
        await self._spreads.mix(connection)
        parked_partitions = await self._begin(connection, records)
        driver = await driver_of(connection)
        batch = self._read(records)
        if parked_partitions:
            await self._resume_parked(driver, parked_partitions, batch)
        self._spreads.begin_anew_for_strays()
        await park(driver, batch.parked)
        await self._refuse_gone_days(batch)
        corrected = (correction.tenant for correction in batch.corrections)
        await self._spreads.lock(driver, chain((row.tenant for row in batch.rows), corrected))
        await self._corrections.load(driver, {record.partition for record in records})
        for number, (rows, corrections) in enumerate(parts(batch.rows, batch.corrections)):
            await self._count(connection, batch, rows, corrections, clear=again or number > 0)
        await write_dead_letters(connection, batch.letters)
        await self._finish(driver, records)
        self._report(batch)

    async def _count(
        self,
        connection: AsyncConnection,
        batch: Batch,
        rows: list[EventRow],
        corrections: Sequence[Correction],
        *,
        clear: bool,
    ) -> None:
        """Stores and counts events, and applies corrections, none of which is about one of the events."""
        driver = await driver_of(connection)
        decided = await self._corrections.decide(driver, corrections)
        if decided.replacements:
            rows = sorted([*rows, *decided.replacements], key=lambda row: (row.partition, row.offset))
        try:
            stored = await self._events.store(driver, rows, self._catalogue.version, clear=clear)
        except asyncpg.CheckViolationError:
            self._days.forget()  # a day was dropped since it was last needed: the batch is repeated
            raise
        met = await self._corrections.meet(driver, stored.new)
        counting = [row for row in stored.new if id(row) not in met] if met else stored.new
        batch.letters += await self._rollups.write(driver, count_events(counting, self._catalogue), clear=clear)
        if decided.cancelled:
            versions = await load_versions(connection, {event.type for event in decided.cancelled})
            await self._rollups.cancel(driver, decided.cancelled, versions)
        batch.letters += decided.letters
        batch.letters += [
            DeadLetter.of_row(row, kind="conflict", reason="another event with this source and id says something else")
            for row in stored.conflicts
        ]
        batch.stored += len(stored.new)
        batch.duplicates += len(rows) - len(stored.new)
        batch.conflicts += len(stored.conflicts)

    async def _begin(self, connection: AsyncConnection, records: Iterable[ConsumerRecord[bytes, bytes]]) -> list[int]:
        """Brings what is remembered up to date; returns the partitions that have parked records."""
        partitions = {record.partition for record in records}
        state = (
            await connection.execute(
                _STATE, {"group": self._group, "topic": self._topic, "partitions": sorted(partitions)}
            )
        ).all()
        for row in state:
            newly_owned = self._events.own(row.partition, row.owner_epoch)
            if newly_owned:
                self._corrections.own(row.partition)
            # A batch that was handled but is not committed has left groups in memory that the database does not have.
            if newly_owned or self._written.get(row.partition, row.next_offset) != row.next_offset:
                self._rollups.forget()
        # Asked and not remembered: a rollback takes the tables of its own transaction with it.
        if not state or not state[0].staged:
            for statement in STAGES:
                await connection.exec_driver_sql(statement)
        if state and state[0].version != self._catalogue.version:
            self._catalogue = await load_catalogue(connection)
            self._rollups.forget()  # a backfill has given windows groups, and waits for this before it settles them
        if state and await self._spreads.load(await driver_of(connection), state[0].spread):
            self._rollups.forget()
        if state and state[0].gone_days != self._gone_days:
            self._days.forget()
            self._gone_days = state[0].gone_days
        if self._tenants_version != self._directory.version or len(self._tenants) > _TENANTS_REMEMBERED:
            self._tenants.clear()
            self._tenants_version = self._directory.version
        # Until this batch is handled to its end: an attempt that fails leaves groups in memory, too.
        self._written.update(dict.fromkeys(partitions, -1))
        return [row.partition for row in state if row.parked]

    def _read(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> Batch:
        batch = Batch()
        batch.rows, others = read_rows(records, self._tenants, self._spreads.by_subject)
        for record in others:
            if record.value is None and any(name == NUDGE for name, _ in record.headers):
                continue
            received = (record.timestamp - UNIX_EPOCH_MILLISECONDS) * 1_000
            position = Position(record.partition, record.offset, received)
            try:
                self._place(batch, record.value, position, key=record.key or b"")
            except InvalidEvent as error:
                batch.undecodable.append(InvalidRecord(record, str(error)))
                batch.letters.append(_undecodable(record.value, position, error))
        if others:
            batch.rows.sort(key=lambda row: (row.partition, row.offset))
        if len(batch.undecodable) >= _SUSPICIOUS and len(batch.undecodable) >= 0.9 * len(records):
            raise InvalidRecords(batch.undecodable)
        return batch

    def _place(
        self,
        batch: Batch,
        value: bytes | None,
        position: Position,
        *,
        key: bytes,
        parked_at: datetime | None = None,
    ) -> None:
        """Reads one event into the batch: to store, to park, or to drop. Raises InvalidEvent."""
        event = decode_event(value)
        if key[:TENANT_LENGTH].lower() != event.subject.lower().encode():
            raise InvalidEvent("subject", "is not the tenant of the record's key")
        tenant = self._tenants.get(event.subject)
        if tenant is None:
            tenant = self._find_tenant(event.subject)
        if tenant is not None:
            if event.type == CORRECTION:
                correction = correction_of(value or b"", tenant, position)
                batch.corrections.append(correction)
                self._spreads.check(key, UUID(bytes=tenant), *correction.identities)
            else:
                row = row_of(event, tenant, position)
                self._check_future(row)
                batch.rows.append(row)
                self._spreads.check(key, UUID(bytes=tenant), (event.source, event.id))
            return
        tenant_id = _tenant_id(event.subject)
        if self._directory.is_purged(tenant_id):
            batch.dropped += 1
        elif parked_at is None:
            batch.parked.append(Parked(position, tenant_id, key, value or b""))
        elif (self._now() - parked_at).total_seconds() < PARKED_SECONDS:
            batch.parked.append(Parked(position, tenant_id, key, value or b"", parked_at))
        else:
            reason = f"tenant {tenant_id} is not known {PARKED_SECONDS} seconds after its event"
            batch.letters.append(DeadLetter(NO_TENANT, "unknown-tenant", reason, position, value or b""))

    def _check_future(self, row: EventRow) -> None:
        """Raises InvalidEvent for what happened after it was received, unless a test clock says when it is."""
        if row.time > row.received + FUTURE:
            tenant = self._directory.get(UUID(bytes=row.tenant))
            if tenant is not None and tenant.clock is None:
                raise InvalidEvent("time", "lies in the future")

    def _find_tenant(self, subject: str) -> bytes | None:
        tenant_id = _tenant_id(subject)
        if self._directory.get(tenant_id) is None:
            return None
        self._tenants[subject] = tenant_id.bytes
        return tenant_id.bytes

    async def _resume_parked(self, driver: asyncpg.Connection, partitions: Sequence[int], batch: Batch) -> None:
        """Parked records come before the batch: they were received earlier. Some wait on."""
        resumed = Batch()
        oldest = await oldest_parked(driver, partitions)
        for record in oldest:
            try:
                self._place(resumed, record.value, record.position, key=record.key, parked_at=record.parked_at)
            except InvalidEvent as error:
                resumed.letters.append(_undecodable(record.value, record.position, error))
        waiting = {record.position for record in resumed.parked}
        await take_parked(driver, [record.position for record in oldest if record.position not in waiting])
        batch.rows[:0] = resumed.rows
        batch.corrections[:0] = resumed.corrections
        batch.letters += resumed.letters
        batch.dropped += resumed.dropped

    async def _refuse_gone_days(self, batch: Batch) -> None:
        """Events of days that have gone, or are compared with days that have, become letters: they may be copies."""
        replacements = [each.replacement for each in batch.corrections if each.replacement is not None]
        rows = [*batch.rows, *replacements]
        gone = await self._days.ensure(day_of(day) for day in {row.day for row in rows})
        if not gone:
            return
        late = {id(row) for row in rows if day_of(row.day) in gone}
        batch.letters += [DeadLetter.of_row(row, kind="late", reason=DAY_GONE) for row in rows if id(row) in late]
        batch.rows = [row for row in batch.rows if id(row) not in late]
        batch.corrections = [
            replace(each, replacement=None) if id(each.replacement) in late else each for each in batch.corrections
        ]

    async def _finish(self, driver: asyncpg.Connection, records: Iterable[ConsumerRecord[bytes, bytes]]) -> None:
        last = {record.partition: record for record in records}
        received = [instant((record.timestamp - UNIX_EPOCH_MILLISECONDS) * 1_000) for record in last.values()]
        await driver.execute(_PROGRESS, list(last), received)
        self._written.update({partition: record.offset + 1 for partition, record in last.items()})

    def _report(self, batch: Batch) -> None:
        if self._rates is not None:
            self._rates.sample(batch.rows)
        EVENTS.labels("stored").inc(batch.stored)
        EVENTS.labels("duplicate").inc(batch.duplicates)
        EVENTS.labels("conflict").inc(batch.conflicts)
        EVENTS.labels("parked").inc(len(batch.parked))
        EVENTS.labels("dropped").inc(batch.dropped)
        EVENTS.labels("dead-letter").inc(len(batch.letters))


def _tenant_id(subject: str) -> UUID:
    try:
        return UUID(subject)
    except ValueError:
        raise InvalidEvent("subject", "is not the UUID of a tenant") from None


def _undecodable(value: bytes | None, position: Position, error: InvalidEvent) -> DeadLetter:
    return DeadLetter(NO_TENANT, "undecodable", str(error), position, value or b"")
