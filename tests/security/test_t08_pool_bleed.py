"""T8: two thousand transactions of many tenants over five connections, broken off in every way, leave nothing behind.

Half of them are async and half run in threads. Among them are transactions without a tenant, which must see no rows.
"""

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantry import current_tenant_or_none, tenant_scope

TRANSACTIONS = 1000
CONNECTIONS = 5
STATE = text(
    "SELECT count(*), coalesce(current_setting('app.tenant_id', true), ''), current_setting('search_path'),"
    " current_setting('transaction_read_only') FROM pool.document"
)
CLEAN = (0, "", '""', "off")
SEEN = text("SELECT DISTINCT title FROM document")
ADD = text(
    "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
    " VALUES (:tenant, gen_random_uuid(), :title, '', '{}', 1, now(), now())"
)
BREAKS = text("SELECT 1 / 0")
CANCELLED = text("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)")
LOST = text("SELECT pg_terminate_backend(pg_backend_pid())")
FATES = ["commit"] * 8 + ["read"] * 4 + ["raise", "break", "cancel", "server-cancel", "nested", "lose"]


class Left(Exception):
    """What leaves a session in the middle."""


@pytest.fixture
async def tenants(service_database, tenant_factory):
    database = service_database("app")
    await database.truncate()
    tenants = [tenant_factory() for _ in range(10)]
    async with database.databases() as databases:
        for tenant in tenants:
            async with databases.tenant_session(tenant) as session:
                await session.execute(ADD, {"tenant": tenant.id, "title": tenant.slug})
    return tenants


@pytest.fixture
async def databases(service_database):
    async with service_database("app").databases(
        pool_size=CONNECTIONS, pool_overflow=0, pool_timeout_seconds=60
    ) as databases:
        yield databases


async def test_async_transactions(databases, tenants):
    wrong: list[Any] = []
    ended: Counter[str] = Counter()
    dice = random.Random(8)  # noqa: S311 - a repeatable order, not a secret

    async def bound(tenant, fate):
        with tenant_scope(tenant):
            async with databases.tenant_session(read_only=fate == "read", tenant=tenant) as session:
                if (seen := (await session.scalars(SEEN)).all()) != [tenant.slug]:
                    wrong.append((tenant.slug, seen))
                if fate == "raise":
                    raise Left
                if fate == "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await session.execute(text("SELECT pg_sleep(10)"))
                if fate in {"break", "server-cancel", "lose"}:
                    await session.execute({"break": BREAKS, "server-cancel": CANCELLED, "lose": LOST}[fate])
                if fate == "nested":
                    async with session.begin_nested():
                        await session.execute(BREAKS)

    async def unbound():
        async with databases.engine_for(tenants[0]) as engine, engine.begin() as connection:
            if (state := tuple((await connection.execute(STATE)).one())) != CLEAN:
                wrong.append(("unbound", state))

    work = [
        unbound() if dice.random() < 0.2 else bound(dice.choice(tenants), dice.choice(FATES))
        for _ in range(TRANSACTIONS)
    ]
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        ended[type(outcome).__name__] += 1
    assert wrong == []
    assert ended["NoneType"] > TRANSACTIONS / 2
    assert {"Left", "CancelledError", "DBAPIError"} <= ended.keys(), ended
    for _ in range(CONNECTIONS * 2):
        await unbound()
    assert wrong == []


async def test_transactions_in_threads(databases, tenants):
    wrong: list[Any] = []
    ended: Counter[str] = Counter()
    dice = random.Random(9)  # noqa: S311 - a repeatable order, not a secret
    sync, lock = databases.sync, threading.Lock()

    def bound(tenant, fate):
        if current_tenant_or_none() is not None:
            wrong.append(("a thread kept its tenant", current_tenant_or_none()))
        with tenant_scope(tenant), sync.tenant_session(tenant, fate == "read") as session:
            if (seen := session.scalars(SEEN).all()) != [tenant.slug]:
                wrong.append((tenant.slug, seen))
            if fate == "raise":
                raise Left
            if fate in {"break", "server-cancel", "cancel", "lose"}:
                session.execute({"break": BREAKS, "lose": LOST}.get(fate, CANCELLED))
            if fate == "nested":
                with session.begin_nested():
                    session.execute(BREAKS)

    def unbound():
        with sync.engine_for(tenants[0]) as engine, engine.begin() as connection:
            if (state := tuple(connection.execute(STATE).one())) != CLEAN:
                wrong.append(("unbound", state))

    def work(number):
        with lock:
            chosen = dice.random(), dice.choice(tenants), dice.choice(FATES)
        try:
            if chosen[0] < 0.2:
                unbound()
            else:
                bound(*chosen[1:])
        except (Left, DBAPIError) as error:
            ended[type(error).__name__] += 1
        else:
            ended["done"] += 1

    with ThreadPoolExecutor(8) as pool:
        await asyncio.to_thread(lambda: list(pool.map(work, range(TRANSACTIONS))))
    assert wrong == []
    assert sum(ended.values()) == TRANSACTIONS
    assert ended["done"] > TRANSACTIONS / 2
    assert ended["Left"] > 0
    assert len(ended) > 3, ended
    for _ in range(CONNECTIONS * 2):
        unbound()
    assert wrong == []
