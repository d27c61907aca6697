"""6xx: what Citus refuses of a table that is distributed by tenant."""

# ruff: noqa: S608 - names are quoted as literals; the statements are for people, and for tests, to run

from collections import Counter
from collections.abc import Iterator

from tenantry.database._names import literal, quote
from tenantry.doctor._checks._keys import unique_without
from tenantry.doctor._classify import Classification
from tenantry.doctor._evidence import RELATION, column_where, constraint, index, is_relation, no_column, qualified
from tenantry.doctor._finding import Finding
from tenantry.doctor._subject import Subject


def check_citus(subject: Subject) -> Iterator[Finding]:
    items = [item for item in subject.tenant_tables if not item.by_schema]
    types = Counter(
        column.type for item in items if item.column and (column := item.table.column(item.column)) is not None
    )
    usual = types.most_common(1)[0][0] if types else "uuid"
    for item in items:
        if item.column is None:
            yield _no_column(subject, item, usual)
        else:
            yield from _column(item, item.column, usual)
            yield from _keys(item, item.column)
        yield from _table(item)


def _no_column(subject: Subject, item: Classification, usual: str) -> Finding:
    column = subject.classes.column or "tenant_id"
    return Finding(
        "TD606",
        item.table.label,
        f"its rows belong to tenants by {item.proof}",
        no_column(item.table, column),
        f"-- ALTER TABLE {qualified(item.table)} ADD COLUMN {quote(column)} {usual}, fill it, then SET NOT NULL",
    )


def _column(item: Classification, name: str, usual: str) -> Iterator[Finding]:
    column = item.table.column(name)
    if column is not None and column.type != usual:
        yield Finding(
            "TD607",
            f"{item.table.label}.{name}",
            f"{name} is {column.type} here and {usual} in most tables",
            column_where(
                item.table,
                name,
                "format_type(a.atttypid, a.atttypmod) AS type",
                f"format_type(a.atttypid, a.atttypmod) <> {literal(usual)}",
            ),
            f"-- ALTER TABLE {qualified(item.table)} ALTER COLUMN {quote(name)} TYPE {usual}",
        )


def _keys(item: Classification, column: str) -> Iterator[Finding]:
    for key in unique_without(item, column):
        names = ", ".join(name or "an expression" for name in key.columns)
        yield Finding(
            "TD601" if key.primary else "TD602",
            item.table.label if key.primary else f"{item.table.label} key {key.name}",
            f"the key ({names}) leaves out {column}",
            index(item.table, key.name),
            f"-- the same key with {quote(column)} first",
        )
    for foreign in item.table.foreign_keys:
        if column in foreign.columns and foreign.on_delete in {"n", "d"}:
            action = "SET NULL" if foreign.on_delete == "n" else "SET DEFAULT"
            yield Finding(
                "TD603",
                f"{item.table.label} foreign key {foreign.name}",
                f"it has {column} and ON DELETE {action}",
                constraint(item.table, foreign.name),
                "-- the same key with ON DELETE CASCADE, or with no action",
            )


def _table(item: Classification) -> Iterator[Finding]:
    table = item.table
    for trigger in table.triggers:
        yield Finding(
            "TD604",
            f"{table.label} trigger {trigger}",
            "triggers are refused",
            f"SELECT n.nspname, c.relname, t.tgname FROM {RELATION} JOIN pg_trigger t ON t.tgrelid = c.oid "
            f"WHERE {is_relation(table)} AND t.tgname = {literal(trigger)}",
            f"DROP TRIGGER {quote(trigger)} ON {qualified(table)}",
        )
    for column in table.columns:
        if column.identity:
            yield Finding(
                "TD605",
                f"{table.label}.{column.name}",
                f"{column.name} is GENERATED AS IDENTITY",
                column_where(table, column.name, "a.attidentity", "a.attidentity <> ''"),
                f"ALTER TABLE {qualified(table)} ALTER COLUMN {quote(column.name)} DROP IDENTITY",
            )
