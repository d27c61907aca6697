"""Thousands of transactions of many tenants over few connections, broken off in every way."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, cast

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tenantry import Tenant
from tenantry.database import TENANT_ID, TenantColumn
from tenantry.database._names import TENANT_SETTING, literal, quote, quote_qualified
from tenantry.testing._report import SweepReport

_FATES: Final = (
    *["commit"] * 36,
    *["read"] * 12,
    *("commit in the middle", "roll back in the middle", "savepoint"),
    *("raise", "failing statement", "failing savepoint", "cancel", "cancel at the server", "lose the connection"),
)
_BREAKS: Final = text("SELECT 1 / 0")
_WAITS: Final = text("SELECT pg_sleep(10)")
_CANCELLED: Final = text("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)")
_LOST: Final = text("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(10)")
_UNBOUND_SHARE: Final = 0.1


class TenantSessions(Protocol):
    """What is swept: `tenantry.database.Databases`, or what a product has in its place."""

    def tenant_session(
        self, tenant: Tenant | None = None, read_only: bool = False
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """One transaction bound to the tenant."""
        ...

    def engine_for(self, tenant: Tenant) -> AbstractAsyncContextManager[AsyncEngine]:
        """The engine whose connections those sessions use."""
        ...


class _Left(Exception):
    """What leaves a session in the middle."""


async def sweep_pool(
    databases: TenantSessions,
    tenants: Sequence[Tenant],
    *,
    table: str,
    column: TenantColumn = TENANT_ID,
    transactions: int = 2_000,
    connections: int = 5,
    at_once: int = 50,
    seed: int = 8,
) -> SweepReport:
    """Has transactions of ``tenants`` take turns on the ``connections`` of ``databases``, which has as many at most.

    Some commit in the middle, some raise, some are cancelled here or at the server, some lose their connection: in an
    order that ``seed`` repeats, and ``at_once`` of them compete. Each must see rows of its tenant in ``table``, and of
    nobody else; every connection must be clean when it is handed out, and those that bind no tenant must see nothing.
    ``table`` has rows of all the tenants, and its schema where they share one. Raises SweepFailed.
    """
    sweep = _PoolSweep(databases, tenants, table, column)
    async with sweep.watched(tenants[0]):
        dice = random.Random(seed)  # noqa: S311 - an order that can be repeated, not a secret
        places = asyncio.Semaphore(at_once)
        fates = [
            (dice.choice(tenants), "no tenant" if dice.random() < _UNBOUND_SHARE else dice.choice(_FATES))
            for _ in range(transactions)
        ]
        await asyncio.gather(*(sweep.run(tenant, fate, places) for tenant, fate in fates))
        await sweep.check_all(tenants[0], connections)
    for fate in {"no tenant", *_FATES}:
        if transactions >= len(_FATES) * 10 and not sweep.report.tried[fate]:
            sweep.report.blindness("pool", fate, "did not happen")
    if sweep.most_held != connections:
        sweep.report.blindness(
            "pool", "connections", f"{sweep.most_held} were in use at the same time, {connections} were meant"
        )
    return sweep.report.concluded()


class _PoolSweep:
    def __init__(self, databases: TenantSessions, tenants: Sequence[Tenant], table: str, column: TenantColumn) -> None:
        self.report = SweepReport("pool")
        self.most_held = 0
        self._held = 0
        self._databases = databases
        self._keys = {tenant.id: str(column.key_of(tenant)) for tenant in tenants}
        self._seen = text(f"SELECT DISTINCT {quote(column.name)}::text FROM {quote_qualified(table)}")  # noqa: S608
        settings = ", ".join(
            f"coalesce(current_setting({literal(name)}, true), '')" for name in {TENANT_SETTING, column.setting}
        )
        self._state = (
            f"SELECT concat_ws(', ', {settings}), current_setting('transaction_read_only'),"
            f" to_regclass({literal(quote_qualified(table))}) IS NOT NULL"
        )
        self._count = f"SELECT count(*) FROM {quote_qualified(table)}"  # noqa: S608 - quoted

    @asynccontextmanager
    async def watched(self, tenant: Tenant) -> AsyncIterator[None]:
        """Looks at every connection that is handed out inside the block."""
        async with self._databases.engine_for(tenant) as engine:
            pool = engine.sync_engine  # and no longer: the block may stand for a connection
        event.listen(pool, "checkout", self._check)
        event.listen(pool, "checkin", self._count_out)
        try:
            yield
        finally:
            event.remove(pool, "checkout", self._check)
            event.remove(pool, "checkin", self._count_out)

    async def run(self, tenant: Tenant, fate: str, places: asyncio.Semaphore) -> None:
        # In a task of its own, which a fate may cancel: and not before its transaction is under way.
        async with places:
            task = asyncio.ensure_future(self._unbound(tenant) if fate == "no tenant" else self._bound(tenant, fate))
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
        self.report.tried[fate] += 1
        expected = (
            isinstance(ended, asyncio.CancelledError) if fate == "cancel" else isinstance(ended, _Left | DBAPIError)
        )
        if isinstance(ended, BaseException) and not expected:
            self.report.leak("pool", fate, f"ended with {type(ended).__name__}: {str(ended)[:200]}")

    async def check_all(self, tenant: Tenant, connections: int) -> None:
        """Every connection of the pool at the same time, so that none of them is missed."""
        places, all_held = itertools.count(1), asyncio.Event()

        async def hold() -> None:
            try:
                async with self._databases.engine_for(tenant) as engine, engine.connect():
                    if next(places) == connections:
                        all_held.set()
                    await all_held.wait()
            finally:
                all_held.set()  # who gets none must not have the others wait

        for ended in await asyncio.gather(*(hold() for _ in range(connections)), return_exceptions=True):
            if isinstance(ended, BaseException):
                self.report.blindness("pool", "connections", f"{connections} at the same time: {ended!r}"[:200])

    async def _bound(self, tenant: Tenant, fate: str) -> None:
        async with self._databases.tenant_session(tenant, fate == "read") as session:
            await self._look(session, tenant, fate)
            match fate:
                case "commit in the middle":
                    await session.commit()
                case "roll back in the middle":
                    await session.rollback()
                case "savepoint":
                    async with session.begin_nested():
                        await self._look(session, tenant, fate)
                case "raise":
                    raise _Left
                case "failing statement":
                    await session.execute(_BREAKS)
                case "failing savepoint":
                    async with session.begin_nested():
                        await session.execute(_BREAKS)
                case "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await session.execute(_WAITS)
                case "cancel at the server":
                    await session.execute(_CANCELLED)
                case "lose the connection":
                    await session.execute(_LOST)
                case _:
                    await asyncio.sleep(0)
            await self._look(session, tenant, fate)

    async def _look(self, session: AsyncSession, tenant: Tenant, fate: str) -> None:
        seen = set((await session.scalars(self._seen)).all())
        own = self._keys[tenant.id]
        if own not in seen:
            self.report.leak("pool", fate, f"a transaction of {own} saw none of its rows, but those of {sorted(seen)}")
        elif len(seen) > 1:
            self.report.leak("pool", fate, f"a transaction of {own} saw rows of {sorted(seen - {own})}")

    async def _unbound(self, tenant: Tenant) -> None:
        async with self._databases.engine_for(tenant) as engine, engine.connect() as connection:
            state = (await connection.exec_driver_sql(self._state)).one()
            rows = (await connection.exec_driver_sql(self._count)).scalar_one() if state[-1] else 0
            self._judge("no tenant", state, rows)

    def _count_out(self, *_: Any) -> None:
        self._held -= 1

    def _check(self, connection: Any, *_: Any) -> None:
        self._held += 1
        self.most_held = max(self.most_held, self._held)
        if not connection.driver_connection.is_closed():  # else the pool is about to replace it
            connection.run_async(self._look_at)

    async def _look_at(self, connection: asyncpg.Connection) -> None:
        state = cast("asyncpg.Record", await connection.fetchrow(self._state))
        self._judge("checkout", tuple(state.values()))

    def _judge(self, where: str, state: Sequence[Any], rows: int = 0) -> None:
        settings, read_only, _ = state
        if settings.strip(", "):
            self.report.leak("pool", where, f"a connection was handed out bound to {settings}")
        if read_only != "off":
            self.report.leak("pool", where, "a connection was handed out read-only")
        if rows:
            self.report.leak("pool", where, f"a connection without a tenant saw {rows} rows")
