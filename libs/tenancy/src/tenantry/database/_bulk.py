"""Many rows at once into a table under row level security."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry.database._names import quote, quote_qualified


async def copy_rows(
    connection: AsyncConnection | AsyncSession,
    table: str,
    columns: Sequence[str],
    records: Iterable[Sequence[Any]],
    *,
    on_conflict: str = "",
) -> int:
    """Inserts ``records`` into ``table`` within the running transaction and returns how many rows were inserted.

    COPY into a table with FORCE ROW LEVEL SECURITY is refused for every role, so it goes to a temporary table, made
    once a connection and emptied by every commit, and from there by INSERT ... SELECT, which the policies check.
    ``on_conflict`` is SQL, such as ``ON CONFLICT DO NOTHING``. Nothing is committed.
    """
    if isinstance(connection, AsyncSession):
        connection = await connection.connection()
    driver = (await connection.get_raw_connection()).driver_connection
    target = quote_qualified(table)
    names = ", ".join(quote(column) for column in columns)
    staging = await _staging_table(connection, target, columns, names)
    await driver.copy_records_to_table(staging, columns=list(columns), records=records)
    result = await connection.exec_driver_sql(
        f"INSERT INTO {target} ({names}) SELECT {names} FROM pg_temp.{quote(staging)} {on_conflict}"
    )
    await connection.exec_driver_sql(f"DELETE FROM pg_temp.{quote(staging)}")
    return result.rowcount
