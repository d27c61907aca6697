"""What the archive has of a tenant, for exports and purges."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import pyarrow.compute as pc
from sqlalchemy.ext.asyncio import AsyncEngine

from usage_service.archive.archivist import Archivist
from usage_service.archive.files import groups_of
from usage_service.archive.manifest import (
    ArchiveObject,
    check_that_none_archives,
    ids_of_tenant,
    objects_of_tenant,
    rows_of_tenant,
)
from usage_service.archive.store import ArchiveStore

LABEL: Final = "archive.usage_event"

_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)

_encode = msgspec.json.Encoder().encode


class ArchivedEvents:
    """The holding `archive.usage_event`.

    A purge rewrites object after object without the tenant's rows; each is one transaction, and what a kill leaves of
    an old one is swept before the purge is told that nothing is left.
    """

    label = LABEL

    def __init__(self, engine: AsyncEngine, store: ArchiveStore, archivist: Archivist) -> None:
        """`engine` is the system role's."""
        self._engine = engine
        self._store = store
        self._archivist = archivist

    async def count(self, tenant_id: UUID) -> int:
        """Events of the tenant in all objects. Fails, and is tried again, while a day is being archived.

        An archivist that began before the tenant's rows were deleted may still write them.
        """
        async with self._engine.begin() as connection:
            await check_that_none_archives(connection)
            return await rows_of_tenant(connection, tenant_id)

    async def erase(self, tenant_id: UUID) -> bool:
        """Rewrites an object that has events of the tenant; False once there is none, nor a remnant of one."""
        async with self._engine.connect() as connection:
            found = await ids_of_tenant(connection, tenant_id, limit=1)
        if not found:
            await self._archivist.sweep_all()
            return False
        key = str(tenant_id)
        await self._archivist.rewrite(found[0], lambda rows: rows.filter(pc.not_equal(rows.column("tenant_id"), key)))
        return True

    async def lines(self, tenant_id: UUID) -> AsyncIterator[bytes]:
        """The events that PostgreSQL has no longer, by day, as `to_jsonb` would write their rows."""
        async with self._engine.connect() as connection:
            objects = await objects_of_tenant(connection, tenant_id, _EARLIEST, _LATEST)
        for each in objects:
            async for row in self._rows(each, str(tenant_id)):
                yield _encode(row) + b"\n"

    async def _rows(self, stored: ArchiveObject, tenant_id: str) -> AsyncIterator[dict[str, Any]]:
        with tempfile.TemporaryFile() as copy:
            await self._store.fetch(stored.path, copy)
            groups = groups_of(copy)
            while (group := await asyncio.to_thread(next, groups, None)) is not None:
                for row in group.filter(pc.equal(group.column("tenant_id"), tenant_id)).to_pylist():
                    yield {**row, "identity": str(UUID(bytes=row["identity"]))}
