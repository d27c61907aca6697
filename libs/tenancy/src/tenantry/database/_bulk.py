"""Many rows at once into a table under row level security."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry.database._names import quote, quote_qualified

# The staging table is named by the columns' names and types alone: after a migration, or in the schema of a tenant that
# is still behind, another one is made, and tables of the same shape share it.
_STAGING: Final = """
    SELECT name, definition, to_regclass('pg_temp.' || name) IS NOT NULL AS made
      FROM (SELECT definition, 'bulk_' || md5(definition) AS name
              FROM (SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
                      FROM pg_attribute
                     WHERE attrelid = $1::text::regclass AND attname = ANY ($2::text[]) AND NOT attisdropped)
                   AS columns (definition)) AS staging
"""


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
    Values are what asyncpg's COPY takes for the columns' types. ``on_conflict`` is SQL: ``ON CONFLICT DO NOTHING``.
    Nothing is committed; after an error the transaction is lost, and the call may be repeated in a new one.
    """
    if isinstance(connection, AsyncSession):
        connection = await connection.connection()
    target = quote_qualified(table)
    found = await connection.exec_driver_sql(_STAGING, (target, list(columns)))
    row = found.one()
    staging = f"pg_temp.{quote(row.name)}"
    if row.made:  # and perhaps filled by an earlier call in this transaction
        await connection.exec_driver_sql(f"TRUNCATE {staging}")
    else:
        await connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {quote(row.name)} ({row.definition}) ON COMMIT DELETE ROWS"
        )
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    if driver is None:
        msg = "the connection is closed"
        raise RuntimeError(msg)
    await driver.copy_records_to_table(row.name, columns=list(columns), records=records, schema_name="pg_temp")
    names = ", ".join(quote(column) for column in columns)
    inserted = await connection.exec_driver_sql(
        f"INSERT INTO {target} ({names}) SELECT {names} FROM {staging} {on_conflict}"  # noqa: S608 - quoted identifiers
    )
    return inserted.rowcount
