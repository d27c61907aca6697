"""Many rows at once into a table under row level security."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from tenantry.database._names import quote, quote_qualified

# The staging table is named by the columns' names and types alone: after a migration, or in the schema of a tenant that
# is still behind, another one is made, and tables of the same shape share it.
_STAGING: Final = text("""
    SELECT name, definition, to_regclass('pg_temp.' || name) IS NOT NULL AS made
      FROM (SELECT definition, 'bulk_' || md5(definition) AS name
              FROM (SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
                      FROM pg_attribute
                     WHERE attrelid = CAST(CAST(:table AS text) AS regclass)
                       AND attname = ANY (CAST(:columns AS text[])) AND NOT attisdropped)
                   AS columns (definition)) AS staging
""")


_ROWS_BETWEEN_REPORTS: Final = 10_000


async def copy_rows(
    connection: AsyncConnection | AsyncSession,
    table: str,
    columns: Sequence[str],
    records: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
    *,
    on_conflict: str = "",
    progress: Callable[[int], None] | None = None,
) -> int:
    """Inserts ``records`` into ``table`` within the running transaction and returns how many rows were inserted.

    COPY into a table with FORCE ROW LEVEL SECURITY is refused for every role, so it goes to a temporary table, made
    once a connection and emptied by every commit, and from there by INSERT ... SELECT, which the policies check.
    Values are what asyncpg's COPY takes for the columns' types. ``on_conflict`` is SQL: ``ON CONFLICT DO NOTHING``.
    ``progress`` is told now and then how many rows have been sent. Nothing is committed; after an error the transaction
    is lost, and the call may be repeated in a new one.
    """
    if isinstance(connection, AsyncSession):
        connection = await connection.connection()
    staging = await connection.run_sync(_stage, table, columns)
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    if driver is None:
        msg = "the connection is closed"
        raise RuntimeError(msg)
    if progress is not None:
        records = _reported(records, progress)
    await driver.copy_records_to_table(staging, columns=list(columns), records=records, schema_name="pg_temp")
    inserted = await connection.exec_driver_sql(_insert(table, columns, staging, on_conflict))
    return inserted.rowcount


def copy_rows_sync(
    connection: Connection | Session,
    table: str,
    columns: Sequence[str],
    records: Iterable[Sequence[Any]],
    *,
    on_conflict: str = "",
    progress: Callable[[int], None] | None = None,
) -> int:
    """As :func:`copy_rows`, on psycopg; values are what psycopg adapts."""
    if isinstance(connection, Session):
        connection = connection.connection()
    staging = _stage(connection, table, columns)
    driver: Any = connection.connection.driver_connection
    names = ", ".join(quote(column) for column in columns)
    with driver.cursor() as cursor, cursor.copy(f"COPY pg_temp.{quote(staging)} ({names}) FROM STDIN") as copy:
        for number, record in enumerate(records, start=1):
            copy.write_row(record)
            if progress is not None and number % _ROWS_BETWEEN_REPORTS == 0:
                progress(number)
    return connection.exec_driver_sql(_insert(table, columns, staging, on_conflict)).rowcount


def _stage(connection: Connection, table: str, columns: Sequence[str]) -> str:
    """Makes or empties the staging table of ``columns`` and returns its name."""
    row = connection.execute(_STAGING, {"table": quote_qualified(table), "columns": list(columns)}).one()
    if row.made:  # and perhaps filled by an earlier call in this transaction
        connection.exec_driver_sql(f"TRUNCATE pg_temp.{quote(row.name)}")
    else:
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {quote(row.name)} ({row.definition}) ON COMMIT DELETE ROWS")
    name: str = row.name
    return name


def _insert(table: str, columns: Sequence[str], staging: str, on_conflict: str) -> str:
    names = ", ".join(quote(column) for column in columns)
    target, source = quote_qualified(table), f"pg_temp.{quote(staging)}"
    return f"INSERT INTO {target} ({names}) SELECT {names} FROM {source} {on_conflict}"  # noqa: S608 - quoted


async def _reported(
    records: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]], progress: Callable[[int], None]
) -> AsyncIterator[Sequence[Any]]:
    number = 0
    async for record in _each(records):
        yield record
        number += 1
        if number % _ROWS_BETWEEN_REPORTS == 0:
            progress(number)
            await asyncio.sleep(0)  # others want to do something meanwhile


async def _each(records: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    if isinstance(records, AsyncIterable):
        async for record in records:
            yield record
    else:
        for record in records:
            yield record
