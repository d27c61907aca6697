"""4xx: keys whose checks look at the rows of all tenants."""

from collections.abc import Iterator
from typing import Final

from tenantry.database._names import quote
from tenantry.doctor._classify import Classification
from tenantry.doctor._evidence import constraint, index, qualified
from tenantry.doctor._finding import Finding
from tenantry.doctor._inventory import Index
from tenantry.doctor._subject import USING, Subject

# What nobody guesses tells nothing by being taken.
_UNGUESSABLE: Final = frozenset({"uuid"})


def check_keys(subject: Subject) -> Iterator[Finding]:
    for item in subject.pooled:
        if item.column is not None and (item.table.secured or not subject.out_of_reach(item.table, USING)):
            yield from _foreign_keys(subject, item, item.column)
            yield from _unique_keys(item, item.column)


def _foreign_keys(subject: Subject, item: Classification, column: str) -> Iterator[Finding]:
    for key in item.table.foreign_keys:
        parent = subject.classes.tenant(key.target)
        if parent is None or parent.column is None:
            continue
        if (column, parent.column) in zip(key.columns, key.target_columns, strict=True):
            continue
        columns = ", ".join(map(quote, (column, *key.columns)))
        there = ", ".join(map(quote, (parent.column, *key.target_columns)))
        yield Finding(
            "TD401",
            f"{item.table.label} foreign key {key.name}",
            f"({', '.join(key.columns)}) points at {parent.table.label} of any tenant",
            constraint(item.table, key.name),
            f"-- ALTER TABLE {qualified(item.table)} ADD FOREIGN KEY ({columns}) "
            f"REFERENCES {qualified(parent.table)} ({there}), then drop {quote(key.name)}",
        )


def _unique_keys(item: Classification, column: str) -> Iterator[Finding]:
    for key in unique_without(item, column):
        if not key.primary and not _unguessable(item, key):
            what = "excludes" if key.exclusion else "is unique"
            names = ", ".join(name or "an expression" for name in key.columns)
            yield Finding(
                "TD402",
                f"{item.table.label} key {key.name}",
                f"({names}) {what} over all tenants",
                index(item.table, key.name),
                f"-- the same key with {quote(column)} first, then drop {quote(key.name)}",
            )


def unique_without(item: Classification, column: str) -> Iterator[Index]:
    """The keys of a table that leave out its tenant column."""
    for key in item.table.indexes:
        if (key.unique or key.exclusion) and column not in key.columns:
            yield key


def _unguessable(item: Classification, key: Index) -> bool:
    types = [found.type for name in key.columns if name and (found := item.table.column(name))]
    return not key.exclusion and len(types) == len(key.columns) and bool(_UNGUESSABLE & set(types))
