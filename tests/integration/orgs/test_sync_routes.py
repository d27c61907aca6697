"""Routes of plain `def`: in threads that serve one tenant after another, and committed before they are answered."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from anyio.to_thread import current_default_thread_limiter
from orgs_product import Task
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool

from tenantry import (
    NoTenant,
    NotFound,
    SyncTenantSession,
    current_tenant,
    current_tenant_or_none,
    in_tenant_context,
    tenant_scope,
)


@pytest.fixture
async def four_threads():
    limiter = current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 4
    yield
    limiter.total_tokens = before


@pytest.fixture
def routes(product):
    """Adds routes to the product that runs."""
    return product.client._transport.app.router


async def test_requests_of_two_tenants_over_four_threads(product, routes, org_a, org_b, four_threads):
    """Two connections, four threads, two hundred requests, a third of which fail: nobody meets another's anything."""
    threads = set()

    @routes.get("/mixed/{number}")
    def mixed(number: int, fate: str, session: SyncTenantSession) -> dict[str, object]:
        threads.add(threading.get_ident())
        before = current_tenant().external_id
        seen = list(session.scalars(text("SELECT DISTINCT org_id FROM task")))
        if fate == "raise":
            raise NotFound
        if fate == "commit":
            session.commit()
        if fate == "fail":
            try:
                session.execute(text("SELECT 1 / 0"))
            except DBAPIError:
                raise NotFound from None
        seen += session.scalars(select(Task.org_id))
        return {"org": [before, current_tenant().external_id], "seen": sorted(set(seen)), "asked": number}

    at_once = asyncio.Semaphore(40)
    dice = random.Random(20261121)  # noqa: S311 - a repeatable order, not a secret

    async def ask(number):
        org = dice.choice([org_a, org_b])
        fate = dice.choice(["", "", "commit", "raise", "fail"])
        async with at_once:
            answer = await product.get(org, f"/mixed/{number}?fate={fate}")
        if fate in {"raise", "fail"}:
            assert answer.status_code == 404
        else:
            key = int(org.external_id)
            assert answer.json() == {"org": [org.external_id] * 2, "seen": [key], "asked": number}

    await asyncio.gather(*(ask(number) for number in range(200)))
    assert 1 < len(threads) <= 4
    assert {await run_in_threadpool(current_tenant_or_none) for _ in range(8)} == {None}


async def test_more_requests_than_threads_and_connections_do_not_block_each_other(product, routes, org_a, four_threads):
    """A thread that waits for a connection must not be the one that the holder of the connection needs."""

    @routes.get("/slow")
    def slow(session: SyncTenantSession) -> int:
        session.execute(text("SELECT pg_sleep(0.01)"))
        return session.scalar(text("SELECT count(*) FROM task"))

    async with asyncio.timeout(8):  # the pool gives up after ten
        answers = await asyncio.gather(*(product.get(org_a, "/slow") for _ in range(60)))
    assert [answer.json() for answer in answers] == [1] * 60


async def test_a_commit_that_fails_is_never_a_success(product, routes, org_a):
    @routes.post("/late")
    def late(session: SyncTenantSession) -> str:
        session.execute(text("CREATE TEMP TABLE late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"))
        session.execute(text("INSERT INTO late VALUES (1), (1)"))
        return "done"

    answer = await product.post(org_a, "/late")
    assert (answer.status_code, answer.json()["type"]) == (500, "internal-error")


async def test_the_tenant_follows_into_threads(org_a, org_b):
    def known():
        return current_tenant().external_id

    with ThreadPoolExecutor(1) as pool:
        with tenant_scope(org_a):
            assert await run_in_threadpool(known) == "41"
            assert await asyncio.to_thread(known) == "41"
            of_a = in_tenant_context(known)
            assert pool.submit(of_a).result() == "41"
        with tenant_scope(org_b):
            assert pool.submit(of_a).result() == "41", "it was asked for by A"
            assert pool.submit(in_tenant_context(known)).result() == "42"
        with pytest.raises(NoTenant):
            pool.submit(known).result()
        with pytest.raises(NoTenant):
            in_tenant_context(known)


async def test_one_wrapped_function_runs_in_many_threads_at_once(org_a):
    together = threading.Barrier(4, timeout=5)

    def known():
        together.wait()
        return current_tenant().id

    with ThreadPoolExecutor(4) as pool, tenant_scope(org_a):
        call = in_tenant_context(known)
        assert {future.result() for future in [pool.submit(call) for _ in range(4)]} == {org_a.id}
