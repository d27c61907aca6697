"""What a tenant sees under each pattern, and that nothing stays on a connection."""

import asyncio
import random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantry import Isolation

PATTERNS = [pytest.param(pattern, id=pattern) for pattern in Isolation]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_two_tenants_see_their_own(databases, shelf, tenant_factory, pattern):
    a, b = tenant_factory(isolation=pattern), tenant_factory(isolation=pattern)
    for tenant, title in ((a, "of A"), (b, "of B")):
        await shelf.provision(tenant)
        async with databases.tenant_session(tenant) as session:
            await shelf.add(session, tenant, title)
    for tenant, title in ((a, "of A"), (b, "of B")):
        async with databases.tenant_session(tenant) as session:
            assert await shelf.titles(session) == [title]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_a_row_of_another_tenant_is_refused(databases, shelf, tenant_factory, pattern):
    """Under schema and database as well: row level security is on everywhere."""
    a, b = tenant_factory(isolation=pattern), tenant_factory(isolation=pattern)
    await shelf.provision(a)
    with pytest.raises(DBAPIError, match="row-level security"):
        async with databases.tenant_session(a) as session:
            await shelf.add(session, b)


async def test_patterns_do_not_share_tables(databases, shelf, tenant_factory):
    tenants = [tenant_factory(isolation=pattern) for pattern in Isolation]
    for tenant in tenants:
        await shelf.provision(tenant)
        async with databases.tenant_session(tenant) as session:
            await shelf.add(session, tenant)
    async with databases.system_session() as session:
        assert await session.scalar(text("SELECT count(*) FROM pool.book")) == 1


async def test_a_service_that_does_not_follow_placements_has_one_pool(shelf, tenant_factory):
    await shelf.database.truncate()
    tenant = tenant_factory(isolation=Isolation.DATABASE)
    async with shelf.database.databases(follow_placement=False) as databases:
        async with databases.tenant_session(tenant) as session:
            await shelf.add(session, tenant)
        async with databases.system_session() as session:
            assert await shelf.titles(session) == ["A book"]


async def test_the_system_role_sees_all_and_an_unbound_service_role_nothing(databases, shelf, tenant_a, tenant_b):
    for tenant in (tenant_a, tenant_b):
        async with databases.tenant_session(tenant) as session:
            await shelf.add(session, tenant, tenant.slug)
    async with databases.system_session() as session:
        assert await shelf.titles(session) == ["tenant-a", "tenant-b"]
    async with databases.engine_for(tenant_a) as engine, engine.begin() as connection:
        assert (await connection.execute(text("SELECT * FROM pool.book"))).all() == []
        assert (await connection.execute(text("DELETE FROM pool.book"))).rowcount == 0
        with pytest.raises(DBAPIError, match="row-level security"):
            await connection.execute(
                text("INSERT INTO pool.book VALUES (:tenant, :tenant, 'x')"), {"tenant": tenant_a.id}
            )


async def test_the_owner_is_under_force(shelf, databases, tenant_a):
    async with databases.tenant_session(tenant_a) as session:
        await shelf.add(session, tenant_a)
    async with shelf.database.connect("migrator") as connection:
        await connection.execute("SET ROLE shelf_owner")
        assert await connection.fetch("SELECT * FROM pool.book") == []
        assert await connection.execute("UPDATE pool.book SET title = 'x'") == "UPDATE 0"


async def test_rows_written_once_stay(databases, shelf, tenant_a):
    async with databases.tenant_session(tenant_a) as session:
        book = await shelf.add(session, tenant_a)
        await session.execute(text("INSERT INTO loan VALUES (:t, :b, :b)"), {"t": tenant_a.id, "b": book})
    for statement in ("UPDATE pool.loan SET id = id", "DELETE FROM pool.loan", "TRUNCATE pool.loan"):
        for open_session in (lambda: databases.tenant_session(tenant_a), databases.system_session):
            with pytest.raises(DBAPIError, match="permission denied"):
                async with open_session() as session:
                    await session.execute(text(statement))


async def test_nothing_stays_on_a_pooled_connection(databases, shelf, tenant_factory):
    """Transactions of many tenants over two connections, some of which fail, are cancelled or only read."""
    tenants = [tenant_factory() for _ in range(8)]
    for tenant in tenants:
        async with databases.tenant_session(tenant) as session:
            await shelf.add(session, tenant, tenant.slug)
    chance = random.Random(20261121)  # noqa: S311 - a repeatable order, not a secret
    wrong = []

    async def bound(tenant, ending):
        async with databases.tenant_session(tenant, read_only=ending == "read") as session:
            seen = await shelf.titles(session)
            if seen != [tenant.slug]:
                wrong.append((tenant.slug, seen))
            match ending:
                case "fail":
                    await session.execute(text("SELECT 1 / 0"))
                case "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await session.execute(text("SELECT pg_sleep(10)"))
                case "raise":
                    raise RuntimeError

    async def unbound():
        async with databases.engine_for(tenants[0]) as engine, engine.begin() as connection:
            state = await connection.execute(
                text(
                    "SELECT count(*), coalesce(current_setting('app.tenant_id', true), ''), "
                    "current_setting('search_path'), current_setting('transaction_read_only') FROM pool.book"
                )
            )
            row = tuple(state.one())
            if row != (0, "", '""', "off"):
                wrong.append(("unbound", row))

    endings = ["commit", "commit", "read", "fail", "raise", "cancel"]
    work = [
        unbound() if chance.random() < 0.3 else bound(chance.choice(tenants), chance.choice(endings))
        for _ in range(240)
    ]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert wrong == []
    assert {type(outcome) for outcome in outcomes} == {type(None), DBAPIError, RuntimeError, asyncio.CancelledError}
    await unbound()
    assert wrong == []


async def test_reference_data_is_filled_by_the_service_itself_and_read_by_every_tenant(databases, tenant_a, tenant_b):
    async with databases.system_session() as session:
        await session.execute(text("INSERT INTO system.language VALUES ('en'), ('de')"))
    for tenant in (tenant_a, tenant_b):
        async with databases.tenant_session(tenant) as session:
            assert sorted(await session.scalars(text("SELECT code FROM system.language"))) == ["de", "en"]
    for statement in (
        "INSERT INTO system.language VALUES ('fr')",
        "UPDATE system.language SET code = 'fr'",
        "DELETE FROM system.language",
        "TRUNCATE system.language",
    ):
        with pytest.raises(DBAPIError) as refused:
            async with databases.tenant_session(tenant_a) as session:
                await session.execute(text(statement))
        assert getattr(refused.value.orig, "sqlstate", None) == "42501"
