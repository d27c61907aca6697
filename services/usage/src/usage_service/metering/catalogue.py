"""The meters that count, as the batch's transaction sees them."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_service.domain.meters import Aggregation, Catalogue, Meter, MeterDefinition

_VERSION = text("SELECT version FROM system.meter_catalogue")
_METERS = text(
    """
    SELECT id, slug, version, event_type, aggregation, value, group_by, filter, unit, since, until
      FROM system.meter WHERE until IS NULL OR until > :version ORDER BY slug, version
    """
)


async def load_catalogue(connection: AsyncConnection) -> Catalogue:
    """The current catalogue. Version first: meters that are newer than it are left out, and come with its next version."""
    version = await connection.scalar(_VERSION)
    assert version is not None
    rows = await connection.execute(_METERS, {"version": version})
    meters = [
        Meter(
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
        )
        for row in rows
    ]
    return Catalogue.of(version, meters)
