"""Warm places of one store: kept at their number by one refiller at a time, handed over by a rename.

A rename takes well below a millisecond where making a schema takes tens and a database hundreds. Policies, grants,
owners and foreign keys are bound to the objects and not to the name of their schema or database, so they come along.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
import structlog

from tenantry._tenant import Isolation
from tenantry.database._found_places import mark_of
from tenantry.database._migrations import migrate
from tenantry.database._names import RoleNames, literal, quote
from tenantry.database._provisioning import create_database
from tenantry.database._releasing import PlaceInUse, drop_database, drop_schema
from tenantry.database._tree import load_tree, migrations_directory
from tenantry.database._url import dsn
from tenantry.database._warm_table import WARM_TABLE, PlaceState

log = structlog.get_logger(__name__)

Connection = asyncpg.Connection

WARM_PATTERN: Final = "w_[0-9a-f]{32}"

# ruff: noqa: S608 - the statements are put together from constants of this module

# A database with a connection cannot be renamed, and the server would wait five seconds before it says so.
_TAKE: Final = f"""
    DELETE FROM {WARM_TABLE} WHERE name = (
        SELECT name FROM {WARM_TABLE} AS place
         WHERE isolation = $1 AND state = 'ready' AND revision = $2
           AND NOT EXISTS (SELECT FROM pg_stat_activity AS other WHERE other.datname = place.name)
         ORDER BY created_at, name LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING name
"""
_REMEMBER: Final = f"INSERT INTO {WARM_TABLE} (name, isolation, state) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_SET_STATE: Final = f"UPDATE {WARM_TABLE} SET state = $2 WHERE name = $1 AND state <> 'dropping'"
_SET_READY: Final = f"UPDATE {WARM_TABLE} SET state = 'ready', revision = $2 WHERE name = $1 AND state = 'making'"
_FORGET: Final = f"DELETE FROM {WARM_TABLE} WHERE name = $1"
_PLACES: Final = f"SELECT name, isolation, state, revision FROM {WARM_TABLE} ORDER BY created_at, name"
# Places that have lost their row, as after a restore of the ledger from a backup, and rows that have lost their place.
_ORPHANED_SCHEMAS: Final = f"""
    SELECT nspname FROM pg_namespace WHERE nspname ~ '^{WARM_PATTERN}$' AND pg_get_userbyid(nspowner) = $1
       AND NOT EXISTS (SELECT FROM {WARM_TABLE} WHERE name = nspname)
"""
_ORPHANED_DATABASES: Final = f"""
    SELECT datname FROM pg_database WHERE datname ~ $1 AND shobj_description(oid, 'pg_database') = $2
       AND NOT EXISTS (SELECT FROM {WARM_TABLE} WHERE name = datname)
"""
_FORGET_LOST: Final = f"""
    DELETE FROM {WARM_TABLE} WHERE state = 'ready'
       AND NOT CASE isolation WHEN 'schema' THEN EXISTS (SELECT FROM pg_namespace WHERE nspname = name)
                              ELSE EXISTS (SELECT FROM pg_database WHERE datname = name) END
"""


@dataclass(frozen=True, slots=True)
class Heads:
    """The newest revisions of a service's two branches, and all that its code knows."""

    system: str
    tenant: str
    known: frozenset[str]

    @classmethod
    def of(cls, directory: Path) -> "Heads":
        branches = load_tree(directory).branches
        system, tenant = ([script.revision for script in branches[branch]] for branch in ("system", "tenant"))
        return cls((system or [""])[-1], (tenant or [""])[-1], frozenset({"", *system, *tenant}))

    def revision(self, isolation: Isolation) -> str:
        """What a place at the head has in the ledger: a database has both branches, a schema the tenant's alone."""
        return self.tenant if isolation is Isolation.SCHEMA else f"{self.system} {self.tenant}"

    def knows(self, revision: str) -> bool:
        """Whether a place at this revision is not newer than the code."""
        return self.known.issuperset(revision.split(" "))


async def hand_over(connection: Connection, heads: Heads, name: str, isolation: Isolation) -> bool:
    """Rename a ready place to ``name``, in a transaction of its own; says whether there was one.

    Nothing is done where the place of this name exists: somebody has made it, or died while doing so.
    """
    async with connection.transaction():
        kind, catalogue = (
            ("migrate.", "pg_namespace WHERE nspname")
            if isolation is Isolation.SCHEMA
            else ("", "pg_database WHERE datname")
        )
        # The lock of who makes a place of this name on the spot.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"tenantry.{kind}{name}")
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {catalogue} = $1)", name):
            return False
        taken = await connection.fetchval(_TAKE, isolation.value, heads.revision(isolation))
        if taken is None:
            return False
        await connection.execute(f"ALTER {isolation.value.upper()} {quote(taken)} RENAME TO {quote(name)}")
        if isolation is Isolation.DATABASE:
            mark = literal(mark_of(await connection.fetchval("SELECT current_database()")))
            await connection.execute(f"COMMENT ON DATABASE {quote(name)} IS {mark}")
    return True


class WarmPlaces:
    """The warm places of ``service`` in the store that the provisioner's ``url`` leads to."""

    def __init__(
        self, service: str, url: str, sizes: Mapping[Isolation, int], *, directory: Path | None = None
    ) -> None:
        self._service = service
        self._url = url
        self._sizes = sizes
        self._directory = directory or migrations_directory(service)

    @property
    def heads(self) -> Heads:
        return Heads.of(self._directory)

    async def refill(self) -> int:
        """Bring the places to their number and to the head; returns how many were touched, 0 where another is at it.

        May be killed at any moment: the next one goes on where this one stopped.
        """
        connection = await asyncpg.connect(dsn(self._url))
        try:
            # The lock goes with the connection, and so does the right to say that a place is ready.
            lock = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
            if not await connection.fetchval(lock, f"tenantry.warm.{self._service}"):
                return 0
            await self._reconcile(connection)
            return sum([await self._refill(connection, kind, size) for kind, size in self._sizes.items()])
        finally:
            await connection.close()

    async def _reconcile(self, connection: Connection) -> None:
        """Have the ledger say what there is: lost places are dropped later, rows without a place are forgotten now."""
        owner = RoleNames(self._service).owner
        for row in await connection.fetch(_ORPHANED_SCHEMAS, owner):
            await connection.execute(_REMEMBER, row["nspname"], Isolation.SCHEMA.value, PlaceState.DROPPING.value)
        ours = f"^{re.escape(self._service)}_{WARM_PATTERN}$"
        for row in await connection.fetch(_ORPHANED_DATABASES, ours, await self._mark(connection)):
            await connection.execute(_REMEMBER, row["datname"], Isolation.DATABASE.value, PlaceState.DROPPING.value)
        await connection.execute(_FORGET_LOST)

    async def _refill(self, connection: Connection, kind: Isolation, size: int) -> int:
        head = self.heads.revision(kind)
        places = [place for place in await connection.fetch(_PLACES) if place["isolation"] == kind]
        wanted = [place for place in places if place["state"] != PlaceState.DROPPING]
        # The newest are given up first: the older ones are nearer to being used.
        surplus = [place["name"] for place in wanted[size:]]
        dropping = [place["name"] for place in places if place["state"] == PlaceState.DROPPING]
        touched = 0
        for name in (*dropping, *surplus):
            await self._drop(connection, kind, name)
            touched += 1
        for place in wanted[:size]:
            at_head = place["state"] == PlaceState.READY and place["revision"] == head
            newer = place["revision"] is not None and not self.heads.knows(place["revision"])
            if not at_head and not newer:
                await self._make(connection, kind, place["name"])
                touched += 1
        for _ in range(size - len(wanted)):
            prefix = "" if kind is Isolation.SCHEMA else f"{self._service}_"
            name = f"{prefix}w_{uuid4().hex}"
            await connection.execute(_REMEMBER, name, kind.value, PlaceState.MAKING.value)
            await self._make(connection, kind, name)
            touched += 1
        return touched

    async def _make(self, connection: Connection, kind: Isolation, name: str) -> None:
        """Bring a place of the ledger to the head, however far an earlier attempt has come, and call it ready."""
        # Nobody may take it while it changes; one that has been taken meanwhile is nobody's business here.
        if await connection.execute(_SET_STATE, name, PlaceState.MAKING.value) != "UPDATE 1":
            return
        if kind is Isolation.SCHEMA:
            await migrate(self._url, self._service, schema=name, directory=self._directory)
        else:
            url = await create_database(self._url, self._service, name)
            mark = literal(await self._mark(connection))
            await connection.execute(f"COMMENT ON DATABASE {quote(name)} IS {mark}")
            await migrate(url, self._service, directory=self._directory)
        await connection.execute(_SET_READY, name, self.heads.revision(kind))
        log.info("place_is_warm", service=self._service, isolation=kind)

    async def _drop(self, connection: Connection, kind: Isolation, name: str) -> None:
        if await connection.execute(_SET_STATE, name, PlaceState.DROPPING.value) == "UPDATE 0" and not (
            await connection.fetchval(f"SELECT EXISTS (SELECT FROM {WARM_TABLE} WHERE name = $1)", name)
        ):
            return  # it was taken meanwhile, and is somebody's
        if kind is Isolation.SCHEMA:
            await drop_schema(connection, self._service, name)
        else:
            try:
                await drop_database(connection, name)
            except PlaceInUse:
                log.warning("warm_place_in_use", service=self._service, name=name)
                return  # it stays in the ledger, for another time
        await connection.execute(_FORGET, name)

    async def _mark(self, connection: Connection) -> str:
        """What a warm database says of whose it is: other databases of the server may belong to the same service."""
        return f"warm place of {await connection.fetchval('SELECT current_database()')}"
