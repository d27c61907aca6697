"""Tenants whose events lie under several keys, or did: what a batch must know so that no copy counts twice.

Copies of an event have one key, hence one partition and one owner, as long as their tenant's number of buckets stays
what it is. When it changes they may lie under two. What workers know of that is a row of `system.spread_tenant`, and
never their directories, which lag as they like. A tenant without a row has always had the plain key. A row is either

- *mixed*: records of any key may come. Every batch takes the tenant's lock before it looks for copies, and looks in the
  table for all of them: no filter knows what another partition has stored;
- *settled*: every record since has had the key of `buckets`, so copies meet again. What was stored before may lie
  under another key: no later than `mixed_until`. Events that can be copies of it are looked up in the table, all others
  are as those of any tenant.

A record whose key is not the one that the row says makes its tenant mixed before anything of its batch is done. Rows
change under a lock of the table that waits for the end of every batch, and every batch holds its share of it before it
reads them: so what a batch has read of them is true until it has committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.events import RepeatBatch, partition_key
from usage_service.domain.instants import day_number
from usage_service.metering.rows import TENANT_LENGTH

NEVER: Final = -(1 << 31)
"""Before any day."""
_ALWAYS: Final = 1 << 31

# The share of the lock that those who change rows take whole: it reads nothing, and is held until the batch ends. Not
# the lock of plain reading, which a backup holds for hours.
SHARED: Final = "EXISTS (SELECT FROM system.spread_tenant WHERE false FOR KEY SHARE)"
DIGEST: Final = (
    "(SELECT md5(string_agg(CAST(spread AS text), ';' ORDER BY tenant_id)) FROM system.spread_tenant AS spread)"
)
# A worker that is stopped inside a batch holds its share: others go on between two attempts.
WHOLE: Final = (
    "SET LOCAL lock_timeout = '4s'",
    "LOCK TABLE system.spread_tenant IN EXCLUSIVE MODE",
    "SET LOCAL lock_timeout TO DEFAULT",
)

_LOAD: Final = "SELECT tenant_id, buckets, mixed_since, mixed_until FROM system.spread_tenant"
_MIX: Final = text(
    """
    INSERT INTO system.spread_tenant AS spread (tenant_id, buckets, mixed_since)
    SELECT tenant_id, 1, clock_timestamp() FROM unnest(CAST(:tenants AS uuid[])) AS tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET mixed_since = excluded.mixed_since
    """
)
_LOCK_CLASS: Final = 0x75737370  # "ussp": first half of the advisory lock's key
_LOCK: Final = "SELECT pg_advisory_xact_lock($1, tenant) FROM unnest($2::int[]) AS tenant"


class Spread(msgspec.Struct, frozen=True):
    """A row. `mixed_until` is the last day of events that may lie under another key."""

    tenant: bytes
    buckets: int
    mixed: bool
    mixed_until: int

    def has_key(self, key: bytes, subject: str, source: str, event_id: str) -> bool:
        """Whether an event may have this key."""
        if self.mixed:
            return key[:TENANT_LENGTH] == subject.encode()
        return key == partition_key(subject, self.buckets, source, event_id)


class SpreadTenants:
    """The rows as one consumer member has read them."""

    def __init__(self, *, window_days: int) -> None:
        self._window = window_days
        self._digest: str | None = None
        self._strays: set[UUID] = set()
        self.by_subject: Mapping[str, Spread] = {}
        self.tenants: frozenset[bytes] = frozenset()
        self.looked_up: Mapping[bytes, int] = {}
        """By tenant the last day of events whose copies only the table knows."""
        self._mixed: frozenset[bytes] = frozenset()

    async def load(self, connection: asyncpg.Connection, digest: str | None) -> bool:
        """Takes in the rows unless their digest is known; the batch has its share of the lock. Whether they are new."""
        if digest == self._digest:
            return False
        rows = await connection.fetch(_LOAD)
        self.by_subject = {str(row["tenant_id"]): _spread(row) for row in rows}
        spreads = self.by_subject.values()
        self.tenants = frozenset(each.tenant for each in spreads)
        self.looked_up = {each.tenant: _ALWAYS if each.mixed else each.mixed_until + self._window for each in spreads}
        self._mixed = frozenset(each.tenant for each in spreads if each.mixed)
        self._digest = digest
        return True

    def check(self, key: bytes, tenant_id: UUID, *identities: tuple[str, str]) -> None:
        """Notes a tenant of which a record has a key that one of its events, by (source, id), should not have."""
        subject = str(tenant_id)
        spread = self.by_subject.get(subject)
        if spread is None:
            regular = key == subject.encode()
        else:
            regular = all(spread.has_key(key, subject, source, event_id) for source, event_id in identities)
        if not regular:
            self._strays.add(tenant_id)

    def begin_anew_for_strays(self) -> None:
        """Raises RepeatBatch where `check` has noted a tenant: `mix` comes before anything else then."""
        if self._strays:
            raise RepeatBatch(f"{len(self._strays)} tenants have records of another key")

    async def mix(self, connection: AsyncConnection) -> None:
        """Makes the noted tenants mixed, in the caller's transaction, which has not yet taken its share of the lock.

        Fails, for the batch to be repeated, where a batch of another worker takes long.
        """
        if not self._strays:
            return
        for statement in WHOLE:
            await connection.exec_driver_sql(statement)
        await connection.execute(_MIX, {"tenants": sorted(self._strays)})
        self._strays.clear()

    async def lock(self, connection: asyncpg.Connection, tenants: Iterable[bytes]) -> None:
        """Waits until no other batch works for the mixed among these tenants, and keeps others waiting."""
        if self._mixed:
            await lock_tenants(connection, self._mixed.intersection(tenants))


async def lock_tenants(connection: asyncpg.Connection, tenants: AbstractSet[bytes]) -> None:
    """One batch at a time goes on with these tenants, until the caller's transaction ends."""
    if not tenants:
        return
    # In one order, whoever asks. Tenants that share a number wait for one another once in a while.
    numbers = sorted({int.from_bytes(tenant[-4:], signed=True) for tenant in tenants})
    await connection.execute(_LOCK, _LOCK_CLASS, numbers)


def _spread(row: asyncpg.Record) -> Spread:
    until = row["mixed_until"]
    return Spread(
        tenant=row["tenant_id"].bytes,
        buckets=row["buckets"],
        mixed=row["mixed_since"] is not None,
        mixed_until=NEVER if until is None else day_number(until),
    )
