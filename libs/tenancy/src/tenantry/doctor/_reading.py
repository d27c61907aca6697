"""Reads an inventory: one read-only transaction of one snapshot, and only the catalogues.

Every query is set-based, so that their number does not grow with the database. Tenants that have a schema each are
read by their shape: of thousands of like schemas the tables of one are fetched.
"""

import asyncio
import re
import ssl
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import asyncpg

from tenantry.doctor._errors import DoctorFailed
from tenantry.doctor._inventory import (
    PUBLIC,
    Column,
    DefaultPrivilege,
    ForeignKey,
    Function,
    Index,
    Inventory,
    Policy,
    Publication,
    Relation,
    Role,
    Setting,
    Shape,
)

OLDEST_SERVER: Final = 150000
APPLICATION_NAME: Final = "tenantry doctor"
_LOCK_TIMEOUT: Final = "2s"
_LIKE_SCHEMAS: Final = 3  # two schemas of one shape may be a copy; three are a layout
_VARIANTS: Final = 20  # of one shape that are read

# libpq's connection parameters that the driver knows. It would send any other to the server as a setting, and
# what is only meant for another driver (channel_binding, pgbouncer, schema) would keep the connection from being made.
_PARAMETERS: Final = frozenset(
    {
        *("host", "port", "user", "password", "dbname", "database", "passfile", "service", "servicefile", "options"),
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib"),
    }
)

_SERVER: Final = """
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
           current_database()::text AS database, (SELECT oid FROM pg_roles WHERE rolname = current_user) AS role,
           EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS g
                    WHERE d.datname = current_database() AND g.grantee = 0 AND g.privilege_type = 'TEMPORARY')
           AS temporary
"""
_ROLES: Final = """
    SELECT oid, rolname::text AS name, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles
"""
# A membership WITH INHERIT FALSE, SET FALSE (16 and later) gives nothing; before 16 there are no such columns.
_MEMBERSHIPS: Final = """
    SELECT member, roleid FROM pg_auth_members AS m
     WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
        OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
"""
_SESSIONS: Final = """
    SELECT usesysid, count(*) AS sessions FROM pg_stat_activity
     WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
       AND coalesce(backend_type, 'client backend') = 'client backend'
       AND coalesce(application_name, '') <> $1
     GROUP BY usesysid
"""
_SETTINGS: Final = """
    SELECT r.rolname::text AS role, d.datname::text AS database, o.option_name AS name, o.option_value AS value
      FROM pg_db_role_setting s
      LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase,
           pg_options_to_table(s.setconfig) AS o
     WHERE (s.setdatabase = 0 OR d.datname = current_database())
"""
_SCHEMAS: Final = r"""
    SELECT n.oid, n.nspname::text AS name, f.shape, f.variant,
           EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS g
                    WHERE g.grantee = 0 AND g.privilege_type = 'CREATE') AS open
      FROM pg_namespace n
      LEFT JOIN (
            SELECT c.relnamespace,
                   md5(string_agg(c.relname || c.relkind::text, ',' ORDER BY c.relname)) AS shape,
                   md5(string_agg(concat_ws('|', c.relname, replace(pg_get_userbyid(c.relowner), s.nspname, '~'),
                                            c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relnatts,
                                            replace(c.relacl::text, s.nspname, '~')), ',' ORDER BY c.relname))
                   AS variant
              FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
             GROUP BY c.relnamespace
           HAVING bool_or(c.relkind IN ('r', 'p'))
           ) AS f ON f.relnamespace = n.oid
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_WRITERS: Final = """
    SELECT s.shape, w.role
      FROM unnest($1::oid[], $2::text[]) AS s (schema, shape)
      JOIN pg_class c ON c.relnamespace = s.schema AND c.relkind IN ('r', 'p'),
           LATERAL (SELECT c.relowner UNION SELECT g.grantee FROM aclexplode(c.relacl) AS g
                     WHERE g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')) AS w (role)
     GROUP BY s.shape, w.role HAVING count(DISTINCT s.schema) > 1
"""
# ruff: noqa: S608 - the queries are put together from constants of this module
_OURS: Final = """
    c.relnamespace = ANY ($1::oid[]) AND c.relpersistence <> 't'
    AND NOT EXISTS (SELECT FROM pg_depend e
                     WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
"""
_RELATIONS: Final = f"""
    SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, c.relowner AS owner,
           c.relrowsecurity AS secured, c.relforcerowsecurity AS forced, i.inhparent AS parent,
           c.relispartition AS partition, greatest(c.reltuples, 0)::bigint AS rows,
           EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
                    WHERE o.option_name = 'security_invoker' AND o.option_value::boolean) AS invoker
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhseqno = 1
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_OURS}
     ORDER BY n.nspname, c.relname
"""
_GRANTS: Final = f"""
    SELECT c.oid, g.grantee, array_agg(DISTINCT g.privilege_type) AS privileges
      FROM pg_class c,
           LATERAL (SELECT * FROM aclexplode(c.relacl) UNION ALL
                    SELECT x.* FROM pg_attribute a, aclexplode(a.attacl) AS x
                     WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL) AS g
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_OURS}
     GROUP BY c.oid, g.grantee
"""
_COLUMNS: Final = f"""
    SELECT a.attrelid AS oid, a.attnum AS number, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
           a.attnotnull AS not_null, a.attidentity <> '' AS identity
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'f') AND {_OURS}
     ORDER BY a.attrelid, a.attnum
"""
_POLICIES: Final = f"""
    SELECT p.polrelid AS oid, p.polname::text AS name, p.polpermissive AS permissive, p.polcmd::text AS command,
           p.polroles AS roles, pg_get_expr(p.polqual, p.polrelid) AS using,
           pg_get_expr(p.polwithcheck, p.polrelid) AS "check"
      FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE {_OURS} ORDER BY p.polname
"""
_FOREIGN_KEYS: Final = f"""
    SELECT k.conrelid AS oid, k.conname::text AS name, k.confrelid AS target, k.conkey AS columns,
           k.confkey AS target_columns, k.confdeltype::text AS on_delete
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     WHERE k.contype = 'f' AND k.conparentid = 0 AND {_OURS} ORDER BY k.conname
"""
_INDEXES: Final = f"""
    WITH leakproof AS (
        SELECT DISTINCT o.amopfamily AS family
          FROM pg_amop o JOIN pg_operator r ON r.oid = o.amopopr JOIN pg_proc p ON p.oid = r.oprcode
         WHERE o.amoppurpose = 's' AND p.proleakproof
    )
    SELECT i.indrelid AS oid, x.relname::text AS name, i.indkey::int2[] AS columns, i.indnkeyatts AS keys,
           i.indisunique AS unique, i.indisprimary AS primary, i.indisexclusion AS exclusion, m.amname::text AS method,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid
                                                 AND k.contype IN ('p', 'u', 'x')) AS constraint,
           (SELECT bool_and(f.opcfamily IN (SELECT family FROM leakproof))
              FROM unnest(i.indclass::oid[]) AS u (class) JOIN pg_opclass f ON f.oid = u.class) AS leakproof,
           pg_get_indexdef(i.indexrelid) AS definition
      FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_am m ON m.oid = x.relam
     WHERE i.indislive AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND {_OURS} ORDER BY x.relname
"""
_TRIGGERS: Final = f"""
    SELECT t.tgrelid AS oid, t.tgname::text AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {_OURS} ORDER BY t.tgname
"""
_READS: Final = f"""
    SELECT DISTINCT w.ev_class AS oid, d.refobjid AS target
      FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
     WHERE c.relkind IN ('v', 'm') AND {_OURS}
"""
_FUNCTIONS: Final = """
    SELECT n.nspname::text AS schema, p.proname::text AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
           p.proowner AS owner, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body,
           (SELECT o.option_value FROM pg_options_to_table(p.proconfig) AS o WHERE o.option_name = 'search_path')
           AS search_path,
           (SELECT array_agg(g.grantee) FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g
             WHERE g.privilege_type = 'EXECUTE') AS grantees
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE p.prosecdef AND p.pronamespace = ANY ($1::oid[])
       AND NOT EXISTS (SELECT FROM pg_depend e
                        WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
     ORDER BY n.nspname, p.proname
"""
_LEAKPROOF: Final = "SELECT DISTINCT proname::text AS name FROM pg_proc WHERE proleakproof"
_DEFAULT_PRIVILEGES: Final = """
    SELECT d.defaclrole AS maker, n.nspname::text AS schema, g.grantee, array_agg(g.privilege_type) AS privileges
      FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) AS g
     WHERE d.defaclobjtype = 'r' AND g.grantee <> d.defaclrole
     GROUP BY d.defaclrole, n.nspname, g.grantee
"""
_PUBLICATIONS: Final = """
    SELECT p.pubname::text AS name, p.puballtables AS all_tables,
           ARRAY (SELECT r.prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid
                   UNION SELECT c.oid FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
                          WHERE s.pnpubid = p.oid AND c.relkind IN ('r', 'p')) AS tables
      FROM pg_publication p
"""


async def read_inventory(url: str, *, seconds: float = 60) -> Inventory:
    """What the catalogues of the database at `url` say.

    Writes nothing and locks nothing that a write would wait for. Raises `DoctorFailed` where the database cannot be
    reached, is older than 15, is locked by a migration, or takes longer than `seconds`.
    """
    parts = _split(url)
    try:
        async with asyncio.timeout(seconds):
            connection = await asyncpg.connect(
                _driver_url(parts),
                statement_cache_size=0,  # a pooler between may hand each transaction to another connection
                server_settings={"application_name": APPLICATION_NAME},
            )
            try:
                inventory = await _read(connection, seconds)
            except BaseException:
                connection.terminate()  # whatever it waits for is no longer wanted
                raise
            await connection.close()
            return inventory
    except TimeoutError:
        msg = f"no answer within {seconds:g} seconds"
        raise DoctorFailed(msg) from None
    except asyncpg.LockNotAvailableError:
        # The server prints a policy or an index under a lock of its table. To wait longer would be to queue.
        raise DoctorFailed("another session has locked a table (a migration?): try again when it is done") from None
    except (OSError, ssl.SSLError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise DoctorFailed(_without_password(error, parts)) from None


def place_of(url: str) -> str:
    """Which database `url` means, for people: no password and no parameters."""
    parts = _split(url)
    user = f"{unquote(parts.username)}@" if parts.username else ""
    return f"{user}{parts.hostname or 'localhost'}{parts.path}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise DoctorFailed("the URL cannot be read") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme not in {"postgres", "postgresql"}:
        raise DoctorFailed("the URL must begin with postgresql://")
    return parts._replace(scheme="postgresql")


def _driver_url(parts: SplitResult) -> str:
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name in _PARAMETERS])
    return parts._replace(query=query).geturl()


def _without_password(error: BaseException, parts: SplitResult) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    secrets = [parts.password, *(value for name, value in parse_qsl(parts.query) if "password" in name)]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***").replace(unquote(secret), "***")
    return text


async def _read(connection: asyncpg.Connection, seconds: float) -> Inventory:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        # pg_catalog alone: nobody's operator or function of the same name is meant, and expressions are printed with
        # every other name qualified.
        await connection.execute("SELECT set_config('search_path', 'pg_catalog', true)")
        await connection.execute("SELECT set_config('statement_timeout', $1, true)", f"{int(seconds * 1000)}ms")
        await connection.execute("SELECT set_config('lock_timeout', $1, true)", _LOCK_TIMEOUT)
        return await _Reader(connection).read()


class _Reader:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._notes: list[str] = []

    async def read(self) -> Inventory:
        [server] = await self._connection.fetch(_SERVER)
        if server["number"] < OLDEST_SERVER:
            msg = f"the server is PostgreSQL {server['version']}; 15 or newer is needed"
            raise DoctorFailed(msg)
        roles = await self._roles()
        schemas, shapes, open_schemas = await self._schemas()
        relations = await self._relations(schemas)
        return Inventory(
            server=server["version"],
            database=server["database"],
            role=server["role"],
            roles=roles,
            settings=tuple(Setting(**row) for row in await self._optional("settings of roles", _SETTINGS)),
            relations=relations,
            functions=await self._functions(schemas),
            default_privileges=tuple(
                DefaultPrivilege(row["maker"], row["schema"], row["grantee"], frozenset(row["privileges"]))
                for row in await self._optional("default privileges", _DEFAULT_PRIVILEGES)
            ),
            publications=tuple(
                Publication(row["name"], row["all_tables"], frozenset(row["tables"]))
                for row in await self._optional("publications", _PUBLICATIONS)
            ),
            shapes=shapes,
            open_schemas=open_schemas,
            temporary=server["temporary"],
            leakproof_functions=frozenset(
                row["name"] for row in await self._optional("leakproof functions", _LEAKPROOF)
            ),
            notes=tuple(self._notes),
        )

    async def _optional(self, what: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows that the rest can do without: a server that does not show them is noted."""
        try:
            async with self._connection.transaction():
                rows: list[asyncpg.Record] = await self._connection.fetch(query, *arguments)
        except (
            asyncpg.InsufficientPrivilegeError,
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedFunctionError,
        ) as error:
            self._notes.append(f"not visible: {what} ({error})")
            return []
        return rows

    async def _roles(self) -> dict[int, Role]:
        granted: defaultdict[int, set[int]] = defaultdict(set)
        for row in await self._connection.fetch(_MEMBERSHIPS):
            granted[row["member"]].add(row["roleid"])
        sessions = {
            row["usesysid"]: row["sessions"]
            for row in await self._optional("sessions of other roles", _SESSIONS, APPLICATION_NAME)
        }
        return {
            row["oid"]: Role(
                id=row["oid"],
                name=row["name"],
                login=row["rolcanlogin"],
                superuser=row["rolsuper"],
                bypass=row["rolbypassrls"],
                create_role=row["rolcreaterole"],
                memberships=_closure(row["oid"], granted),
                sessions=sessions.get(row["oid"], 0),
            )
            for row in await self._connection.fetch(_ROLES)
        }

    async def _schemas(self) -> tuple[list[int], tuple[Shape, ...], frozenset[str]]:
        """The schemas to read, the shapes of which only some are among them, and those where all may create."""
        rows = await self._connection.fetch(_SCHEMAS)
        members: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
        for row in rows:
            if row["shape"] is not None:
                members[row["shape"]].append(row)
        alike = {shape: found for shape, found in members.items() if len(found) >= _LIKE_SCHEMAS}
        writers: defaultdict[str, list[int]] = defaultdict(list)
        if alike:
            pairs = [(row["oid"], shape) for shape, found in alike.items() for row in found]
            arguments = [oid for oid, _ in pairs], [shape for _, shape in pairs]
            for row in await self._connection.fetch(_WRITERS, *arguments):
                writers[row["shape"]].append(row["role"])
        chosen = [row["oid"] for row in rows if row["shape"] not in alike]
        shapes = []
        for shape, found in alike.items():
            read = _one_of_each_variant(found)
            if len(read) > _VARIANTS:
                self._notes.append(
                    f"{len(found)} schemas like {found[0]['name']} differ in {len(read)} ways; {_VARIANTS} were read"
                )
                read = read[:_VARIANTS]
            chosen += [row["oid"] for row in read]
            names = sorted(row["name"] for row in found)
            shapes.append(
                Shape(tuple(names), tuple(sorted(row["name"] for row in read)), tuple(sorted(writers[shape])))
            )
        shapes.sort(key=lambda shape: shape.schemas)
        return chosen, tuple(shapes), frozenset(row["name"] for row in rows if row["open"])

    async def _relations(self, schemas: Sequence[int]) -> dict[int, Relation]:
        names: defaultdict[int, dict[int, str]] = defaultdict(dict)
        columns: defaultdict[int, list[Column]] = defaultdict(list)
        for row in await self._connection.fetch(_COLUMNS, schemas):
            names[row["oid"]][row["number"]] = row["name"]
            columns[row["oid"]].append(Column(row["name"], row["type"], row["not_null"], row["identity"]))
        grants: defaultdict[int, dict[int, frozenset[str]]] = defaultdict(dict)
        for row in await self._connection.fetch(_GRANTS, schemas):
            grants[row["oid"]][row["grantee"]] = frozenset(row["privileges"])
        policies = await self._by_table(_POLICIES, schemas)
        keys = await self._by_table(_FOREIGN_KEYS, schemas)
        indexes = await self._by_table(_INDEXES, schemas)
        triggers = await self._by_table(_TRIGGERS, schemas)
        reads = await self._by_table(_READS, schemas)
        rows = await self._connection.fetch(_RELATIONS, schemas)
        found: dict[int, Relation] = {}
        for row in rows:
            oid = row["oid"]
            found[oid] = Relation(
                id=oid,
                schema=row["schema"],
                name=row["name"],
                kind=row["kind"],
                owner=row["owner"],
                secured=row["secured"],
                forced=row["forced"],
                parent=row["parent"],
                partition=row["partition"],
                rows=row["rows"],
                invoker=row["invoker"],
                grants=grants[oid],
                columns=tuple(columns[oid]),
                policies=tuple(_policy(policy) for policy in policies[oid]),
                foreign_keys=tuple(_foreign_key(key, names) for key in keys[oid]),
                indexes=tuple(_index(index, names[oid]) for index in indexes[oid]),
                triggers=tuple(trigger["name"] for trigger in triggers[oid]),
                reads=tuple(read["target"] for read in reads[oid]),
            )
        return found

    async def _by_table(self, query: str, schemas: Sequence[int]) -> defaultdict[int, list[asyncpg.Record]]:
        found: defaultdict[int, list[asyncpg.Record]] = defaultdict(list)
        for row in await self._connection.fetch(query, schemas):
            found[row["oid"]].append(row)
        return found

    async def _functions(self, schemas: Sequence[int]) -> tuple[Function, ...]:
        return tuple(
            Function(
                schema=row["schema"],
                name=row["name"],
                arguments=row["arguments"],
                owner=row["owner"],
                search_path=row["search_path"],
                grantees=frozenset(row["grantees"] or ()),
                body=row["body"] or "",
            )
            for row in await self._optional("SECURITY DEFINER functions", _FUNCTIONS, schemas)
        )


def _closure(role: int, granted: Mapping[int, Iterable[int]]) -> frozenset[int]:
    seen = {role}
    pending = [role]
    while pending:
        for parent in granted.get(pending.pop(), ()):
            if parent not in seen:
                seen.add(parent)
                pending.append(parent)
    return frozenset(seen)


def _one_of_each_variant(schemas: Iterable[asyncpg.Record]) -> list[asyncpg.Record]:
    """The first schema of each variant, the most frequent variant first."""
    variants: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in sorted(schemas, key=lambda row: str(row["name"])):
        variants[row["variant"]].append(row)
    return [rows[0] for rows in sorted(variants.values(), key=lambda rows: (-len(rows), str(rows[0]["name"])))]


def _policy(row: asyncpg.Record) -> Policy:
    return Policy(
        name=row["name"],
        permissive=row["permissive"],
        command=row["command"],
        roles=tuple(row["roles"]) or (PUBLIC,),
        using=row["using"],
        check=row["check"],
    )


def _foreign_key(row: asyncpg.Record, names: Mapping[int, Mapping[int, str]]) -> ForeignKey:
    there = names.get(row["target"], {})
    return ForeignKey(
        name=row["name"],
        target=row["target"],
        columns=tuple(names[row["oid"]][number] for number in row["columns"]),
        target_columns=tuple(there.get(number, "") for number in row["target_columns"]),
        on_delete=row["on_delete"],
    )


def _index(row: asyncpg.Record, names: Mapping[int, str]) -> Index:
    return Index(
        name=row["name"],
        columns=tuple(names.get(number) for number in row["columns"][: row["keys"]]),
        unique=row["unique"],
        primary=row["primary"],
        exclusion=row["exclusion"],
        constraint=row["constraint"],
        method=row["method"],
        leakproof=bool(row["leakproof"]),
        definition=re.sub(r"\s+", " ", row["definition"]),
    )
