"""Tenants in a company's own table, in PostgreSQL."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, cast

import asyncpg

from tenantry.database._url import dsn
from tenantry.directory._listing import Listing

_ROWS_AT_ONCE: Final = 1_000
_CONNECT_SECONDS: Final = 10.0
_OVERLAP: Final = timedelta(seconds=30)


class TenantQuery:
    """A query whose columns are a tenant's fields, asked on a connection of its own that can only read.

    With `updated_at` (the column's name in the query) only what has changed is asked for, and everything every
    `complete_seconds`: that is when a row that is gone is noticed, and a change whose transaction ended more than 30
    seconds after the time it wrote there. `channel` is one that the company notifies (`NOTIFY`) after a change, which
    makes it known at once; the payload does not matter.
    """

    name = "sql"

    def __init__(
        self,
        url: str,
        query: str,
        *,
        updated_at: str | None = None,
        channel: str | None = None,
        complete_seconds: float = 60.0,
    ) -> None:
        """`query` is one SELECT without a semicolon; its column `updated_at` is compared in the database."""
        self._dsn = dsn(url)
        self._query = query.strip().rstrip(";")
        self._updated_at = updated_at
        self._channel = channel
        self._complete_seconds = complete_seconds
        self._complete_at: float | None = None
        self._newest: Any = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._notified = asyncio.Event()

    async def read(self) -> Listing:
        """Raises asyncpg's errors, `OSError` and `TimeoutError`."""
        connection = await self._connect()
        # What is notified from here on may not be in the answer.
        self._notified.clear()
        if self._updated_at is None or self._is_due() or self._newest is None:
            began = time.monotonic()
            records = await self._ask(connection, self._query)
            self._complete_at = began
            self._note_newest(records)
            return Listing(records=records)
        column = f'listed."{self._updated_at.replace(chr(34), chr(34) * 2)}"'
        since = self._newest - _OVERLAP if isinstance(self._newest, datetime) else self._newest
        changes = f"SELECT * FROM ({self._query}) AS listed WHERE {column} >= $1"  # noqa: S608 - the company's own query
        records = await self._ask(connection, changes, since)
        self._note_newest(records)
        return Listing(records=records, complete=False)

    async def changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._notified.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        # After an interruption nothing is known of what was missed.
        self._complete_at = None
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=_CONNECT_SECONDS,
                statement_cache_size=0,  # behind a pooler of transactions there are no prepared statements
                server_settings={"application_name": "tenantry-directory", "default_transaction_read_only": "on"},
            )
            if self._channel is not None:
                await self._connection.add_listener(self._channel, self._on_notification)
        return self._connection

    async def _ask(
        self, connection: "asyncpg.Connection[asyncpg.Record]", query: str, *parameters: object
    ) -> list[Mapping[str, Any]]:
        # In portions, so that others get their turn; of one snapshot, because it is one statement.
        async with connection.transaction(readonly=True):
            rows = connection.cursor(query, *parameters, prefetch=_ROWS_AT_ONCE)
            return [cast("Mapping[str, Any]", row) async for row in rows]

    def _is_due(self) -> bool:
        return self._complete_at is None or time.monotonic() - self._complete_at >= self._complete_seconds

    def _note_newest(self, records: list[Mapping[str, Any]]) -> None:
        if self._updated_at is not None:
            seen = [record[self._updated_at] for record in records]
            newest = max((value for value in seen if value is not None), default=None)
            if newest is not None and (self._newest is None or newest > self._newest):
                self._newest = newest

    def _on_notification(self, *_: object) -> None:
        self._notified.set()
