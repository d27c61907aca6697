"""Which tables hold rows of a tenant, in the order in which they can be emptied."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry._errors import Conflict
from tenantry._tenant import Tenant
from tenantry.database import DataCatalogue, Retention, TenantTable
from tenantry.database._names import quote
from tenantry.database._tables import SystemTable
from tenantry.database._tenant_column import TenantKey
from tenantry.offboarding._places import Place


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
    exported: bool
    primary_key: tuple[str, ...]

    @property
    def qualified(self) -> str:
        """As SQL."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def label(self) -> str:
        """As people read it, and as progress remembers it."""
        return f"{self.schema}.{self.name}"


class _Selected(NamedTuple):
    """Which rows of a table are meant, and what becomes of them."""

    column: str
    key: TenantKey
    retention: Retention
    exported: bool


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
    connection: AsyncConnection, catalogue: DataCatalogue, tenant: Tenant, place: Place
) -> list[PlannedTable]:
    """The tables of one place that have rows of the tenant, children before parents. Raises `UnpurgeableTable`."""
    by_schema: dict[str, dict[str, _Selected]] = {}
    if place.kind == "fixed":
        _check(catalogue.fixed_tables.values())
        for label, table in catalogue.fixed_tables.items():
            schema, _, name = label.partition(".")
            by_schema.setdefault(schema, {})[name] = _selected(table, tenant)
        for label, other in catalogue.other_tables.items():
            # What leaves by itself holds the messages of the purge as well.
            if not isinstance(other, SystemTable) or other.retention is Retention.TRANSIENT:
                continue
            if other.tenant_column is not None:
                schema, _, name = label.partition(".")
                selected = _Selected(other.tenant_column, tenant.id, other.retention, other.exported)
                by_schema.setdefault(schema, {})[name] = selected
    else:
        _check(catalogue.tenant_tables.values())
        by_schema[place.schema] = {name: _selected(table, tenant) for name, table in catalogue.tenant_tables.items()}
    return [
        PlannedTable(schema, name, *tables[name], primary_key=key)
        for schema, tables in sorted(by_schema.items())
        for name, key in await _in_order(connection, schema, tables.keys())
    ]


def _selected(table: TenantTable, tenant: Tenant) -> "_Selected":
    return _Selected(table.column.name, table.column.key_of(tenant), table.retention, table.exported)


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
