"""Deleting a tenant's rows: a batch a transaction, so that a kill at any point costs one batch.

Counts are of what is there, never of what was deleted: repeating a batch that had been committed changes no figure. A
place that is the tenant's alone is dropped whole, unless the law keeps rows in it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry._errors import Conflict
from tenantry._tenant import Tenant
from tenantry.database import Databases, DatabaseSettings, DataCatalogue, Retention
from tenantry.database._names import quote
from tenantry.database._releasing import drop_database, drop_schema
from tenantry.database._url import dsn
from tenantry.offboarding import _tasks as tasks
from tenantry.offboarding._holdings import Holding
from tenantry.offboarding._places import Place, find_places, place_named, transaction
from tenantry.offboarding._plan import PlannedTable, plan_place
from tenantry.offboarding._tasks import TableProgress, Task

_ERASED = frozenset({Retention.ERASE.value})

Erased = Callable[[AsyncConnection, Sequence[Row[Any]]], Awaitable[None]]
"""What a service does about rows that are gone, in the transaction that deletes them, such as withdrawing what it has
published of them. It is given the rows, but for those of a schema or database that is dropped as a whole."""


class NoProvisioner(Conflict):
    """The service was not given the URL of the role that may drop schemas and databases."""

    type = "no-provisioner"
    title = "The service has no provisioner"


class Purge:
    """The purge of one service. `settings` have the provisioner's URLs, for tenants with places of their own."""

    def __init__(
        self,
        databases: Databases,
        catalogue: DataCatalogue,
        *,
        settings: DatabaseSettings | None,
        batch_rows: int,
        erased: Mapping[str, Erased],
        holdings: Sequence[Holding] = (),
    ) -> None:
        self._databases = databases
        self._catalogue = catalogue
        self._settings = settings
        self._batch_rows = batch_rows
        self._erased = erased
        self._holdings = {holding.label: holding for holding in holdings}

    async def advance(self, session: AsyncSession, task: Task, tenant: Tenant) -> Mapping[str, Any] | None:
        """Do a batch of the task, which `session` holds; the result once nothing is left, else None.

        What the batch deletes outside the session's own database is committed before the session is. Raises
        `UnpurgeableTable` before anything is deleted, and `NoProvisioner`.
        """
        known = await tasks.progress(session, task)
        if not known:
            await tasks.store_plan(session, task, await self._count_everything(tenant))
            return None
        for table in known:
            if table.rows_after is None:
                await self._advance_table(session, task, tenant, table)
                return None
        return await self._result(session, task, tenant, known)

    async def _count_everything(self, tenant: Tenant) -> list[TableProgress]:
        found: list[TableProgress] = []
        for place in await find_places(self._databases, self._catalogue, tenant.id):
            async with transaction(self._databases, place) as connection:
                planned = await plan_place(connection, self._catalogue, tenant, place)
                counted = [(table, await _count(connection, table)) for table in planned]
            dropped = place.own and all(table.retention is Retention.ERASE for table in planned)
            for table, rows in counted:
                detail = {"place": place.label, "table": table.label, "dropped": dropped}
                found.append(
                    TableProgress(len(found), place.label_of(table.label), table.retention, rows, None, detail)
                )
        for label, holding in self._holdings.items():
            rows = await holding.count(tenant.id)
            found.append(TableProgress(len(found), label, Retention.ERASE, rows, None, {"holding": label}))
        return found

    async def _advance_table(self, session: AsyncSession, task: Task, tenant: Tenant, table: TableProgress) -> None:
        if "holding" in table.detail:
            holding = self._holdings[table.detail["holding"]]
            if not await holding.erase(tenant.id):
                await tasks.set_rows_after(session, task, table, await holding.count(tenant.id))
            return
        places = await find_places(self._databases, self._catalogue, tenant.id)
        place = place_named(places, table.detail["place"])
        if place is None:  # dropped, by this task or by an attempt that was killed
            await tasks.set_rows_after(session, task, table, 0)
            return
        if table.detail["dropped"]:
            await self._drop(place)
            await tasks.set_rows_after(session, task, table, 0)
            return
        async with transaction(self._databases, place) as connection:
            planned = {
                place.label_of(each.label): each
                for each in await plan_place(connection, self._catalogue, tenant, place)
            }
            here = planned[table.label]
            if table.retention in _ERASED and await self._delete_batch(connection, here) == self._batch_rows:
                return  # there may be more
            rows = await _count(connection, here)
        await tasks.set_rows_after(session, task, table, rows)

    async def _delete_batch(self, connection: AsyncConnection, table: PlannedTable) -> int:
        key = ", ".join(quote(column) for column in table.primary_key)
        own = f"{quote(table.column)} = :key"
        erased = self._erased.get(table.name)
        returning = "" if erased is None else " RETURNING *"
        # By primary key, since ctid says nothing across partitions; the tenant's column twice, since it is what must
        # hold of every row that goes.
        statement = text(
            f"DELETE FROM {table.qualified} WHERE {own} AND ({key}) IN "  # noqa: S608 - quoted names of the catalogue
            f"(SELECT {key} FROM {table.qualified} WHERE {own} LIMIT :rows){returning}"
        )
        deleted = await connection.execute(statement, {"key": table.key, "rows": self._batch_rows})
        if erased is None:
            return deleted.rowcount
        rows = deleted.all()
        if rows:
            await erased(connection, rows)
        return len(rows)

    async def _drop(self, place: Place) -> None:
        urls = None if self._settings is None else self._settings.at(place.store)
        if urls is None or urls.provisioner_database_url is None:
            raise NoProvisioner(f"Nobody may drop the {place.label}")
        connection = await asyncpg.connect(dsn(urls.provisioner_database_url))
        try:
            if place.database is None:
                await drop_schema(connection, self._catalogue.service, place.schema)
                return
            # Nobody gets in any more, and a role may end its own sessions: those that pools of other processes keep.
            await connection.execute(f"ALTER DATABASE {quote(place.database)} CONNECTION LIMIT 0")
            for url in (urls.database_url, urls.system_database_url):
                if url is not None:
                    await _end_sessions(url, place.database)
            await drop_database(connection, place.database)
        finally:
            await connection.close()

    async def _result(
        self, session: AsyncSession, task: Task, tenant: Tenant, known: list[TableProgress]
    ) -> Mapping[str, Any] | None:
        """Count once more: a message that was on its way may have come in after its table was empty."""
        now_there = {table.label: table for table in await self._count_everything(tenant)}
        late = [
            table
            for table in known
            if table.retention in _ERASED and table.label in now_there and now_there[table.label].rows_before > 0
        ]
        for table in late:
            await tasks.set_rows_after(session, task, table, None)
        new = [table for label, table in now_there.items() if label not in {each.label for each in known}]
        if new:
            offset = len(known)
            await tasks.store_plan(
                session,
                task,
                [
                    TableProgress(offset + n, table.label, table.retention, table.rows_before, None, table.detail)
                    for n, table in enumerate(new)
                ],
            )
        if late or new:
            return None
        return {
            "catalogue_digest": task.catalogue_digest,
            "tables": [
                {
                    "table": table.label,
                    "retention": table.retention,
                    "rows_before": table.rows_before,
                    "rows_after": table.rows_after,
                }
                for table in known
            ],
            "exceptions": [
                {"table": table.label, "reason": table.retention, "rows": table.rows_after}
                for table in known
                if table.retention not in _ERASED and table.rows_after
            ],
        }


async def _end_sessions(url: str, database: str) -> None:
    connection = await asyncpg.connect(dsn(url))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND usename = user",
            database,
        )
    finally:
        await connection.close()


async def _count(connection: AsyncConnection, table: PlannedTable) -> int:
    statement = text(
        f"SELECT count(*) FROM {table.qualified} WHERE {quote(table.column)} = :key"  # noqa: S608 - quoted names
    )
    return int(await connection.scalar(statement, {"key": table.key}) or 0)
