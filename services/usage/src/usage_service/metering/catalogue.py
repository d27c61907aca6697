"""The meters that count, as the batch's transaction sees them."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usage_service.domain.meters import Catalogue, CompiledMeter
from usage_service.meters.repository import METER_COLUMNS, meter_of

_VERSION = text("SELECT COALESCE((SELECT version FROM system.meter_catalogue), 0)")
_METERS = text(
    f"""
    SELECT {METER_COLUMNS} FROM system.meter WHERE until IS NULL OR until > :version ORDER BY slug, version
    """  # noqa: S608 (our own columns)
)
_ALL_VERSIONS = text(
    f"""
    SELECT {METER_COLUMNS} FROM system.meter WHERE event_type = ANY(:types) ORDER BY slug, version
    """  # noqa: S608 (our own columns)
)


async def load_catalogue(connection: AsyncConnection) -> Catalogue:
    """The current catalogue. Version first: meters newer than it are left out, and come with its next version."""
    version = await connection.scalar(_VERSION)
    rows = await connection.execute(_METERS, {"version": version})
    return Catalogue.of(version or 0, [meter_of(row) for row in rows])


async def load_versions(connection: AsyncConnection, types: Collection[str]) -> dict[str, list[CompiledMeter]]:
    """All versions of the meters of these types, those that have ended too."""
    versions: dict[str, list[CompiledMeter]] = {}
    for row in await connection.execute(_ALL_VERSIONS, {"types": list(types)}):
        versions.setdefault(row.event_type, []).append(CompiledMeter.of(meter_of(row)))
    return versions
