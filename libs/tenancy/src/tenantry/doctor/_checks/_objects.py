"""3xx: what reaches the rows of a tenant table without asking its policies."""

# ruff: noqa: S608 - names are quoted as literals; the statements are for people, and for tests, to run

import re
from collections.abc import Iterator
from typing import Final

from tenantry.database._names import literal, quote
from tenantry.doctor._classify import Classification
from tenantry.doctor._evidence import RELATION, grantee_name, grants, is_grantee, is_relation, qualified, relation_where
from tenantry.doctor._finding import Finding
from tenantry.doctor._inventory import PUBLIC, Function, Relation
from tenantry.doctor._subject import Subject

_UNASKED: Final = frozenset({"TRUNCATE", "REFERENCES", "TRIGGER"})
_PATH_ITEM: Final = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')


def check_objects(subject: Subject) -> Iterator[Finding]:
    for relation in subject.inventory.relations.values():
        match relation.kind:
            case "v" | "m":
                yield from _view(subject, relation)
            case "f":
                yield from _foreign_table(subject, relation)
            case _ if relation.parent is not None:
                yield from _part(subject, relation)
    for item in subject.tenant_tables:
        yield from _grants(subject, item)
    for function in subject.inventory.functions:
        yield from _function(subject, function)
    yield from _default_privileges(subject)
    yield from _publications(subject)


def _view(subject: Subject, view: Relation) -> Iterator[Finding]:
    tables = sorted(_secured_tables(subject, view, frozenset()), key=lambda table: table.label)
    readers = subject.reachable(view)
    if not tables or not readers:
        return
    names = f"{tables[0].label} and {len(tables) - 1} more" if len(tables) > 1 else tables[0].label
    if view.kind == "m":
        yield Finding(
            "TD302",
            view.label,
            f"it copies rows of {names}; {subject.names(readers)} may read it",
            relation_where(view, "c.relacl", "c.relkind = 'm'"),
            f"REVOKE ALL ON {qualified(view)} FROM {', '.join(grantee_name(subject.inventory, r) for r in readers)}",
        )
    elif not view.invoker:
        owner = subject.inventory.role_name(view.owner)
        open_now = any(subject.inventory.bypasses(view.owner, table) for table in tables)
        held = "whom no policy holds" if open_now else "whom the policies hold only as long as they are forced"
        yield Finding(
            "TD301",
            view.label,
            f"it reads {names} as {owner}, {held}; {subject.names(readers)} may read it",
            relation_where(
                view,
                "c.reloptions",
                "NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o "
                "WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)",
            ),
            f"ALTER VIEW {qualified(view)} SET (security_invoker = true)",
        )


def _secured_tables(subject: Subject, view: Relation, seen: frozenset[int]) -> set[Relation]:
    """The tenant tables with row level security that a view reads as its owner or through other views."""
    found: set[Relation] = set()
    for id_ in view.reads:
        relation = subject.inventory.relations.get(id_)
        if relation is None or id_ in seen:
            continue
        if relation.kind == "v":
            found |= _secured_tables(subject, relation, seen | {id_})
        elif subject.classes.tenant(id_) and subject.inventory.lineage(relation).secured:
            found.add(relation)
    return found


def _foreign_table(subject: Subject, table: Relation) -> Iterator[Finding]:
    column = subject.classes.column
    readers = subject.reachable(table)
    if column and table.column(column) and readers:
        yield Finding(
            "TD304",
            table.label,
            f"it has {column}, and {subject.names(readers)} may read it",
            relation_where(table, "c.relacl", "c.relkind = 'f'"),
            f"REVOKE ALL ON {qualified(table)} FROM {', '.join(grantee_name(subject.inventory, r) for r in readers)}",
        )


def _part(subject: Subject, part: Relation) -> Iterator[Finding]:
    top = subject.inventory.lineage(part)
    if top is part or not subject.classes.tenant(top.id) or not top.secured:
        return
    if part.secured and part.policies:
        return
    if grantees := sorted(part.grants_to_others(), key=subject.inventory.role_name):
        yield Finding(
            "TD303",
            part.label,
            f"it is part of {top.label}, has no policies of its own, and is granted to {subject.names(grantees)}",
            f"SELECT n.nspname, c.relname, g.grantee, g.privilege_type FROM {RELATION}, aclexplode(c.relacl) AS g "
            f"WHERE {is_relation(part)} AND g.grantee <> c.relowner",
            f"REVOKE ALL ON {qualified(part)} FROM {', '.join(grantee_name(subject.inventory, g) for g in grantees)}",
        )


def _grants(subject: Subject, item: Classification) -> Iterator[Finding]:
    table = item.table
    for grantee, rights in sorted(table.grants_to_others().items()):
        name = grantee_name(subject.inventory, grantee)
        if grantee == PUBLIC:
            listed = sorted(rights)
            yield Finding(
                "TD308",
                table.label,
                f"{', '.join(listed)} is granted to PUBLIC",
                grants(subject.inventory, table, grantee, listed),
                f"REVOKE ALL ON {qualified(table)} FROM PUBLIC",
            )
        elif unasked := sorted(rights & _UNASKED):
            yield Finding(
                "TD307",
                f"{table.label} to {subject.inventory.role_name(grantee)}",
                f"{', '.join(unasked)} is granted to {name}",
                grants(subject.inventory, table, grantee, unasked),
                f"REVOKE {', '.join(unasked)} ON {qualified(table)} FROM {name}",
            )


def _function(subject: Subject, function: Function) -> Iterator[Finding]:
    callers = sorted(function.grantees - {function.owner}, key=subject.inventory.role_name)
    if not callers:
        return
    owner = subject.inventory.role_name(function.owner)
    where = (
        "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        f"WHERE n.nspname = {literal(function.schema)} AND p.proname = {literal(function.name)} "
        f"AND pg_get_function_identity_arguments(p.oid) = {literal(function.arguments)} AND p.prosecdef"
    )
    name = f"{quote(function.schema)}.{quote(function.name)}({function.arguments})"
    tables = [
        item.table
        for item in subject.tenant_tables
        if item.table.secured
        and subject.inventory.bypasses(function.owner, item.table)
        and re.search(rf"(?<![\w$]){re.escape(item.table.name)}(?![\w$])", function.body, re.IGNORECASE)
    ]
    if tables:
        yield Finding(
            "TD305",
            function.label,
            f"it names {tables[0].label} and runs as {owner}, whom no policy of it holds; "
            f"{subject.names(callers)} may call it",
            f"SELECT n.nspname, p.proname, pg_get_userbyid(p.proowner) AS owner {where}",
            f"ALTER FUNCTION {name} SECURITY INVOKER",
        )
    if (fault := _path_fault(subject, function.search_path)) is not None:
        yield Finding(
            "TD306",
            function.label,
            f"{fault}, and it runs as {owner}; {subject.names(callers)} may call it",
            f"SELECT n.nspname, p.proname, p.proconfig {where}",
            f"ALTER FUNCTION {name} SET search_path = {quote(function.schema)}, pg_temp",
        )


def _path_fault(subject: Subject, path: str | None) -> str | None:
    if path is None:
        return "it has no search_path of its own"
    items = [(quoted or plain).replace('""', '"') for quoted, plain in _PATH_ITEM.findall(path)]
    items = [item for item in items if item]
    for item in items:
        if item in subject.inventory.open_schemas or item == "$user":
            return f"its search_path has {item}, where others may create objects"
    # The temporary schema comes first unless it is named: with a path of schemas it hides their tables.
    named = [item for item in items if item != "pg_catalog"]
    if named and named[-1] != "pg_temp" and subject.inventory.temporary:
        return "its search_path does not end with pg_temp, so temporary tables of the caller come first"
    return None


def _default_privileges(subject: Subject) -> Iterator[Finding]:
    for default in subject.inventory.default_privileges:
        rights = sorted(default.privileges if default.grantee == PUBLIC else default.privileges & _UNASKED)
        holders = {item.table.schema for item in subject.tenant_tables}
        if not rights or (default.schema is not None and default.schema not in holders) or not holders:
            continue
        maker = subject.inventory.role_name(default.maker)
        grantee = grantee_name(subject.inventory, default.grantee)
        where = f" IN SCHEMA {quote(default.schema)}" if default.schema else ""
        schema = f"d.defaclnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {literal(default.schema or '')})"
        yield Finding(
            "TD309",
            f"{maker} in {default.schema or 'all schemas'} to {subject.inventory.role_name(default.grantee)}",
            f"tables that {maker} makes are granted to {grantee} with {', '.join(rights)}",
            "SELECT d.defaclrole::regrole, g.privilege_type FROM pg_default_acl d, aclexplode(d.defaclacl) AS g "
            f"WHERE d.defaclobjtype = 'r' AND pg_get_userbyid(d.defaclrole) = {literal(maker)} "
            f"AND {schema if default.schema else 'd.defaclnamespace = 0'} "
            f"AND g.privilege_type IN ({', '.join(map(literal, rights))}) "
            f"AND {is_grantee(subject.inventory, default.grantee)}",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(maker)}{where} REVOKE {', '.join(rights)} ON TABLES "
            f"FROM {grantee}",
        )


def _publications(subject: Subject) -> Iterator[Finding]:
    for publication in subject.inventory.publications:
        tables = [
            item.table
            for item in subject.tenant_tables
            if publication.all_tables or item.table.id in publication.tables
        ]
        if tables:
            count = f"{len(tables)} tenant tables" if len(tables) > 1 else tables[0].label
            yield Finding(
                "TD310",
                publication.name,
                f"it publishes {count}",
                f"SELECT pubname, schemaname, tablename FROM pg_publication_tables "
                f"WHERE pubname = {literal(publication.name)}",
                f"-- ALTER PUBLICATION {quote(publication.name)} DROP TABLE ..., if nobody needs them",
            )
