"""Refuses to serve with a role that could get around row level security."""

from sqlalchemy import Connection, text

from tenantry.database._errors import UnsafeRole
from tenantry.database._names import RoleNames

# Membership counts like the attribute itself: a member can SET ROLE, and policies of a role apply to its members.
_FINDINGS = text(
    """
    SELECT finding FROM (
        SELECT format('%I is a superuser', r.rolname), 1 FROM pg_roles r
         WHERE r.rolsuper AND pg_has_role(current_user, r.oid, 'MEMBER')
           AND (r.rolname = current_user OR NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))
        UNION ALL
        SELECT format('%I has BYPASSRLS', r.rolname), 2 FROM pg_roles r
         WHERE r.rolbypassrls AND pg_has_role(current_user, r.oid, 'MEMBER')
        UNION ALL
        SELECT format('%I may follow the changes of every table (REPLICATION)', r.rolname), 2 FROM pg_roles r
         WHERE r.rolreplication AND pg_has_role(current_user, r.oid, 'MEMBER')
        UNION ALL
        SELECT format('%I may create roles', r.rolname), 3 FROM pg_roles r
         WHERE r.rolcreaterole AND pg_has_role(current_user, r.oid, 'MEMBER')
        UNION ALL
        SELECT format('%I owns %I.%I', pg_get_userbyid(c.relowner), n.nspname, c.relname), 4
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           AND pg_has_role(current_user, c.relowner, 'MEMBER')
        UNION ALL
        SELECT format('%I is a member of %I', current_user, r.rolname), 5 FROM pg_roles r
         WHERE r.rolname = ANY (:forbidden) AND pg_has_role(current_user, r.oid, 'MEMBER')
        UNION ALL
        SELECT format('%I may %s %I.%I', current_user, p.privilege, n.nspname, c.relname), 6
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
               unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p (privilege)
         WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           AND has_table_privilege(c.oid, p.privilege)
    ) AS findings (finding, rank) ORDER BY rank, finding LIMIT 5
    """
)


# Whoever reads or writes the server's files, or runs programs there, asks no policy.
_SERVER_ACCESS = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program")


def verify_service_role(connection: Connection, roles: RoleNames) -> None:
    """Raises UnsafeRole if the role of ``connection`` could see rows of a tenant that it did not bind."""
    _verify(connection, [roles.owner, roles.migrator, roles.provisioner, roles.system, roles.backup])


def verify_system_role(connection: Connection, roles: RoleNames) -> None:
    """Raises UnsafeRole if the role of ``connection`` is more than its own policies make it."""
    _verify(connection, [roles.owner, roles.migrator, roles.provisioner])


def _verify(connection: Connection, forbidden: list[str]) -> None:
    findings = connection.scalars(_FINDINGS, {"forbidden": [*forbidden, *_SERVER_ACCESS]}).all()
    if findings:
        msg = f"this role could bypass the isolation of tenants: {'; '.join(findings)}"
        raise UnsafeRole(msg)
