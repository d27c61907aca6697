"""7xx: tables of which the doctor could not say whose rows they hold."""

from collections import Counter
from collections.abc import Iterator

from tenantry.database._names import quote
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
                f"-- tenantry doctor --shared {item.table.label}, or ALTER TABLE {qualified(item.table)} "
                f"ADD COLUMN {quote(column or 'tenant_id')} {_usual_type(subject, column)}",
            )


def _usual_type(subject: Subject, column: str | None) -> str:
    found = (item.table.column(column) for item in subject.tenant_tables if column is not None)
    types = Counter(each.type for each in found if each is not None)
    return types.most_common(1)[0][0] if types else "uuid"
