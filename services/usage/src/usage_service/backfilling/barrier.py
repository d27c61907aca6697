"""Which batches may be of an older catalogue than is committed.

A batch reads the catalogue's version in its first statement, and whoever has read a table holds a lock on it until its
transaction ends, which no reader and no writer waits for. PostgreSQL takes that lock before it takes the statement's
snapshot. So once a change of the catalogue is committed, the transactions that hold the lock are all that may count by
the catalogue before it; any other reads the new one. Waiting for those to end holds up nobody, and a worker that hangs
holds up the backfill alone.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Workers share the role of whoever asks; a backup reads every table for hours and counts nothing.
_OPEN: Final = text(
    """
    SELECT DISTINCT held.virtualtransaction
      FROM pg_locks AS held JOIN pg_stat_activity AS process USING (pid)
     WHERE held.locktype = 'relation' AND held.relation = 'system.meter_catalogue'::regclass
       AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND process.usename = session_user AND held.pid <> pg_backend_pid()
    """
)


async def open_batches(connection: AsyncConnection) -> set[str]:
    """The transactions that have read the catalogue and have not ended; no transaction ever has the name of another."""
    return set((await connection.scalars(_OPEN)).all())
