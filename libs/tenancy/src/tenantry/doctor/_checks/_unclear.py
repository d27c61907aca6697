"""7xx: tables of which the doctor could not say whose rows they hold."""

from collections.abc import Iterator

from tenantry.doctor._classify import TableClass
from tenantry.doctor._evidence import no_column, qualified, relation_where
from tenantry.doctor._finding import Finding
from tenantry.doctor._subject import Subject


def check_unclear(subject: Subject) -> Iterator[Finding]:
    column = subject.classes.column
    for item in sorted(subject.classes.tables.values(), key=lambda item: item.table.label):
        if item.kind is TableClass.UNCLEAR and subject.inventory.lineage(item.table) is item.table:
            yield Finding(
                "TD701",
                item.table.label,
                item.proof,
                no_column(item.table, column) if column else relation_where(item.table, "c.relkind", "true"),
                f"-- tenantry doctor --shared {item.table.label}, or ALTER TABLE {qualified(item.table)} ADD COLUMN",
            )
