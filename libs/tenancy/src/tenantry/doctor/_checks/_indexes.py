"""5xx: indexes that do not serve a tenant's queries. Small tables do not need them."""

# ruff: noqa: S608 - names are quoted as literals; the statements are for people, and for tests, to run

import re
from collections.abc import Iterator
from typing import Final

from tenantry.database._names import literal, quote
from tenantry.doctor._classify import Classification
from tenantry.doctor._evidence import RELATION, index, is_relation, qualified
from tenantry.doctor._finding import Finding
from tenantry.doctor._inventory import Index
from tenantry.doctor._subject import Subject

_FUNCTION: Final = re.compile(r"([\w.]+)\s*\(")
_NOT_FUNCTIONS: Final = frozenset({"where", "include", "using", "and", "or", "in", "coalesce", "nullif", "case"})


def check_indexes(subject: Subject) -> Iterator[Finding]:
    for item in subject.pooled:
        if item.column is not None and subject.rows(item.table) >= subject.large_rows:
            yield from _large(subject, item, item.column)
        if item.table.secured:
            yield from _useless(subject, item)


def _large(subject: Subject, item: Classification, column: str) -> Iterator[Finding]:
    table = item.table
    rows = f"about {_round(subject.rows(table))} rows"
    if not any(key.columns[:1] == (column,) for key in table.indexes):
        yield Finding(
            "TD501",
            table.label,
            f"it has {rows} and no index begins with {column}",
            f"SELECT n.nspname, c.relname, c.reltuples FROM {RELATION} WHERE {is_relation(table)} AND NOT EXISTS ("
            "SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
            f"WHERE i.indrelid = c.oid AND a.attname = {literal(column)})",
            f"CREATE INDEX ON {qualified(table)} ({quote(column)})",
        )
        return
    for key in table.indexes:
        if not key.unique and not key.exclusion and key.method == "btree" and key.columns[0] != column:
            yield Finding(
                "TD502",
                f"{table.label} index {key.name}",
                f"it begins with {key.columns[0] or 'an expression'} in a table of {rows}",
                index(table, key.name),
                f"-- CREATE INDEX CONCURRENTLY ... ON {qualified(table)} ({quote(column)}, ...), then drop it",
            )


def _useless(subject: Subject, item: Classification) -> Iterator[Finding]:
    for key in item.table.indexes:
        if key.unique or key.exclusion:
            continue
        function = _leaking_function(subject, key)
        if key.leakproof and function is None:
            continue
        why = f"{function}() is not leakproof" if function else f"no operator of its {key.method} class is leakproof"
        yield Finding(
            "TD503",
            f"{item.table.label} index {key.name}",
            f"{why}, so a query under a policy does not use it",
            index(item.table, key.name),
            f"-- DROP INDEX {quote(item.table.schema)}.{quote(key.name)}, if only roles under policies search by it",
        )


def _leaking_function(subject: Subject, key: Index) -> str | None:
    if None not in key.columns or not subject.inventory.leakproof_functions:
        return None
    columns = key.definition.partition(" USING ")[2].partition("(")[2].partition(" WHERE ")[0]
    for name in _FUNCTION.findall(columns):
        plain = name.rpartition(".")[2].lower()
        if plain not in _NOT_FUNCTIONS and plain not in subject.inventory.leakproof_functions:
            return str(name)
    return None


def _round(rows: int) -> str:
    for unit, size in (("million", 10**6), ("thousand", 10**3)):
        if rows >= size:
            return f"{rows // size} {unit}"
    return str(rows)
