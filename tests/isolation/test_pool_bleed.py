"""Connections go from tenant to tenant: nothing of one may reach the next, however its request ended."""

import asyncio
import random

import pytest
from sqlalchemy import select, text

from app_service.models import Document
from tenantry import Isolation
from tenantry.testing import sweep_pool

TRANSACTIONS = 400
CONNECTIONS = 3


@pytest.fixture
async def databases(world):
    sizes = dict.fromkeys(("pool_size", "tenant_connections", "tenant_pool_size"), CONNECTIONS)
    async with world.databases(**sizes, pool_overflow=0, pool_timeout_seconds=60) as databases:
        yield databases


async def seen(session):
    return set(await session.scalars(select(Document.tenant_id).distinct()))


async def test_interleaved_transactions_see_their_own_tenant(world, databases):
    """Some are cancelled, some raise, some commit in the middle; the next on the connection must not notice."""
    # In a database of its own a tenant has its connections for itself, so there each is swept alone.
    groups = [[world.a], [world.b]] if world.isolation is Isolation.DATABASE else [[world.a, world.b]]
    for tenants in groups:
        await sweep_pool(
            databases, tenants, table="document", transactions=TRANSACTIONS, connections=CONNECTIONS, at_once=20
        )


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
