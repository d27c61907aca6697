"""Which objects there are, and what is in them: rows that are written only when their object is durable and verified.

`system.usage_day` has a row for each day of events. Whoever writes or deletes objects of a day holds that row's lock,
so that there is one such process; what lies in the day's folder without a row in the manifest was left by a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_service.archive.files import Part
from usage_service.archive.layout import TenantSpan, Totals, object_path

_NIL: Final = UUID(int=0)

_COLUMNS: Final = """
    object.id, object.day, object.received_from, object.received_until, object.rows, object.digest, object.offsets,
    object.data_bytes, object.sha256
"""
_STORED = text(
    f"SELECT {_COLUMNS} FROM system.archive_object AS object "  # noqa: S608 - names of our own
    "WHERE day = :day AND released_at IS NULL ORDER BY received_until, id"
)
_ADD = text(
    """
    INSERT INTO system.archive_object
        (id, day, received_from, received_until, last_received_at, first_time, last_time, rows, bytes, sha256, digest,
         offsets, data_bytes, created_at, released_at)
    VALUES (:id, :day, :received_from, :received_until, :last_received_at, :first_time, :last_time, :rows, :bytes,
            :sha256, :digest, :offsets, :data_bytes, clock_timestamp(), :released_at)
    """
)
_ADD_TENANTS = text(
    """
    INSERT INTO system.archived_tenant (object_id, tenant_id, rows, first_time, last_time)
    SELECT :id, * FROM unnest(CAST(:tenants AS uuid[]), CAST(:rows AS bigint[]), CAST(:firsts AS timestamptz[]),
                              CAST(:lasts AS timestamptz[]))
    """
)
_REMOVE_TENANTS = text("DELETE FROM system.archived_tenant WHERE object_id = ANY(CAST(:ids AS uuid[]))")
_REMOVE = text("DELETE FROM system.archive_object WHERE id = ANY(CAST(:ids AS uuid[]))")
_KNOWN = text("SELECT id FROM system.archive_object WHERE day = :day")
_OBJECT = text(
    f"""
    SELECT {_COLUMNS}, object.released_at FROM system.archive_object AS object WHERE id = :id
    """  # noqa: S608 - names of our own
)
_ALL_OF_TENANT = text(
    """
    SELECT object_id FROM system.archived_tenant
     WHERE tenant_id = :tenant AND object_id > :after ORDER BY object_id LIMIT :limit
    """
)
_ROWS_OF_TENANT = text("SELECT COALESCE(sum(rows), 0) FROM system.archived_tenant WHERE tenant_id = :tenant")
_LOCK = text("SELECT FROM system.usage_day WHERE day = :day FOR UPDATE NOWAIT")
_NONE_WORKS = text("SELECT FROM system.usage_day WHERE look_at IS NOT NULL FOR SHARE NOWAIT")
_EXPIRED = text(
    f"""
    WITH expired AS (
        SELECT day FROM system.archive_object GROUP BY day
        HAVING bool_and(released_at IS NOT NULL) AND max(last_received_at) <= :received_until
         ORDER BY max(last_received_at) LIMIT :limit)
    SELECT {_COLUMNS} FROM system.archive_object AS object JOIN expired ON expired.day = object.day
     ORDER BY object.day, object.received_until, object.id
    """  # noqa: S608 - names of our own
)
_OF_TENANT = text(
    f"""
    SELECT {_COLUMNS}
      FROM system.archived_tenant AS part JOIN system.archive_object AS object ON object.id = part.object_id
     WHERE part.tenant_id = :tenant AND object.released_at IS NOT NULL
       AND part.first_time < :last AND part.last_time >= :first
     ORDER BY object.day, object.id
    """  # noqa: S608 - names of our own
)

_LOST_DAY = text(
    """
    SELECT min(gone.day) FROM system.gone_day AS gone
     WHERE gone.day = ANY(CAST(:days AS date[]))
       AND NOT EXISTS (
           SELECT FROM system.archived_tenant AS part JOIN system.archive_object AS object ON object.id = part.object_id
            WHERE part.tenant_id = :tenant AND object.day = gone.day)
       AND EXISTS (
           SELECT FROM pool.usage_rollup AS rollup
            WHERE rollup.tenant_id = :tenant AND rollup.meter_id = ANY(CAST(:meters AS uuid[]))
              AND rollup.window_start >= gone.day::timestamp AT TIME ZONE 'UTC'
              AND rollup.window_start < (gone.day + 1)::timestamp AT TIME ZONE 'UTC')
    """
)


@dataclass(frozen=True, slots=True)
class ArchiveObject:
    """An object of the archive: events of one day that were received in [received_from, received_until).

    `received_from` is None for what was received at any time before.
    """

    id: UUID
    day: date
    received_from: datetime | None
    received_until: datetime
    totals: Totals
    sha256: bytes

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """From a row of the manifest."""
        totals = Totals(row.rows, row.digest, int(row.offsets), row.data_bytes)
        return cls(row.id, row.day, row.received_from, row.received_until, totals, bytes(row.sha256))

    @property
    def path(self) -> str:
        """Where it is in the store."""
        return object_path(self.day, self.id)


async def stored_objects(connection: AsyncConnection, day: date) -> list[ArchiveObject]:
    """The objects whose events are still in PostgreSQL too, in the order of receipt."""
    return [ArchiveObject.of(row) for row in await connection.execute(_STORED, {"day": day})]


async def known_ids(connection: AsyncConnection, day: date) -> set[UUID]:
    """The ids of all objects of a day."""
    return set((await connection.scalars(_KNOWN, {"day": day})).all())


async def try_lock_day(connection: AsyncConnection, day: date) -> None:
    """The right to write and delete a day's objects until the transaction ends; fails at once where another has it."""
    await connection.execute(_LOCK, {"day": day})


async def check_that_none_archives(connection: AsyncConnection) -> None:
    """Fails at once while days are worked on. What begins later sees what was committed before."""
    await connection.execute(_NONE_WORKS)


async def find_object(connection: AsyncConnection, object_id: UUID) -> tuple[ArchiveObject, datetime | None] | None:
    """An object, and when PostgreSQL lost its events."""
    row = (await connection.execute(_OBJECT, {"id": object_id})).one_or_none()
    return None if row is None else (ArchiveObject.of(row), row.released_at)


async def ids_of_tenant(
    connection: AsyncConnection, tenant_id: UUID, *, limit: int, after: UUID = _NIL
) -> Sequence[UUID]:
    """Objects that have rows of a tenant, in the order in which they were made."""
    asked = {"tenant": tenant_id, "after": after, "limit": limit}
    return (await connection.scalars(_ALL_OF_TENANT, asked)).all()


async def rows_of_tenant(connection: AsyncConnection, tenant_id: UUID) -> int:
    """How many rows of a tenant all objects have."""
    return int(await connection.scalar(_ROWS_OF_TENANT, {"tenant": tenant_id}) or 0)


async def expired_objects(
    connection: AsyncConnection, received_until: datetime, *, limit: int = 100
) -> list[ArchiveObject]:
    """All objects of days of which nothing was received later and PostgreSQL has nothing any more; `limit` is of days.

    A day expires as a whole: a part of its events would be answered as if it were all of them.
    """
    found = await connection.execute(_EXPIRED, {"received_until": received_until, "limit": limit})
    return [ArchiveObject.of(row) for row in found]


async def objects_of_tenant(
    connection: AsyncConnection, tenant_id: UUID, first: datetime, last: datetime
) -> list[ArchiveObject]:
    """Objects that have events of a tenant in [first, last) that PostgreSQL has no longer, by day."""
    found = await connection.execute(_OF_TENANT, {"tenant": tenant_id, "first": first, "last": last})
    return [ArchiveObject.of(row) for row in found]


async def find_lost_day(
    connection: AsyncConnection, tenant_id: UUID, meters: Sequence[UUID], days: Sequence[date]
) -> date | None:
    """The first of these days that has rollups of these meters, and events neither in PostgreSQL nor in the archive."""
    asked = {"tenant": tenant_id, "meters": list(meters), "days": list(days)}
    lost: date | None = await connection.scalar(_LOST_DAY, asked)
    return lost


async def add_object(
    connection: AsyncConnection,
    written: ArchiveObject,
    part: Part,
    *,
    released_at: datetime | None = None,
) -> None:
    """An object that is durable and has been read back. The caller commits."""
    await connection.execute(
        _ADD,
        {
            "id": written.id,
            "day": written.day,
            "received_from": written.received_from,
            "received_until": written.received_until,
            "last_received_at": part.last_received_at,
            "first_time": part.first_time,
            "last_time": part.last_time,
            "rows": part.totals.rows,
            "bytes": part.bytes,
            "sha256": part.sha256,
            "digest": part.totals.digest,
            "offsets": part.totals.offsets,
            "data_bytes": part.totals.data_bytes,
            "released_at": released_at,
        },
    )
    await connection.execute(_ADD_TENANTS, {"id": written.id, **_spans(part.tenants)})


async def remove_objects(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """From the manifest; the caller commits, and deletes the objects themselves afterwards."""
    await connection.execute(_REMOVE_TENANTS, {"ids": list(ids)})
    await connection.execute(_REMOVE, {"ids": list(ids)})


def _spans(tenants: dict[str, TenantSpan]) -> dict[str, object]:
    return {
        "tenants": [UUID(tenant) for tenant in tenants],
        "rows": [span.rows for span in tenants.values()],
        "firsts": [span.first_time for span in tenants.values()],
        "lasts": [span.last_time for span in tenants.values()],
    }
