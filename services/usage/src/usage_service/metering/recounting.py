"""The state of a rollup from the raw events of its hour: what no increment can tell.

An event counts for a version of a meter by the catalogue version under which it was stored, so a recount gives what
counting each event as it came would have given, whatever the order. However many there are, few are in memory: samples
are read in order and joined as they come, different values go to the stage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import asyncpg

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.instants import instant, microseconds
from usage_service.domain.meters import CompiledMeter
from usage_service.domain.rollups import At, State, UniqueState
from usage_service.domain.series import RunState, ordered_state
from usage_service.metering.cancelled import NOT_CANCELLED
from usage_service.metering.counting import RollupKey, WindowKey
from usage_service.metering.groups import groups_of
from usage_service.metering.rollup_rows import Kept, open_stage, stage_values
from usage_service.metering.rows import decode_data

_HOURS_AT_ONCE: Final = 16
_ROWS_AT_ONCE: Final = 5_000  # bounds the events that are in memory
_STAGED_AT_ONCE: Final = 10  # blocks whose different values are in memory
_IN_ORDER: Final = "ORDER BY ordinal, event_time, received_at, kafka_partition, kafka_offset"

# LATERAL with OFFSET 0 reads a tenant's day by its key for each hour; as a join the planner may read whole days.
_RAW = f"""
SELECT hour.ordinal - 1 AS ordinal, event.*
  FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) WITH ORDINALITY AS hour (tenant_id, opening, type, ordinal)
 CROSS JOIN LATERAL (
       SELECT event_time, received_at, kafka_partition, kafka_offset, catalogue_version, data
         FROM pool.usage_event AS event
        WHERE event.tenant_id = hour.tenant_id AND event.type = hour.type
          AND event.day = (hour.opening AT TIME ZONE 'UTC')::date
          AND event.event_time >= hour.opening AND event.event_time < hour.opening + interval '1 hour'
          AND {NOT_CANCELLED}
       OFFSET 0) AS event
"""  # noqa: S608 (our own)

_Hour = tuple[bytes, int, str]


class Raw(NamedTuple):
    """What counts of a raw event; `data` is JSON."""

    at: At
    catalogue_version: int
    data: str


class Archived(Protocol):
    """The events of hours that have left PostgreSQL, with all that they have."""

    def events(self, connection: asyncpg.Connection, tenant: UUID, kind: str, opening: datetime) -> AsyncIterator[Raw]:
        """Those of a tenant, type and hour, in order, that no correction cancels which the transaction sees."""


async def recount(
    connection: asyncpg.Connection, rollups: Mapping[RollupKey, CompiledMeter], archived: Archived | None = None
) -> dict[RollupKey, Kept]:
    """What the rows of these rollups are to say, by all events that the caller's transaction sees; it holds the rows.

    The different values of unique counts are on the stage, from where `set_rollups` takes them. A rollup without events
    is empty. `archived` is needed where hours may have left PostgreSQL.
    """
    states = {key: ordered_state(meter.meter.definition.aggregation) for key, meter in rollups.items()}
    staging = any(isinstance(state, UniqueState) for state in states.values())
    if staging:
        await open_stage(connection)
    overflowed = [key[:3] for key, meter in rollups.items() if meter.readers and key[3] == meter.overflow.hash]
    own = await groups_of(connection, overflowed)
    meters: dict[_Hour, dict[bytes, CompiledMeter]] = {}
    for (tenant, meter_key, opening, _), meter in rollups.items():
        meters.setdefault((tenant, opening, meter.meter.definition.event_type), {})[meter_key] = meter
    in_order = any(isinstance(state, RunState) for state in states.values())
    blocks = 0
    async for block in _blocks(connection, list(meters), archived, in_order=in_order):
        for hour, raw in block:
            tenant, opening, _ = hour
            data = decode_data(raw.data)
            for meter in meters[hour].values():
                if meter.meter.counts(raw.catalogue_version, raw.at.time) and meter.matches(data):
                    state = _state_of(meter.group(data).hash, (tenant, meter.key, opening), meter, states, own)
                    # What is no value was listed as a dead letter when it came.
                    with suppress(InvalidQuantity):
                        state.observe(meter, data, raw.at)
        blocks += 1
        if staging and blocks % _STAGED_AT_ONCE == 0:
            await stage_values(connection, states)
    await stage_values(connection, states)
    return {key: Kept.of(state) for key, state in states.items()}


async def _blocks(
    connection: asyncpg.Connection, asked: Sequence[_Hour], archived: Archived | None, *, in_order: bool
) -> AsyncIterator[Sequence[tuple[_Hour, Raw]]]:
    """The events of these hours, each with its hour. What PostgreSQL has of an hour the archive has not."""
    for start in range(0, len(asked), _HOURS_AT_ONCE):
        hours = asked[start : start + _HOURS_AT_ONCE]
        tenants, openings = [UUID(bytes=tenant) for tenant, _, _ in hours], [instant(each) for _, each, _ in hours]
        kinds = [kind for _, _, kind in hours]
        cursor = await connection.cursor(_RAW + (_IN_ORDER if in_order else ""), tenants, openings, kinds)
        while rows := await cursor.fetch(_ROWS_AT_ONCE):
            yield [
                (hours[ordinal], Raw(At(microseconds(time), microseconds(received), *place), version, text))
                for ordinal, time, received, *place, version, text in rows
            ]
        if archived is None:
            continue
        for hour, tenant, opening, kind in zip(hours, tenants, openings, kinds, strict=True):
            block: list[tuple[_Hour, Raw]] = []
            async for raw in archived.events(connection, tenant, kind, opening):
                block.append((hour, raw))
                if len(block) == _ROWS_AT_ONCE:
                    yield block
                    block = []
            yield block


def _state_of(
    group: bytes,
    window: WindowKey,
    meter: CompiledMeter,
    states: Mapping[RollupKey, State],
    own: Mapping[WindowKey, set[bytes]],
) -> State:
    """The state that counts an event of this group; one that nobody asked for where it is in none of `states`."""
    state = states.get((*window, group))
    if state is None and window in own and group not in own[window]:
        state = states.get((*window, meter.overflow.hash))
    return state or ordered_state(meter.meter.definition.aggregation)
