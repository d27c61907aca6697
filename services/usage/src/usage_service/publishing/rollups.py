"""Publishes changed rollups to `usage.rollups.v1`: absolute values with their version, by lane.

A batch of the meter worker queues the keys of the rollups it changed, in its own transaction. The relay of a lane reads
queued keys and what their rollups hold *now*, publishes that in one Kafka transaction and then deletes what it read
from the queue. A change that is committed in between has queued its keys again. Killed at any point, the next holder
publishes the same or newer values with the same or greater versions; nothing is lost and nothing goes backwards.
A queued key whose rollup is gone was purged with its tenant: a tombstone withdraws what was published of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaProducer
from prometheus_client import Counter
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenantry.events import KafkaSettings
from usage_service.domain.instants import microseconds, rfc3339
from usage_service.domain.meters import OVERFLOW
from usage_service.domain.quantities import number_text
from usage_service.driver import driver_of
from usage_service.metering.rollups import LANES, queue_changes
from usage_service.not_counted.keeper import note_full_windows
from usage_service.publishing.held import hold

TOPIC: Final = "usage.rollups.v1"
GRANULARITY: Final = "hour"

PUBLISHED = Counter("usage_rollups_published_total", "Rollups published, an update counts again")

_FULL: Final = {OVERFLOW}
_CHANGES: Final = 10  # queued rows, of one worker batch each, in one Kafka transaction
_PAUSE_SECONDS: Final = 0.2  # lets changes of the same rollup come together; a page shows them this much later

_OPEN_CUTS = text(
    """
    SELECT id FROM system.cut
     WHERE state = 'covered' AND NOT EXISTS (SELECT FROM system.cut_lane WHERE cut_id = cut.id AND lane = :lane)
    """
)
_QUEUED = text("SELECT id FROM system.rollup_change WHERE lane = :lane ORDER BY id LIMIT :changes")
_CHANGED = text(
    """
    WITH changed AS MATERIALIZED (
        SELECT DISTINCT key.tenant_id, key.meter_id, key.window_start, key.group_hash
          FROM system.rollup_change AS change
         CROSS JOIN LATERAL unnest(change.tenant_ids, change.meter_ids, change.window_starts, change.group_hashes)
               AS key (tenant_id, meter_id, window_start, group_hash)
         WHERE change.lane = :lane AND change.id = ANY(:ids))
    SELECT tenant_id, meter.slug, meter.version AS meter_version, meter.aggregation, window_start, group_hash,
           rollup.groups, rollup.version, rollup.count AS counted, rollup.sum, rollup.minimum, rollup.maximum,
           rollup.uniques, rollup.latest, rollup.latest_time, rollup.latest_received_at, rollup.latest_partition,
           rollup.latest_offset, rollup.first_time, rollup.integral
      FROM changed
      JOIN system.meter AS meter ON meter.id = changed.meter_id
      LEFT JOIN pool.usage_rollup AS rollup USING (tenant_id, meter_id, window_start, group_hash)
    """
)
# What is cleared here is queued for the balances of quotas on these meters, in the same statement: of those that are
# stored, and of those that a tier or a plan gives and that were not used before.
_CLEAR = text(
    """
    WITH cleared AS (
        DELETE FROM system.rollup_change WHERE lane = :lane AND id = ANY(:ids) RETURNING tenant_ids, meter_ids),
    changed AS (
        SELECT DISTINCT key.tenant_id, key.meter_id
          FROM cleared CROSS JOIN LATERAL unnest(tenant_ids, meter_ids) AS key (tenant_id, meter_id)
         WHERE (SELECT EXISTS (SELECT FROM pool.quota)
                    OR EXISTS (SELECT FROM system.entitlement_tier WHERE metered <> '{}')
                    OR EXISTS (SELECT FROM pool.entitled_tenant WHERE metered <> '{}')))
    INSERT INTO system.balance_change (tenant_id, feature)
    SELECT quota.tenant_id, quota.feature
      FROM changed
      JOIN system.meter AS meter ON meter.id = changed.meter_id
      JOIN pool.quota AS quota ON quota.tenant_id = changed.tenant_id AND quota.meter = meter.slug
     UNION
    SELECT changed.tenant_id, named.feature
      FROM changed
      JOIN system.meter AS meter ON meter.id = changed.meter_id
      JOIN pool.entitled_tenant AS entitled ON entitled.tenant_id = changed.tenant_id
      LEFT JOIN system.entitlement_tier AS tier ON tier.name = entitled.tier
     CROSS JOIN LATERAL unnest(entitled.metered || COALESCE(tier.metered, '{}')) AS named (feature)
      LEFT JOIN system.feature AS feature ON feature.slug = named.feature
     WHERE COALESCE(feature.meter, named.feature) = meter.slug
    """
)
_PASS = text(
    """
    INSERT INTO system.cut_lane (cut_id, lane)
    SELECT passed, :lane FROM unnest(CAST(:cuts AS uuid[])) AS passed ON CONFLICT DO NOTHING
    """
)


class Latest(msgspec.Struct, frozen=True):
    """The sample that supersedes all others: by time, then receipt, then partition and offset."""

    value: str
    time: str
    received_at: str
    partition: int
    offset: int


class RollupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `usage.rollups.v1`. Numbers are texts, so that no reader makes them floats.

    `aggregation` says which of them is the meter's figure, or makes it: an average has a sum too. All states merge with
    those of other hours but `unique_count`, which is the hour's own figure. Of a time-weighted meter `integral` is in
    value-microseconds from `first_time` to the time of `latest`, whose value holds until the next hour that has one.
    """

    tenant_id: str
    meter: str
    meter_version: int
    aggregation: str
    granularity: str
    window_start: str
    group: dict[str, str]
    group_hash: str
    count: str
    sum: str | None
    min: str | None
    max: str | None
    latest: Latest | None
    first_time: str | None
    integral: str | None
    unique_count: str | None
    version: int


_encode = msgspec.json.Encoder().encode
_decode_group = msgspec.json.Decoder(dict[str, str]).decode


async def queue_erased(connection: AsyncConnection, rollups: Sequence[Row[Any]]) -> None:
    """Have rollups that this transaction has deleted withdrawn from the topic."""
    driver = await driver_of(connection)
    keys = [
        (each.tenant_id.bytes, each.meter_id.bytes, microseconds(each.window_start), each.group_hash.bytes)
        for each in rollups
    ]
    await queue_changes(driver, keys)


class RollupRelay:
    """Publishes the lanes that it gets to hold until cancelled; any number of processes may run one."""

    def __init__(self, engine: AsyncEngine, kafka: KafkaSettings) -> None:
        self._engine = engine
        self._kafka = kafka
        self._topic = kafka.topic(TOPIC)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as lanes:
            for lane in range(LANES):
                lanes.create_task(self._hold(lane))

    async def _hold(self, lane: int) -> None:
        async def work(connection: AsyncConnection, producer: AIOKafkaProducer) -> None:
            while True:
                await self._drain(connection, producer, lane)
                await asyncio.sleep(_PAUSE_SECONDS)

        await hold(self._engine, self._kafka, number=lane, name=f"rollups-{lane}", work=work)

    async def _drain(self, connection: AsyncConnection, producer: AIOKafkaProducer, lane: int) -> None:
        # The cuts are read first: whatever they cover is in the queue before it is read, or published already.
        cuts: Sequence[UUID] = (await connection.execute(_OPEN_CUTS, {"lane": lane})).scalars().all()
        while await self._publish(connection, producer, lane) == _CHANGES:
            pass
        if cuts:
            await connection.execute(_PASS, {"lane": lane, "cuts": list(cuts)})

    async def _publish(self, connection: AsyncConnection, producer: AIOKafkaProducer, lane: int) -> int:
        ids = (await connection.execute(_QUEUED, {"lane": lane, "changes": _CHANGES})).scalars().all()
        if not ids:
            return 0
        rows = (await connection.execute(_CHANGED, {"lane": lane, "ids": list(ids)})).all()
        async with producer.transaction():
            acknowledgements = []
            full = set()
            for row in rows:
                record = None if row.version is None else _record(row)
                if record is not None and set(record.group.values()) == _FULL:
                    full.add((row.tenant_id, row.slug, row.counted))
                value = None if record is None else _encode(record)
                acknowledgements.append(await producer.send(self._topic, key=_key(row), value=value))
            # The commit does not ask whether the records arrived, so it must wait for them.
            await asyncio.gather(*acknowledgements)
        if full:
            await note_full_windows(connection, full)
        await connection.execute(_CLEAR, {"lane": lane, "ids": list(ids)})
        PUBLISHED.inc(len(rows))
        return len(ids)


def _key(row: Row[Any]) -> bytes:
    meter = f"{row.slug}@{row.meter_version}"
    return f"{row.tenant_id}|{meter}|{GRANULARITY}|{_hour(row.window_start)}|{row.group_hash.hex}".encode()


def _record(row: Row[Any]) -> RollupRecord:
    latest = None
    if row.latest is not None:
        latest = Latest(
            number_text(row.latest),
            rfc3339(row.latest_time),
            rfc3339(row.latest_received_at),
            row.latest_partition,
            row.latest_offset,
        )
    return RollupRecord(
        tenant_id=str(row.tenant_id),
        meter=row.slug,
        meter_version=row.meter_version,
        aggregation=row.aggregation,
        granularity=GRANULARITY,
        window_start=_hour(row.window_start),
        group=_decode_group(row.groups),
        group_hash=row.group_hash.hex,
        count=str(row.counted),
        sum=_text(row.sum),
        min=_text(row.minimum),
        max=_text(row.maximum),
        latest=latest,
        first_time=None if row.first_time is None else rfc3339(row.first_time),
        integral=_text(row.integral),
        unique_count=None if row.uniques is None else str(row.uniques),
        version=row.version,
    )


def _hour(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _text(number: Decimal | None) -> str | None:
    return None if number is None else number_text(number)
