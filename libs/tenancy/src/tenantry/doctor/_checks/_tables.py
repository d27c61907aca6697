"""2xx: row level security of the tables themselves."""

from collections.abc import Iterator
from typing import Final

from tenantry.database._names import quote
from tenantry.doctor._checks._predicates import Predicates
from tenantry.doctor._classify import Classification
from tenantry.doctor._evidence import column_where, grants, qualified, relation_where
from tenantry.doctor._finding import Finding
from tenantry.doctor._inventory import PUBLIC, Relation
from tenantry.doctor._subject import Subject

_COMMANDS: Final = {"SELECT": "r", "INSERT": "a", "UPDATE": "w", "DELETE": "d"}


def check_tables(subject: Subject) -> Iterator[Finding]:
    predicates = Predicates(subject)
    for item in subject.pooled:
        table = item.table
        if not table.secured and subject.out_of_reach(table):
            yield Finding(
                "TD218",
                table.label,
                f"its rows belong to tenants ({item.proof}), and the application's role may not read them",
                relation_where(table, "c.relrowsecurity", "NOT c.relrowsecurity"),
                f"ALTER TABLE {qualified(table)} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            )
            continue
        if not table.secured:
            yield Finding(
                "TD201",
                table.label,
                f"its rows belong to tenants ({item.proof}) and row level security is off",
                relation_where(table, "c.relrowsecurity", "NOT c.relrowsecurity"),
                _secure(table, predicates.of(item)),
            )
        else:
            yield from _secured(subject, table)
        yield from _nullable(item)


def _secure(table: Relation, predicate: str | None) -> str:
    enable = f"ALTER TABLE {qualified(table)} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    if predicate is None:
        return f"{enable}\n-- and a policy that compares the tenant column, once the table has it"
    return (
        f"{enable};\nCREATE POLICY tenant_isolation ON {qualified(table)} USING ({predicate}) WITH CHECK ({predicate})"
    )


def _secured(subject: Subject, table: Relation) -> Iterator[Finding]:
    if not table.forced:
        owner = subject.inventory.role_name(table.owner)
        yield Finding(
            "TD202",
            table.label,
            f"its policies do not hold its owner, {owner}",
            relation_where(
                table, "c.relrowsecurity, c.relforcerowsecurity", "c.relrowsecurity AND NOT c.relforcerowsecurity"
            ),
            f"ALTER TABLE {qualified(table)} FORCE ROW LEVEL SECURITY",
        )
    if not any(policy.permissive for policy in table.policies):
        what = "only restrictive policies" if table.policies else "no policy"
        yield Finding(
            "TD203",
            table.label,
            f"it has {what}, so nobody whom policies hold sees a row",
            relation_where(
                table,
                "c.relrowsecurity",
                "c.relrowsecurity "
                "AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive)",
            ),
            f"-- CREATE POLICY tenant_isolation ON {qualified(table)} TO your_role USING (...) WITH CHECK (...)",
        )
        return
    for grantee, rights in sorted(table.grants_to_others().items()):
        idle = [
            command for command in sorted(rights & _COMMANDS.keys()) if not _allowed(subject, table, grantee, command)
        ]
        if idle:
            yield Finding(
                "TD215",
                f"{table.label} to {subject.inventory.role_name(grantee)}",
                f"{', '.join(idle)} is granted and no permissive policy allows it",
                grants(subject.inventory, table, grantee, idle),
                f"-- a policy FOR ALL, or REVOKE {', '.join(idle)} ON {qualified(table)}",
            )


def _allowed(subject: Subject, table: Relation, grantee: int, command: str) -> bool:
    role = subject.inventory.roles.get(grantee)
    held = role.memberships if role else frozenset({grantee})
    if subject.inventory.bypasses(grantee, table):
        return True
    return any(
        policy.permissive
        and policy.applies_to(_COMMANDS[command])
        and any(target == PUBLIC or target in held or _has(subject, target, grantee) for target in policy.roles)
        for policy in table.policies
    )


def _has(subject: Subject, member: int, group: int) -> bool:
    """A right of a group may be meant for members that have policies of their own."""
    role = subject.inventory.roles.get(member)
    return group == PUBLIC or (role is not None and group in role.memberships)


def _nullable(item: Classification) -> Iterator[Finding]:
    column = item.table.column(item.column) if item.column else None
    if column is not None and not column.not_null:
        yield Finding(
            "TD216",
            f"{item.table.label}.{column.name}",
            f"{column.name} has no NOT NULL",
            column_where(item.table, column.name, "a.attnotnull", "NOT a.attnotnull"),
            f"ALTER TABLE {qualified(item.table)} ALTER COLUMN {quote(column.name)} SET NOT NULL",
        )
