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

import asyncpg

from tenantry.doctor import _queries as queries
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
from tenantry.doctor._place import driver_url, split_url, without_password

OLDEST_SERVER: Final = 150000
APPLICATION_NAME: Final = "tenantry doctor"
_LOCK_TIMEOUT: Final = "2s"
_LIKE_SCHEMAS: Final = 3  # two schemas of one shape may be a copy; three are a layout
_VARIANTS: Final = 20  # of one shape that are read


async def read_inventory(url: str, *, seconds: float = 60) -> Inventory:
    """What the catalogues of the database at `url` say.

    Writes nothing and locks nothing that a write would wait for. Raises `DoctorFailed` where the database cannot be
    reached, is older than 15, is locked by a migration, or takes longer than `seconds`.
    """
    parts = split_url(url)
    try:
        async with asyncio.timeout(seconds):
            connection = await asyncpg.connect(
                driver_url(parts),
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
        raise DoctorFailed(without_password(error, parts)) from None


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
        [server] = await self._connection.fetch(queries.SERVER)
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
            settings=tuple(Setting(**row) for row in await self._optional("settings of roles", queries.SETTINGS)),
            relations=relations,
            functions=await self._functions(schemas),
            default_privileges=tuple(
                DefaultPrivilege(row["maker"], row["schema"], row["grantee"], frozenset(row["privileges"]))
                for row in await self._optional("default privileges", queries.DEFAULT_PRIVILEGES)
            ),
            publications=tuple(
                Publication(row["name"], row["all_tables"], frozenset(row["tables"]))
                for row in await self._optional("publications", queries.PUBLICATIONS)
            ),
            shapes=shapes,
            open_schemas=open_schemas,
            temporary=server["temporary"],
            leakproof_functions=frozenset(
                row["name"] for row in await self._optional("leakproof functions", queries.LEAKPROOF)
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
        for row in await self._connection.fetch(queries.MEMBERSHIPS):
            granted[row["member"]].add(row["roleid"])
        sessions = {
            row["usesysid"]: row["sessions"]
            for row in await self._optional("sessions of other roles", queries.SESSIONS, APPLICATION_NAME)
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
            for row in await self._connection.fetch(queries.ROLES)
        }

    async def _schemas(self) -> tuple[list[int], tuple[Shape, ...], frozenset[str]]:
        """The schemas to read, the shapes of which only some are among them, and those where all may create."""
        rows = await self._connection.fetch(queries.SCHEMAS)
        members: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
        for row in rows:
            if row["shape"] is not None:
                members[row["shape"]].append(row)
        alike = {shape: found for shape, found in members.items() if len(found) >= _LIKE_SCHEMAS}
        writers: defaultdict[str, list[int]] = defaultdict(list)
        if alike:
            pairs = [(row["oid"], shape) for shape, found in alike.items() for row in found]
            arguments = [oid for oid, _ in pairs], [shape for _, shape in pairs]
            for row in await self._connection.fetch(queries.WRITERS, *arguments):
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
        for row in await self._connection.fetch(queries.COLUMNS, schemas):
            names[row["oid"]][row["number"]] = row["name"]
            columns[row["oid"]].append(Column(row["name"], row["type"], row["not_null"], row["identity"]))
        grants: defaultdict[int, dict[int, frozenset[str]]] = defaultdict(dict)
        for row in await self._connection.fetch(queries.GRANTS, schemas):
            grants[row["oid"]][row["grantee"]] = frozenset(row["privileges"])
        policies = await self._by_table(queries.POLICIES, schemas)
        keys = await self._by_table(queries.FOREIGN_KEYS, schemas)
        indexes = await self._by_table(queries.INDEXES, schemas)
        triggers = await self._by_table(queries.TRIGGERS, schemas)
        reads = await self._by_table(queries.READS, schemas)
        rows = await self._connection.fetch(queries.RELATIONS, schemas)
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
            for row in await self._optional("SECURITY DEFINER functions", queries.FUNCTIONS, schemas)
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
