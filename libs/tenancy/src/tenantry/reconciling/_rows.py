"""Rows that a purge has left behind, or that came in after it."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import text

from tenantry.database import Databases, DataCatalogue, Retention
from tenantry.database._names import POOL_SCHEMA, quote, quote_qualified
from tenantry.database._tables import SystemTable
from tenantry.reconciling._report import RowsLeft


async def find_rows(databases: Databases, catalogue: DataCatalogue, gone: Sequence[UUID]) -> list[RowsLeft]:
    """The shared tables that have rows of these tenants although a purge erases them; in every store.

    Tables whose tenants are not named by their ids are left out: the key of a tenant that is purged is not known.
    """
    if not gone:
        return []
    found: list[RowsLeft] = []
    for store in databases.stores:
        async with databases.system_session(store) as session:
            for table, column in _erased(catalogue):
                # A probe of the index for each tenant, however many rows it has.
                statement = text(
                    f"SELECT gone FROM unnest(CAST(:gone AS uuid[])) AS gone "  # noqa: S608 - names of the catalogue
                    f"WHERE EXISTS (SELECT FROM {quote_qualified(table)} WHERE {quote(column)} = gone)"
                )
                label = table if store is None else f"{table} in {store}"
                left = await session.scalars(statement, {"gone": list(gone)})
                found += [RowsLeft(tenant_id=tenant_id, table=label) for tenant_id in left]
    return found


def _erased(catalogue: DataCatalogue) -> Iterator[tuple[str, str]]:
    """The tables, with schema, that a purge empties, and their columns with the tenant's id."""
    pooled = {f"{POOL_SCHEMA}.{name}": table for name, table in catalogue.tenant_tables.items()}
    for name, table in (pooled | catalogue.fixed_tables).items():
        if table.retention is Retention.ERASE and not table.column.has_own_setting:
            yield name, table.column.name
    for name, other in catalogue.other_tables.items():
        if isinstance(other, SystemTable) and other.tenant_column and other.retention is Retention.ERASE:
            yield name, other.tenant_column
