"""1xx: roles that policies do not hold, and settings that make a tenant of everybody."""

# ruff: noqa: S608 - names are quoted as literals; the statements are for people, and for tests, to run

import re
from collections.abc import Iterator
from typing import Final

from tenantry.database._names import literal, quote
from tenantry.doctor._evidence import qualified, role_where
from tenantry.doctor._finding import Finding
from tenantry.doctor._inventory import PUBLIC, Relation, Role
from tenantry.doctor._policies import settings_of
from tenantry.doctor._subject import Subject

_TENANT_SETTING: Final = re.compile(
    r"[\w.]*\b(?:current_)?(?:tenant|org|organi[sz]ation|account|workspace|customer|company)(?:_?id)?$", re.IGNORECASE
)
_ANY_USE: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


def check_roles(subject: Subject) -> Iterator[Finding]:
    tables = [item.table for item in subject.tenant_tables]
    if tables:
        for role in subject.app_roles:
            yield from _app_role(subject, role, tables)
        yield from _others(subject, tables)
    yield from _default_tenants(subject)
    yield from _schemas(subject)


def _app_role(subject: Subject, role: Role, tables: list[Relation]) -> Iterator[Finding]:
    name = literal(role.name)
    use = _how_known(subject, role)
    for id_ in sorted(role.memberships, key=lambda id_: (id_ != role.id, id_)):
        other = subject.inventory.roles[id_]
        if other.superuser or other.bypass:
            what = "is a superuser" if other.superuser else "has BYPASSRLS"
            via = "" if other is role else f", and {role.name} is a member of it"
            attribute = "NOSUPERUSER" if other.superuser else "NOBYPASSRLS"
            yield Finding(
                "TD101",
                role.name,
                f"{other.name} {what}{via}; {use}",
                f"SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = {literal(other.name)} "
                f"AND (rolsuper OR rolbypassrls) AND pg_has_role({name}, oid, 'MEMBER')",
                f"ALTER ROLE {quote(role.name)} {attribute}"
                if other is role
                else f"REVOKE {quote(other.name)} FROM {quote(role.name)}",
            )
            break
    owned = [table for table in tables if table.owner == role.id]
    if owned:
        yield Finding(
            "TD102",
            role.name,
            f"it owns {_some(owned)}; {use}",
            f"SELECT schemaname, tablename FROM pg_tables WHERE tableowner = {name} "
            f"AND (schemaname, tablename) IN ({_pairs(owned)})",
            f"-- ALTER TABLE {qualified(owned[0])} OWNER TO a role that cannot log in",
        )
    for id_ in sorted(role.memberships - {role.id}):
        theirs = [table for table in tables if table.owner == id_]
        if theirs and not role.superuser:
            owner = subject.inventory.role_name(id_)
            yield Finding(
                "TD103",
                f"{role.name} in {owner}",
                f"{owner} owns {_some(theirs)}; {use}",
                f"SELECT rolname FROM pg_roles WHERE rolname = {literal(owner)} AND pg_has_role({name}, oid, 'MEMBER')",
                f"REVOKE {quote(owner)} FROM {quote(role.name)}",
            )
    if role.create_role and not role.superuser:
        yield Finding(
            "TD104",
            role.name,
            f"it has CREATEROLE; {use}",
            role_where(role.name, "rolcreaterole", "rolcreaterole"),
            f"ALTER ROLE {quote(role.name)} NOCREATEROLE",
        )


def _others(subject: Subject, tables: list[Relation]) -> Iterator[Finding]:
    for role in sorted(subject.inventory.roles.values(), key=lambda role: role.name):
        if not role.login or role.superuser or role in subject.app_roles:
            continue
        owned = [table for table in tables if table.owner == role.id]
        if owned:
            yield Finding(
                "TD105",
                role.name,
                f"it can log in and owns {_some(owned)}",
                "SELECT r.rolname, t.schemaname, t.tablename FROM pg_tables t "
                "JOIN pg_roles r ON r.rolname = t.tableowner AND r.rolcanlogin "
                f"WHERE t.tableowner = {literal(role.name)} "
                f"AND (t.schemaname, t.tablename) IN ({_pairs(owned)})",
                f"ALTER ROLE {quote(role.name)} NOLOGIN",
            )
        elif role.bypass and any(_may_use(role, table) for table in tables):
            yield Finding(
                "TD105",
                role.name,
                "it can log in, has BYPASSRLS and has rights on tenant tables",
                role_where(role.name, "rolcanlogin, rolbypassrls", "rolcanlogin AND rolbypassrls"),
                f"ALTER ROLE {quote(role.name)} NOBYPASSRLS",
            )


def _default_tenants(subject: Subject) -> Iterator[Finding]:
    expressions = {
        text
        for table in subject.inventory.tables
        for policy in table.policies
        for text in (policy.using, policy.check)
        if text
    }
    compared = settings_of(expressions)
    for setting in subject.inventory.settings:
        tenant_like = "." in setting.name and _TENANT_SETTING.match(setting.name)
        if not setting.value or not (setting.name in compared or tenant_like):
            continue
        whose = f"role {setting.role}" if setting.role else f"database {setting.database}"
        target = (
            f"ROLE {quote(setting.role)}" + (f" IN DATABASE {quote(setting.database)}" if setting.database else "")
            if setting.role
            else f"DATABASE {quote(setting.database or '')}"
        )
        yield Finding(
            "TD106",
            f"{whose}: {setting.name}",
            f"every session of {whose} begins with {setting.name} = {setting.value}",
            "SELECT r.rolname, d.datname, s.setconfig FROM pg_db_role_setting s "
            "LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase "
            f"WHERE r.rolname IS NOT DISTINCT FROM {_nullable(setting.role)} "
            f"AND d.datname IS NOT DISTINCT FROM {_nullable(setting.database)} "
            f"AND EXISTS (SELECT FROM pg_options_to_table(s.setconfig) WHERE option_name = {literal(setting.name)})",
            f"ALTER {target} RESET {setting.name}",
        )


def _schemas(subject: Subject) -> Iterator[Finding]:
    for shape in subject.inventory.shapes:
        first = shape.representatives[0]
        if not any(item.by_schema and item.table.schema == first for item in subject.tenant_tables):
            continue
        for id_ in shape.roles:
            role = subject.inventory.roles.get(id_)
            if id_ != PUBLIC and (role is None or role.superuser or not _logs_in(subject, id_)):
                continue
            name = subject.inventory.role_name(id_)
            grantee = "0" if id_ == PUBLIC else f"(SELECT oid FROM pg_roles WHERE rolname = {literal(name)})"
            yield Finding(
                "TD108",
                name,
                f"it may write in the schemas of {len(shape.schemas)} tenants ({shape.label})",
                "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                f"WHERE c.relkind IN ('r', 'p') AND n.nspname IN ({literal(shape.schemas[0])}, "
                f"{literal(shape.schemas[1])}) AND (c.relowner = {grantee} OR EXISTS (SELECT FROM "
                f"aclexplode(c.relacl) AS g WHERE g.grantee = {grantee} "
                "AND g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')))",
                "-- CREATE ROLE tenant_role NOLOGIN; GRANT its own schema to it; SET LOCAL ROLE in each transaction",
            )


def _logs_in(subject: Subject, role: int) -> bool:
    """Whether somebody who logs in has the rights of `role` without asking for them."""
    return any(
        other.login and not other.superuser and role in other.memberships for other in subject.inventory.roles.values()
    )


def _may_use(role: Role, table: Relation) -> bool:
    """By a grant of its own: what everybody may is another finding."""
    return any(grantee in role.memberships and rights & _ANY_USE for grantee, rights in table.grants.items())


def _how_known(subject: Subject, role: Role) -> str:
    if subject.named:
        return "the application uses it, as you said"
    if role.id == subject.inventory.role:
        return "this URL connects as it"
    return "it has sessions in this database now"


def _some(tables: list[Relation]) -> str:
    if len(tables) == 1:
        return tables[0].label
    return f"{len(tables)} tenant tables, {tables[0].label} among them"


def _pairs(tables: list[Relation]) -> str:
    return ", ".join(f"({literal(table.schema)}, {literal(table.name)})" for table in tables[:20])


def _nullable(text: str | None) -> str:
    return "NULL" if text is None else literal(text)
