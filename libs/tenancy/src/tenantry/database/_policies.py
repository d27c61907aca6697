"""Row level security and grants: the one place that writes a policy, and so the one text the audit compares with.

Every generator returns statements to be executed one a call, in order, by the owner of the table.
"""

from collections.abc import Sequence

from tenantry.database._names import RoleNames, literal, quote, quote_qualified
from tenantry.database._tenant_column import TENANT_ID, TenantColumn

TENANT_POLICY = "tenant_isolation"
SYSTEM_POLICY = "system_access"
BACKUP_POLICY = "backup_read"

READ = ("SELECT",)
APPEND = ("SELECT", "INSERT")
READ_WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")
_GRANTABLE = frozenset(READ_WRITE)


def tenant_predicate(column: TenantColumn = TENANT_ID) -> str:
    """The condition of the tenant policy.

    After a transaction that bound a tenant the setting reads ``''`` and not NULL: without NULLIF the next unbound
    statement on that connection would raise on the cast instead of seeing nothing. The sub-select makes it an
    initplan, evaluated once a statement.
    """
    setting = f"NULLIF(current_setting({literal(column.setting)}, true), '')"
    return f"{quote(column.name)} = (SELECT {setting}::{column.type})"


def tenant_table(
    table: str,
    roles: RoleNames,
    *,
    column: TenantColumn = TENANT_ID,
    service: Sequence[str] = READ_WRITE,
    system: Sequence[str] = READ_WRITE,
) -> list[str]:
    """Row level security, policies and grants of a table that holds rows of tenants.

    ``table`` may be unqualified: it is then looked up in the schema that the migration runs in. ``service`` and
    ``system`` are the privileges of those roles. On a partitioned table call it for the parent only: a partition that
    is granted directly would bypass the policies of the parent.
    """
    name = quote_qualified(table)
    predicate = tenant_predicate(column)
    isolation = f"CREATE POLICY {TENANT_POLICY} ON {name} AS PERMISSIVE FOR ALL TO {quote(roles.service)}"
    access = f"CREATE POLICY {SYSTEM_POLICY} ON {name} AS PERMISSIVE FOR ALL TO {quote(roles.system)}"
    reading = f"CREATE POLICY {BACKUP_POLICY} ON {name} AS PERMISSIVE FOR SELECT TO {quote(roles.backup)}"
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"{isolation} USING ({predicate}) WITH CHECK ({predicate})",
        f"{access} USING (true) WITH CHECK (true)",
        f"{reading} USING (true)",
        *_grants(name, roles, service=service, system=system),
    ]


def immutable_table(table: str, roles: RoleNames, *, column: TenantColumn = TENANT_ID) -> list[str]:
    """A tenant table whose rows are written once: no role but the owner may change or delete them."""
    return tenant_table(table, roles, column=column, service=APPEND, system=APPEND)


def system_table(
    table: str, roles: RoleNames, *, service: Sequence[str] = (), system: Sequence[str] = READ_WRITE
) -> list[str]:
    """Grants of a table that belongs to the service itself. The service role gets only what is said."""
    return _grants(quote_qualified(table), roles, service=service, system=system)


def shared_table(table: str, roles: RoleNames) -> list[str]:
    """Grants of reference data: every tenant reads it, only the system role writes it."""
    return system_table(table, roles, service=READ)


def _grants(name: str, roles: RoleNames, *, service: Sequence[str], system: Sequence[str]) -> list[str]:
    statements = []
    for role, privileges in ((roles.service, service), (roles.system, system), (roles.backup, READ)):
        if forbidden := set(privileges) - _GRANTABLE:
            msg = f"{', '.join(sorted(forbidden))} on {name} cannot be granted: it would get around row level security"
            raise ValueError(msg)
        if privileges:
            statements.append(f"GRANT {', '.join(privileges)} ON {name} TO {quote(role)}")
    return statements
