"""Rows of meters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry import uuid7
from usage_service.domain.instants import microseconds
from usage_service.domain.meters import Aggregation, Meter, MeterDefinition

METER_COLUMNS: Final = """
id, slug, version, event_type, aggregation, value, group_by, filter, unit, since, until, backfill_from,
incomplete_until, created_at
"""

_NEXT_VERSION = text(
    """
    INSERT INTO system.meter_catalogue AS catalogue (version) VALUES (1)
    ON CONFLICT (single) DO UPDATE SET version = catalogue.version + 1 RETURNING version
    """
)
_VERSIONS = text(f"SELECT {METER_COLUMNS} FROM system.meter WHERE slug = :slug ORDER BY version")  # noqa: S608 (our own)
_PAGE = text(
    f"""
    SELECT {METER_COLUMNS} FROM system.meter WHERE until IS NULL AND slug > :after ORDER BY slug LIMIT :limit
    """  # noqa: S608 (our own columns)
)
_END = text("UPDATE system.meter SET until = :until WHERE slug = :slug AND until IS NULL")
_INSERT = text(
    """
    INSERT INTO system.meter
           (id, slug, version, event_type, aggregation, value, group_by, filter, unit, since, created_at)
    VALUES (:id, :slug, :version, :event_type, :aggregation, :value, :group_by, :filter, :unit, :since,
            clock_timestamp())
    RETURNING created_at
    """
).bindparams(bindparam("group_by", type_=JSONB), bindparam("filter", type_=JSONB))


def meter_of(row: Row[Any]) -> Meter:
    return Meter(
        id=row.id,
        slug=row.slug,
        version=row.version,
        definition=MeterDefinition(
            event_type=row.event_type,
            aggregation=Aggregation(row.aggregation),
            value=row.value,
            group_by=row.group_by,
            filter=row.filter,
            unit=row.unit,
        ),
        since=row.since,
        until=row.until,
        backfill_from=_optional(row.backfill_from),
        incomplete_until=_optional(row.incomplete_until),
        created_at=microseconds(row.created_at),
    )


async def next_catalogue_version(session: AsyncSession | AsyncConnection) -> int:
    """Locks the catalogue until the caller's transaction ends, so that changes of meters come one after the other."""
    version: int = (await session.execute(_NEXT_VERSION)).scalar_one()
    return version


async def versions_of(session: AsyncSession | AsyncConnection, slug: str) -> list[Meter]:
    """All versions of a meter, oldest first; none where there is no such meter."""
    return [meter_of(row) for row in await session.execute(_VERSIONS, {"slug": slug})]


async def current_meters(session: AsyncSession, *, after: str, limit: int) -> list[Meter]:
    """A page of current versions by slug."""
    return [meter_of(row) for row in await session.execute(_PAGE, {"after": after, "limit": limit})]


async def add_version(
    session: AsyncSession, slug: str, definition: MeterDefinition, *, previous: Sequence[Meter], since: int
) -> Meter:
    """Ends the current version, if there is one, and adds the next."""
    if previous:
        await session.execute(_END, {"slug": slug, "until": since})
    meter_id, version = uuid7(), len(previous) + 1
    created_at: datetime | None = await session.scalar(
        _INSERT,
        {
            "id": meter_id,
            "slug": slug,
            "version": version,
            "event_type": definition.event_type,
            "aggregation": definition.aggregation.value,
            "value": definition.value,
            "group_by": definition.group_by,
            "filter": definition.filter,
            "unit": definition.unit,
            "since": since,
        },
    )
    assert created_at is not None
    return Meter(
        id=meter_id,
        slug=slug,
        version=version,
        definition=definition,
        since=since,
        created_at=microseconds(created_at),
    )


def _optional(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)
