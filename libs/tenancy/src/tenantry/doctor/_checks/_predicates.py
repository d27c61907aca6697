"""What a tenant policy of this database should compare, to put into fixes."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property

from tenantry.database._names import TENANT_SETTING, literal, quote
from tenantry.doctor._classify import Classification
from tenantry.doctor._policies import Target, read_expression, text_type
from tenantry.doctor._subject import Subject
from tenantry.doctor._syntax import Unreadable


@dataclass(frozen=True)
class Predicates:
    """The comparison that other tables' policies make, where one is without fault; else ours."""

    subject: Subject

    def of(self, item: Classification) -> str | None:
        """For a table with a tenant column."""
        column = item.table.column(item.column) if item.column else None
        if column is None:
            return None
        if models := self._models.get((column.name, column.type)):
            return models.most_common(1)[0][0]
        setting = f"NULLIF(current_setting({literal(TENANT_SETTING)}, true), '')"
        return f"{quote(column.name)} = (SELECT {setting}::{column.type})"

    @cached_property
    def _models(self) -> dict[tuple[str, str], Counter[str]]:
        found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for item in self.subject.pooled:
            column = item.table.column(item.column) if item.column else None
            for policy in item.table.policies:
                if column and policy.permissive and policy.using and _is_model(policy.using, target_of(item)):
                    found[column.name, column.type][policy.using] += 1
        return found


def target_of(item: Classification) -> Target:
    keys = {item.column} if item.column else {name for _, key in item.path[:1] for name in key.columns}
    columns = {column.name: column for column in item.table.columns}
    return Target(
        name=item.table.name,
        columns=frozenset(columns),
        keys=frozenset(keys),
        text_keys=frozenset(name for name in keys if name in columns and text_type(columns[name].type)),
    )


def _is_model(expression: str, target: Target) -> bool:
    try:
        reading = read_expression(expression, target)
    except Unreadable:
        return False
    faults = (reading.escapes, reading.defaults, reading.raising, reading.bare_casts, reading.tables, reading.wrapped)
    # Nothing of the one table's own may be in it.
    alone = reading.columns <= target.keys
    return reading.binds and alone and not any(faults) and not reading.row_functions
