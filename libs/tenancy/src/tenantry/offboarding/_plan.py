"""Which tables hold rows of a tenant, in the order in which they can be emptied."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry._errors import Conflict
from tenantry._tenant import Tenant
from tenantry.database import DataCatalogue, Retention, TenantTable
from tenantry.database._names import POOL_SCHEMA, quote
from tenantry.database._tables import SystemTable
from tenantry.database._tenant_column import TenantKey


class UnpurgeableTable(Conflict):
    """The catalogue promises what cannot be done. A defect of the service, found before any row is gone."""

    type = "unpurgeable-table"
    title = "A table of the data catalogue cannot be purged"


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table with rows of one tenant: quoted names, the value that selects the tenant's rows, and the primary key."""

    schema: str
    name: str
    column: str
    key: TenantKey
    retention: Retention
    primary_key: tuple[str, ...]

    @property
    def qualified(self) -> str:
        """As SQL."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def label(self) -> str:
        """As people read it, and as progress remembers it."""
        return f"{self.schema}.{self.name}"


_PRIMARY_KEYS = text(
    """
    SELECT class.relname, array_agg(attribute.attname ORDER BY key.position) AS columns
    FROM pg_index AS index
    JOIN pg_class AS class ON class.oid = index.indrelid
    CROSS JOIN LATERAL unnest(index.indkey) WITH ORDINALITY AS key (attnum, position)
    JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum = key.attnum
    WHERE index.indisprimary AND class.relnamespace = to_regnamespace(quote_ident(:schema))
    GROUP BY class.relname
    """
)

_REFERENCES = text(
    """
    SELECT DISTINCT child.relname AS child, parent.relname AS parent
    FROM pg_constraint AS reference
    JOIN pg_class AS child ON child.oid = reference.conrelid
    JOIN pg_class AS parent ON parent.oid = reference.confrelid
    WHERE reference.contype = 'f' AND child.oid <> parent.oid
      AND child.relnamespace = to_regnamespace(quote_ident(:schema))
      AND parent.relnamespace = child.relnamespace
    """
)


def catalogue_digest(catalogue: DataCatalogue) -> str:
    """SHA-256 over every table of the catalogue: a certificate says with it which tables were known at its time."""
    lines = sorted(_lines(catalogue))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _lines(catalogue: DataCatalogue) -> Iterator[str]:
    for table in catalogue.tenant_tables.values():
        yield f"tenant {table.name} {table.column.name} {table.retention}"
    for label, table in catalogue.fixed_tables.items():
        yield f"tenant {label} {table.column.name} {table.retention}"
    for label, other in catalogue.other_tables.items():
        about = f" {other.tenant_column} {other.retention}" if isinstance(other, SystemTable) else ""
        yield f"{type(other).__name__} {label}{about}"


async def plan_place(
    connection: AsyncConnection, catalogue: DataCatalogue, tenant: Tenant, schema: str = POOL_SCHEMA
) -> list[PlannedTable]:
    """The tables of one place of a tenant's rows (the pool, its own schema), children before parents.

    Raises `UnpurgeableTable`.
    """
    wanted = {
        name: (table.column.name, table.column.key_of(tenant), table.retention, table)
        for name, table in catalogue.tenant_tables.items()
    }
    _check(catalogue.tenant_tables.values())
    return [
        PlannedTable(schema, name, *wanted[name][:3], primary_key=key)
        for name, key in await _in_order(connection, schema, wanted.keys())
    ]


async def plan_fixed(connection: AsyncConnection, catalogue: DataCatalogue, tenant: Tenant) -> list[PlannedTable]:
    """The tables of the service's own database that hold rows about tenants outside their places."""
    _check(catalogue.fixed_tables.values())
    by_schema: dict[str, dict[str, tuple[str, TenantKey, Retention]]] = {}
    for label, table in catalogue.fixed_tables.items():
        schema, _, name = label.partition(".")
        by_schema.setdefault(schema, {})[name] = (table.column.name, table.column.key_of(tenant), table.retention)
    for label, other in catalogue.other_tables.items():
        if isinstance(other, SystemTable) and other.tenant_column is not None:
            schema, _, name = label.partition(".")
            by_schema.setdefault(schema, {})[name] = (other.tenant_column, tenant.id, other.retention)
    return [
        PlannedTable(schema, name, *tables[name], primary_key=key)
        for schema, tables in sorted(by_schema.items())
        for name, key in await _in_order(connection, schema, tables.keys())
    ]


async def _in_order(
    connection: AsyncConnection, schema: str, names: Collection[str]
) -> Sequence[tuple[str, tuple[str, ...]]]:
    """Names with their primary keys; whoever references comes before whom it references."""
    rows = await connection.execute(_PRIMARY_KEYS, {"schema": schema})
    keys: Mapping[str, tuple[str, ...]] = {row.relname: tuple(row.columns) for row in rows}
    if missing := sorted(set(names) - keys.keys()):
        raise UnpurgeableTable(f"no such table with a primary key in {schema}: {', '.join(missing)}")
    sorter: TopologicalSorter[str] = TopologicalSorter({name: set() for name in sorted(names)})
    for child, parent in await connection.execute(_REFERENCES, {"schema": schema}):
        if child in names and parent in names:
            sorter.add(parent, child)
    try:
        return [(name, keys[name]) for name in sorter.static_order()]
    except CycleError as error:
        raise UnpurgeableTable(f"tables of {schema} reference each other in a circle: {error.args[1]}") from error


def _check(tables: Iterable[TenantTable]) -> None:
    for table in tables:
        if table.retention is Retention.PSEUDONYMISE:
            raise UnpurgeableTable(f"{table.name} is to be pseudonymised, and nothing says how")
        if table.immutable and table.retention is not Retention.STATUTE:
            raise UnpurgeableTable(f"{table.name} is immutable and to be erased")
