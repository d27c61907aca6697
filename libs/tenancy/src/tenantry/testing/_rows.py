"""Rows of tenants as the database has them, table by table."""

from collections.abc import Awaitable, Callable, Iterator

from sqlalchemy import text

from tenantry import Tenant
from tenantry.database import Databases, DataCatalogue, ReadSession, TenantTable
from tenantry.database._names import quote, quote_qualified
from tenantry.testing._side import RowHashes

_MAY_READ = text("SELECT to_regclass(:table) IS NOT NULL AND has_table_privilege(to_regclass(:table), 'SELECT')")


def rows_of(databases: Databases, catalogue: DataCatalogue, tenant: Tenant) -> Callable[[], Awaitable[RowHashes]]:
    """What hashes the tenant's rows in every table that the service role may read: `Side.rows`, and the like.

    A table without a row of the tenant has the hash ''.
    """

    async def hash_rows() -> RowHashes:
        async with databases.tenant_session(tenant, read_only=True) as session:
            return {name: await _hash(session, name, table, tenant) for name, table in tables_of(catalogue)}

    return hash_rows


def tables_of(catalogue: DataCatalogue) -> Iterator[tuple[str, TenantTable]]:
    """Every table with rows of tenants: those in the tenant's own schema without one, the others with it."""
    yield from catalogue.tenant_tables.items()
    yield from catalogue.fixed_tables.items()


async def _hash(session: ReadSession, name: str, table: TenantTable, tenant: Tenant) -> str:
    relation = quote_qualified(name)
    if not await session.scalar(_MAY_READ, {"table": relation}):
        return ""
    found = await session.scalar(
        text(
            f"SELECT coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '') FROM {relation} AS t"  # noqa: S608
            f" WHERE {quote(table.column.name)} = CAST(CAST(:key AS text) AS {table.column.type})"
        ),
        {"key": str(table.column.key_of(tenant))},
    )
    return str(found)
