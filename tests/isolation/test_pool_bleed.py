"""Connections go from tenant to tenant: nothing of one may reach the next, however its request ended."""

import asyncio
import random

import pytest
from sqlalchemy import func, select, text

from app_service.models import Document

TRANSACTIONS = 400
CONNECTIONS = 3


class Interrupted(Exception):
    """What a request dies of in this test."""


@pytest.fixture
async def databases(world):
    async with world.databases(pool_size=CONNECTIONS, pool_overflow=0, tenant_connections=CONNECTIONS) as databases:
        yield databases


async def seen(session):
    return set(await session.scalars(select(Document.tenant_id).distinct()))


async def test_interleaved_transactions_see_their_own_tenant(world, databases):
    """Some are cancelled, some raise, some commit in the middle; the next on the connection must not notice."""
    outcome = {"done": 0, "cancelled": 0, "raised": 0}
    dice = random.Random(20261121)  # noqa: S311 (a seed, not a secret)

    async def work(tenant, fate):
        try:
            async with databases.tenant_session(tenant) as session:
                assert await seen(session) == {tenant.id}
                if fate == "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await session.execute(text("SELECT pg_sleep(5)"))
                if fate == "raise":
                    await session.execute(text("SELECT 1 / 0 FROM document"))
                if fate == "commit":
                    await session.commit()
                    assert await seen(session) == {tenant.id}
                if fate == "savepoint":
                    async with session.begin_nested():
                        await session.execute(text("SELECT 1"))
                await asyncio.sleep(0)
                assert await seen(session) == {tenant.id}
                if fate == "leave":
                    raise Interrupted  # noqa: TRY301 (it must leave through the session)
            outcome["done"] += 1
        except asyncio.CancelledError:
            outcome["cancelled"] += 1
        except AssertionError:
            raise
        except Exception:  # noqa: BLE001 (the fates above, and what they leave)
            outcome["raised"] += 1

    fates = ["", "", "", "cancel", "raise", "commit", "savepoint", "leave"]
    await asyncio.gather(*(work(dice.choice([world.a, world.b]), dice.choice(fates)) for _ in range(TRANSACTIONS)))
    assert sum(outcome.values()) == TRANSACTIONS
    assert all(count > TRANSACTIONS / 20 for count in outcome.values()), outcome
    for tenant in (world.a, world.b):
        async with databases.engine_for(tenant) as engine, engine.connect() as connection:
            unbound = await connection.scalar(text(f"SELECT count(*) FROM {world.schema(tenant)}.document"))
            assert unbound == 0
            assert (await connection.scalar(select(func.current_setting("app.tenant_id", True)))) in {None, ""}


async def test_a_session_is_of_one_tenant_for_life(world, databases):
    async with databases.tenant_session(world.a) as session:
        assert await seen(session) == {world.a.id}
        await session.commit()
        assert await seen(session) == {world.a.id}
        await session.rollback()
        assert await seen(session) == {world.a.id}


async def test_a_read_session_writes_nothing(world, databases):
    before = await world.fingerprint(world.a)
    with pytest.raises(Exception, match="read-only transaction"):
        async with databases.tenant_session(world.a, read_only=True) as session:
            await session.execute(text("UPDATE document SET title = 'changed'"))
    assert await world.fingerprint(world.a) == before


async def test_requests_of_two_tenants_at_once(product, world):
    """The same over HTTP, with clients that go away in the middle."""

    async def ask(tenant, patience):
        other = world.b if tenant is world.a else world.a
        request = product.client.get("/v1/documents", headers=product.headers(tenant))
        try:
            async with asyncio.timeout(patience):
                response = await request
        except TimeoutError:
            return 0
        assert response.status_code == 200, response.text
        assert response.json()["items"]
        assert not world.leaks(response, of=other)
        return 1

    dice = random.Random(7)  # noqa: S311 (a seed, not a secret)
    answered = await asyncio.gather(
        *(ask(dice.choice([world.a, world.b]), dice.choice([0.002, 10, 10])) for _ in range(120))
    )
    assert 40 <= sum(answered) <= 120
