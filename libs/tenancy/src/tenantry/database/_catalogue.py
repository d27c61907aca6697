"""The data catalogue: every table of a service, whose data it is, and what a purge does with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tenantry.database._names import SYSTEM_SCHEMA


_T = TypeVar("_T")


class Retention(StrEnum):
    """What becomes of a tenant's rows when the tenant is purged."""

    ERASE = "erase"
    PSEUDONYMISE = "pseudonymise"
    STATUTE = "statute"  # kept as the law says: invoices, ledger, head of the audit chain


@dataclass(frozen=True, slots=True)
class TenantTable:
    """Rows of tenants. ``name`` has no schema: the table is in ``pool`` and in the schema of each tenant."""

    name: str
    retention: Retention = Retention.ERASE
    tenant_column: str = "tenant_id"
    tenant_type: str = "uuid"


@dataclass(frozen=True, slots=True)
class SystemTable:
    """Rows of the service itself, named ``schema.table``; a name without schema is in ``system``."""

    name: str


@dataclass(frozen=True, slots=True)
class SharedTable:
    """Reference data that every tenant may read, named ``schema.table``; a name without schema is in ``system``."""

    name: str


Table = TenantTable | SystemTable | SharedTable
_BACKBONE = ("outbox", "consumer_offset", "idempotency_key", "alembic_version")


class DataCatalogue:
    """All tables of ``service``; those of the backbone are in it already."""

    def __init__(self, service: str, tables: Iterable[Table]) -> None:
        self.service = service
        self.tenant_tables: dict[str, TenantTable] = {}
        self.other_tables: dict[str, SystemTable | SharedTable] = {}
        for table in (*(SystemTable(name) for name in _BACKBONE), *tables):
            if isinstance(table, TenantTable):
                self._add(self.tenant_tables, table.name, table)
            else:
                self._add(
                    self.other_tables, table.name if "." in table.name else f"{SYSTEM_SCHEMA}.{table.name}", table
                )

    @staticmethod
    def _add(tables: dict[str, _T], name: str, table: _T) -> None:
        if name in tables:
            msg = f"table {name} is in the catalogue twice"
            raise ValueError(msg)
        tables[name] = table
