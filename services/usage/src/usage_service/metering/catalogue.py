"""The meters that count, as the batch's transaction sees them."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_service.domain.meters import Catalogue
from usage_service.meters.repository import meter_of

_VERSION = text("SELECT COALESCE((SELECT version FROM system.meter_catalogue), 0)")
_METERS = text(
    """
    SELECT id, slug, version, event_type, aggregation, value, group_by, filter, unit, since, until
      FROM system.meter WHERE until IS NULL OR until > :version ORDER BY slug, version
    """
)


async def load_catalogue(connection: AsyncConnection) -> Catalogue:
    """The current catalogue. Version first: meters newer than it are left out, and come with its next version."""
    version = await connection.scalar(_VERSION)
    rows = await connection.execute(_METERS, {"version": version})
    return Catalogue.of(version or 0, [meter_of(row) for row in rows])
