"""Which stored events corrections have cancelled; the rows of events themselves never change."""

from __future__ import annotations

from datetime import date
from typing import Final
from uuid import UUID

import asyncpg

NOT_CANCELLED: Final = """
NOT EXISTS (SELECT FROM pool.correction AS cancelled
             WHERE cancelled.tenant_id = event.tenant_id AND cancelled.identity = event.identity
               AND cancelled.day = event.day)
"""
"""To be in every statement that counts rows of `pool.usage_event AS event`."""

_ON_DAY: Final = "SELECT identity FROM pool.correction WHERE tenant_id = $1 AND day = $2"


async def cancelled_on(connection: asyncpg.Connection, tenant: UUID, day: date) -> set[UUID]:
    """Identities of a tenant's cancelled events of a day, for events that are read from elsewhere."""
    return {row["identity"] for row in await connection.fetch(_ON_DAY, tenant, day)}
