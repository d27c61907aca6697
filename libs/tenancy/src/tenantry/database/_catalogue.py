"""The data catalogue: every table of a service, whose data it is, and what a purge does with it."""

from collections.abc import Iterable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.database._audit import find_faults, find_unclassified
from tenantry.database._names import SYSTEM_SCHEMA, RoleNames
from tenantry.database._tables import Retention, SharedTable, SystemTable, TenantTable

_T = TypeVar("_T")
_BACKBONE = (
    SystemTable("outbox", tenant_column="tenant_id", retention=Retention.TRANSIENT, exported=False),
    SystemTable("consumer_offset"),
    TenantTable("idempotency_key", schema=SYSTEM_SCHEMA, exported=False),
)


class DataCatalogue:
    """All tables of ``service``; those of the backbone are in it already.

    ``tenant_tables`` has those of each tenant's schema by name; by ``schema.name`` are ``fixed_tables``, with rows of
    tenants in one schema, and ``other_tables``, without rows of tenants.
    """

    def __init__(self, service: str, tables: Iterable[TenantTable | SystemTable | SharedTable]) -> None:
        self.service = service
        self.tenant_tables: dict[str, TenantTable] = {}
        self.fixed_tables: dict[str, TenantTable] = {}
        self.other_tables: dict[str, SystemTable | SharedTable] = {}
        for table in (*_BACKBONE, *tables):
            if isinstance(table, TenantTable) and table.schema is not None:
                _add(self.fixed_tables, f"{table.schema}.{table.name}", table)
            elif isinstance(table, TenantTable):
                _add(self.tenant_tables, table.name, table)
            else:
                _add(self.other_tables, table.name if "." in table.name else f"{SYSTEM_SCHEMA}.{table.name}", table)

    async def audit(self, connection: AsyncConnection) -> list[str]:
        """What in the database of ``connection`` contradicts the catalogue or the rules of isolation, sorted.

        Needs the right to make temporary tables. Nothing is changed and the running transaction goes on.
        """
        return await find_faults(connection, RoleNames(self.service), self._with_tenants(), self.other_tables)

    async def unclassified(self, connection: AsyncConnection) -> list[str]:
        """What of :meth:`audit` a purge would miss: tables, and columns that name tenants, that were not declared.

        Only reads, with the rights that every role has.
        """
        return await find_unclassified(connection, RoleNames(self.service), self._with_tenants(), self.other_tables)

    def _with_tenants(self) -> list[TenantTable]:
        return [*self.tenant_tables.values(), *self.fixed_tables.values()]


def _add(tables: dict[str, _T], name: str, table: _T) -> None:
    if name in tables:
        msg = f"table {name} is in the catalogue twice"
        raise ValueError(msg)
    tables[name] = table
