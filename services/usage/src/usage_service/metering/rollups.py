"""Writing a batch's increments: hour rollups, the queue of changed rollups, uncounted and unmatched events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import asyncpg
from prometheus_client import Counter

from tenantry import uuid7
from usage_service.domain.instants import instant
from usage_service.domain.meters import MAX_GROUPS
from usage_service.metering.cancelling import StoredEvent, Versions, cancel_events
from usage_service.metering.counting import Increments, RollupKey, WindowKey, overflow
from usage_service.metering.dead_letters import DeadLetter
from usage_service.metering.gathering import write_gathered
from usage_service.metering.groups import groups_of
from usage_service.metering.rollup_rows import key_columns
from usage_service.metering.spreading import SpreadTenants, lock_tenants
from usage_service.metering.staging import ROLLUP_COLUMNS, copy_into, rollup_bytes

LANES: Final = 4
"""Relays publish rollups by lane; a tenant's rollups are in one lane. Fixed: a queued change carries its lane."""

OVERFLOWED = Counter("usage_groups_overflowed_total", "Groups that went to __other__ because their window was full")

_REMEMBERED_WINDOWS = 200_000
_REMEMBERED_GROUPS = 1_000_000  # of all windows; some 100 bytes each

_UPSERT = """
INSERT INTO pool.usage_rollup AS rollup
       (tenant_id, meter_id, window_start, group_hash, version, count, groups, sum, minimum, maximum)
SELECT tenant_id, meter_id, window_start, group_hash, 1, count, groups, sum::numeric, minimum::numeric, maximum::numeric
  FROM staged_rollup ORDER BY tenant_id, meter_id, window_start, group_hash
ON CONFLICT (tenant_id, meter_id, window_start, group_hash) DO UPDATE SET
       version = rollup.version + 1,
       count = rollup.count + excluded.count,
       sum = COALESCE(rollup.sum + excluded.sum, rollup.sum, excluded.sum),
       minimum = LEAST(rollup.minimum, excluded.minimum),
       maximum = GREATEST(rollup.maximum, excluded.maximum)
"""
# The last byte of a UUID is random in every version of it.
_QUEUE = f"""
INSERT INTO system.rollup_change (lane, id, tenant_ids, meter_ids, window_starts, group_hashes)
SELECT get_byte(uuid_send(tenant_id), 15) % {LANES}, $1,
       array_agg(tenant_id), array_agg(meter_id), array_agg(window_start), array_agg(group_hash)
  FROM staged_rollup GROUP BY 1
"""  # noqa: S608 (a constant of our own)
_QUEUE_KEYS = f"""
INSERT INTO system.rollup_change (lane, id, tenant_ids, meter_ids, window_starts, group_hashes)
SELECT get_byte(uuid_send(tenant_id), 15) % {LANES}, $1,
       array_agg(tenant_id), array_agg(meter_id), array_agg(window_start), array_agg(group_hash)
  FROM unnest($2::uuid[], $3::uuid[], $4::timestamptz[], $5::uuid[])
       AS changed (tenant_id, meter_id, window_start, group_hash) GROUP BY 1
"""  # noqa: S608 (a constant of our own)
_UNMATCHED = """
INSERT INTO pool.unmatched_type AS known (tenant_id, type, count, first_received_at, last_received_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[]) ORDER BY 1, 2
ON CONFLICT (tenant_id, type) DO UPDATE SET
       count = known.count + excluded.count,
       first_received_at = LEAST(known.first_received_at, excluded.first_received_at),
       last_received_at = GREATEST(known.last_received_at, excluded.last_received_at)
"""


async def queue_changes(connection: asyncpg.Connection, keys: Collection[RollupKey]) -> None:
    """Has these rollups published once the caller's transaction is committed."""
    await connection.execute(_QUEUE_KEYS, uuid7(), *key_columns(keys))


class RollupStore:
    """Writes increments for one consumer member; remembers the groups of recent windows to hold their bound."""

    def __init__(self, spreads: SpreadTenants, *, max_groups: int = MAX_GROUPS) -> None:
        self._spreads = spreads
        self._max_groups = max_groups
        self._windows: dict[WindowKey, set[bytes]] = {}
        self._groups = 0

    def forget(self) -> None:
        """To be called when what was written may not have been committed, or another owner may have written."""
        self._windows.clear()
        self._groups = 0

    async def write(self, connection: asyncpg.Connection, increments: Increments, *, clear: bool) -> list[DeadLetter]:
        """Adds the increments, in the caller's transaction; returns the dead letters of what could not be counted.

        `clear` says that the stage was used in this transaction before.
        """
        if increments.dimensional:
            await self._hold_bound(connection, increments)
        if increments.gathered:
            # Before the others, in every worker: rows are locked in one order.
            changed = await write_gathered(connection, increments, clear=clear)
            await queue_changes(connection, changed)
        if increments.rollups:
            encoded = (
                rollup_bytes(
                    key, increments.groups[key[3]].encode(), state.count, state.sum, state.minimum, state.maximum
                )
                for key, state in increments.rollups.items()
            )
            await copy_into(connection, "staged_rollup", ROLLUP_COLUMNS, encoded, clear=clear)
            await connection.execute(_UPSERT)
            await connection.execute(_QUEUE, uuid7())
        if increments.unmatched:
            await self._write_unmatched(connection, increments)
        return [
            DeadLetter.of_row(each.row, kind="invalid-value", reason=each.reason, meter=each.meter.meter.id)
            for each in increments.uncounted
        ]

    async def cancel(self, connection: asyncpg.Connection, events: Sequence[StoredEvent], versions: Versions) -> None:
        """Takes out what events have added that corrections cancel, in the caller's transaction."""
        changed = await cancel_events(connection, events, versions)
        if changed:
            await queue_changes(connection, changed)

    async def _hold_bound(self, connection: asyncpg.Connection, increments: Increments) -> None:
        if len(self._windows) > _REMEMBERED_WINDOWS or self._groups > _REMEMBERED_GROUPS:
            self.forget()
        keys = [key for key in (*increments.rollups, *increments.gathered) if key[1] in increments.dimensional]
        windows = {key[:3] for key in keys}
        asked = windows - self._windows.keys()
        self._groups -= sum(len(self._windows[window]) for window in windows - asked)
        if self._spreads.tenants:
            # Other workers give the windows of these tenants groups too: one batch at a time decides which get one.
            undecided = {key[:3] for key in keys if key[0] in self._spreads.tenants and not self._decided(key)}
            await lock_tenants(connection, {tenant for tenant, _, _ in undecided})
            asked |= undecided
        for window, hashes in (await groups_of(connection, sorted(asked))).items():
            self._windows[window] = hashes - {increments.dimensional[window[1]].overflow.hash}
        OVERFLOWED.inc(overflow(increments, self._windows, self._max_groups))
        self._groups += sum(len(self._windows[window]) for window in windows)

    def _decided(self, key: RollupKey) -> bool:
        """Whether it is known, and stays so, which rollup the group has: a full window gets no more of its own."""
        window = self._windows.get(key[:3])
        return window is not None and (key[3] in window or len(window) >= self._max_groups)

    async def _write_unmatched(self, connection: asyncpg.Connection, increments: Increments) -> None:
        seen = increments.unmatched
        await connection.execute(
            _UNMATCHED,
            [UUID(bytes=tenant) for tenant, _ in seen],
            [kind for _, kind in seen],
            [each.count for each in seen.values()],
            [instant(each.first) for each in seen.values()],
            [instant(each.last) for each in seen.values()],
        )
