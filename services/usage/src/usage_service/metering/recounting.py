"""The state of a rollup from the raw events of its hour: what no increment can tell.

An event counts for a version of a meter by the catalogue version under which it was stored, so a recount gives what
counting each event as it came would have given, whatever the order.
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
from usage_service.domain.rollups import At, State, empty_state
from usage_service.metering.cancelled import NOT_CANCELLED
from usage_service.metering.counting import RollupKey, WindowKey
from usage_service.metering.groups import groups_of
from usage_service.metering.rows import decode_data

_HOURS_AT_ONCE: Final = 16
_ROWS_AT_ONCE: Final = 5_000  # bounds the events that are in memory

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
    """The events of hours that have left PostgreSQL."""

    def events(self, connection: asyncpg.Connection, tenant: UUID, kind: str, opening: datetime) -> AsyncIterator[Raw]:
        """Those of a tenant, type and hour that no correction cancels which the transaction of `connection` sees."""


async def recount(
    connection: asyncpg.Connection, rollups: Mapping[RollupKey, CompiledMeter], archived: Archived | None = None
) -> dict[RollupKey, State]:
    """The states of these rollups, of all events that the caller's transaction sees; the caller holds their rows.

    A rollup without events is the empty state. `archived` is needed where hours may have left PostgreSQL.
    """
    states = {key: empty_state(meter.meter.definition.aggregation) for key, meter in rollups.items()}
    overflowed = [key[:3] for key, meter in rollups.items() if meter.readers and key[3] == meter.overflow.hash]
    own = await groups_of(connection, overflowed)
    meters: dict[_Hour, dict[bytes, CompiledMeter]] = {}
    for (tenant, meter_key, opening, _), meter in rollups.items():
        meters.setdefault((tenant, opening, meter.meter.definition.event_type), {})[meter_key] = meter
    asked = list(meters)
    for start in range(0, len(asked), _HOURS_AT_ONCE):
        hours = asked[start : start + _HOURS_AT_ONCE]
        async for number, raw in _events(connection, hours, archived):
            tenant, opening, _ = hour = hours[number]
            data = decode_data(raw.data)
            for meter in meters[hour].values():
                if meter.meter.counts(raw.catalogue_version, raw.at.time) and meter.matches(data):
                    state = _state_of(meter.group(data).hash, (tenant, meter.key, opening), meter, states, own)
                    # What is no value was listed as a dead letter when it came.
                    with suppress(InvalidQuantity):
                        state.observe(meter, data, raw.at)
    return states


async def _events(
    connection: asyncpg.Connection, hours: Sequence[_Hour], archived: Archived | None
) -> AsyncIterator[tuple[int, Raw]]:
    """The events of some hours, each with the number of its hour."""
    asked = [(UUID(bytes=tenant), instant(opening), kind) for tenant, opening, kind in hours]
    cursor = connection.cursor(
        _RAW,
        [tenant for tenant, _, _ in asked],
        [opening for _, opening, _ in asked],
        [kind for _, _, kind in asked],
        prefetch=_ROWS_AT_ONCE,
    )
    async for ordinal, time, received, partition, offset, catalogue_version, text in cursor:
        at = At(microseconds(time), microseconds(received), partition, offset)
        yield ordinal, Raw(at, catalogue_version, text)
    if archived is not None:
        for number, (tenant, opening, kind) in enumerate(asked):
            async for raw in archived.events(connection, tenant, kind, opening):
                yield number, raw


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
    return state or empty_state(meter.meter.definition.aggregation)
