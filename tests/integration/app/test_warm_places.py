"""Warm places: handed over once, at the head, whole; refilled by one at a time; nothing is lost to a kill."""

import asyncio
import os
import signal
import sys

import asyncpg
import pytest
from app_world import new_world
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app_service.models import CATALOGUE
from tenantry import Isolation
from tenantry.database import Places
from tenantry.database._url import sqlalchemy_url, with_database
from tenantry.testing import TenantFactory

OWN_PLACES = [Isolation.SCHEMA, Isolation.DATABASE]
HEAD = "0004_exports"


@pytest.fixture
async def app(service_database):
    """The database, without places that an earlier test has left warm."""
    database = service_database("app")
    await places_of(database, schemas=0, databases=0).refill()
    return database


def places_of(app, *, schemas=2, databases=1):
    return Places("app", app.settings(warm_schemas=schemas, warm_databases=databases))


async def ledger(app):
    async with app.connect() as connection:
        return await connection.fetch("SELECT name, isolation, state, revision FROM system.warm_place ORDER BY name")


async def ready_in(app):
    return [row["name"] for row in await ledger(app) if row["state"] == "ready"]


async def oid_of(connection, isolation, name):
    if isolation is Isolation.SCHEMA:
        return await connection.fetchval("SELECT oid FROM pg_namespace WHERE nspname = $1", name)
    return await connection.fetchval("SELECT oid FROM pg_database WHERE datname = $1", name)


def name_of(isolation, tenant):
    return f"t_{tenant.id.hex}" if isolation is Isolation.SCHEMA else f"app_t_{tenant.id.hex}"


async def test_the_pools_are_filled_to_their_sizes_and_emptied(app):
    assert await places_of(app).refill() == 3
    rows = await ledger(app)
    assert sorted((row["isolation"], row["state"]) for row in rows) == [
        ("database", "ready"),
        ("schema", "ready"),
        ("schema", "ready"),
    ]
    assert await places_of(app).refill() == 0
    assert await places_of(app, schemas=1, databases=0).refill() == 2
    assert len(await ledger(app)) == 1
    async with app.connect() as connection:
        for row in rows:
            if row["isolation"] == "database":
                assert await oid_of(connection, Isolation.DATABASE, row["name"]) is None


@pytest.mark.parametrize("isolation", OWN_PLACES, ids=str)
async def test_a_place_is_handed_over_and_holds_to_every_rule(app, isolation):
    places = places_of(app)
    await places.refill()
    world = new_world(app, isolation)
    warm = {row["name"] for row in await ledger(app) if row["isolation"] == isolation}
    async with app.connect() as connection:
        oids = {await oid_of(connection, isolation, name) for name in warm}
        if isolation is Isolation.DATABASE:
            app.owns_database_of(world.a.id)
        await places.provide(world.a.id, world.a.placement)
        assert await oid_of(connection, isolation, name_of(isolation, world.a)) in oids
    url = app.urls.system
    if isolation is Isolation.DATABASE:
        url = with_database(url, name_of(isolation, world.a))
    engine = create_async_engine(sqlalchemy_url(url))
    async with engine.connect() as connection:
        assert await CATALOGUE.audit(connection) == []
    await engine.dispose()
    await world._plant(world.a)
    assert (await world.fingerprint(world.a))["document"]


async def test_two_tenants_of_the_same_pool_do_not_see_each_other(app):
    """Each tenant's schema holds its own rows, and row level security holds inside a schema that was renamed."""
    places = places_of(app)
    await places.refill()
    world = new_world(app, Isolation.SCHEMA)
    for tenant in (world.a, world.b):
        await places.provide(tenant.id, tenant.placement)
        await world._plant(tenant)
    async with app.databases() as databases:
        for tenant, other in ((world.a, world.b), (world.b, world.a)):
            async with databases.tenant_session(tenant) as session:
                owners = await session.scalars(text("SELECT DISTINCT tenant_id FROM document"))
                assert list(owners) == [tenant.id]
            async with world.transaction(other, bound_to=tenant) as connection:
                assert await connection.fetch("SELECT * FROM document") == []
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                    await connection.execute(
                        "INSERT INTO storage_total (tenant_id, bytes, changed_at) VALUES ($1, 1, now())", other.id
                    )


@pytest.mark.parametrize("isolation", OWN_PLACES, ids=str)
async def test_many_at_once_never_get_the_same_place(app, isolation):
    places, make = places_of(app, schemas=3, databases=2), TenantFactory()
    await places.refill()
    tenants = [make(isolation=isolation) for _ in range(5)]
    for tenant in tenants:
        app.owns_database_of(tenant.id)
    replicas = [places_of(app) for _ in range(3)]
    # Each is asked for by three replicas at once, as after a rebalance.
    await asyncio.gather(*(each.provide(tenant.id, tenant.placement) for each in replicas for tenant in tenants))
    async with app.connect() as connection:
        oids = [await oid_of(connection, isolation, name_of(isolation, tenant)) for tenant in tenants]
    assert None not in oids
    assert len(set(oids)) == 5
    assert [row for row in await ledger(app) if row["isolation"] == isolation] == []


async def test_a_place_that_is_not_at_the_head_is_skipped_and_then_brought_there(app):
    places = places_of(app, schemas=1, databases=0)
    await places.refill()
    async with app.connect() as connection:
        await connection.execute("UPDATE system.warm_place SET revision = ''")
        (row,) = await ledger(app)
        # It was ready before the last migration, so it has not the tables of now.
        await connection.execute(f"DROP SCHEMA {row['name']} CASCADE")
        await connection.execute(f"CREATE SCHEMA {row['name']} AUTHORIZATION app_owner")
    world = new_world(app, Isolation.SCHEMA)
    await places.provide(world.a.id, world.a.placement)
    await world._plant(world.a)
    assert [each["name"] for each in await ledger(app)] == [row["name"]]
    assert await places.refill() == 1
    assert [(each["name"], each["state"], each["revision"]) for each in await ledger(app)] == [
        (row["name"], "ready", HEAD)
    ]
    await places.provide(world.b.id, world.b.placement)
    assert await ledger(app) == []


async def test_a_place_of_a_newer_version_is_left_alone(app):
    places = places_of(app, schemas=1, databases=0)
    await places.refill()
    async with app.connect() as connection:
        await connection.execute("UPDATE system.warm_place SET revision = '9999_from_the_future'")
    assert await places.refill() == 0
    world = new_world(app, Isolation.SCHEMA)
    await places.provide(world.a.id, world.a.placement)
    ((row),) = await ledger(app)
    assert (row["state"], row["revision"]) == ("ready", "9999_from_the_future")


async def test_a_database_that_somebody_looks_into_is_not_handed_over(app):
    places = places_of(app, schemas=0, databases=1)
    await places.refill()
    (row,) = await ledger(app)
    world = new_world(app, Isolation.DATABASE)
    app.owns_database_of(world.a.id)
    visitor = await asyncpg.connect(with_database(app.admin_url, row["name"]))
    try:
        await places.provide(world.a.id, world.a.placement)
    finally:
        await visitor.close()
    assert [each["name"] for each in await ledger(app)] == [row["name"]]


async def test_a_database_that_is_looked_into_is_dropped_another_time(app):
    await places_of(app, schemas=0, databases=1).refill()
    (row,) = await ledger(app)
    visitor = await asyncpg.connect(with_database(app.admin_url, row["name"]))
    try:
        await places_of(app, schemas=1, databases=0).refill()
    finally:
        await visitor.close()
    assert {(each["isolation"], each["state"]) for each in await ledger(app)} == {
        ("database", "dropping"),
        ("schema", "ready"),
    }
    await places_of(app, schemas=1, databases=0).refill()
    assert [each["isolation"] for each in await ledger(app)] == ["schema"]


async def test_the_ledger_and_the_server_are_reconciled(app):
    places = places_of(app, schemas=1, databases=1)
    await places.refill()
    lost = {row["isolation"]: row["name"] for row in await ledger(app)}
    async with app.connect() as connection:
        await connection.execute("DELETE FROM system.warm_place")  # a ledger from an old backup
        await connection.execute(
            "INSERT INTO system.warm_place (name, isolation, state, revision)"
            f" VALUES ('w_{'0' * 32}', 'schema', 'ready', '{HEAD}')"
        )
        await places.refill()
        assert await oid_of(connection, Isolation.SCHEMA, lost["schema"]) is None
        assert await oid_of(connection, Isolation.DATABASE, lost["database"]) is None
    rows = await ledger(app)
    assert sorted((row["isolation"], row["state"]) for row in rows) == [("database", "ready"), ("schema", "ready")]
    assert not {row["name"] for row in rows} & {*lost.values(), f"w_{'0' * 32}"}


async def test_one_refills_at_a_time(app):
    done = await asyncio.gather(*(places_of(app, schemas=2, databases=0).refill() for _ in range(4)))
    assert sorted(done) == [0, 0, 0, 2] or sum(done) == 2
    assert len(await ledger(app)) == 2


@pytest.mark.parametrize("isolation", OWN_PLACES, ids=str)
async def test_killed_refillers_leak_nothing(app, isolation):
    """SIGKILL at moments all over the making of a place; the next refiller goes on with what it finds."""
    sizes = {"schemas": 2, "databases": 0} if isolation is Isolation.SCHEMA else {"schemas": 0, "databases": 1}
    settings = app.settings(warm_schemas=sizes["schemas"], warm_databases=sizes["databases"])
    program = (
        "import asyncio, sys\n"
        "from tenantry.database import DatabaseSettings, Places\n"
        "places = Places('app', DatabaseSettings(database_url=sys.argv[1], provisioner_database_url=sys.argv[1],\n"
        "                                        warm_schemas=int(sys.argv[2]), warm_databases=int(sys.argv[3])))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "asyncio.run(places.refill())\n"
        "print('done', flush=True)\n"
    )
    killed = 0
    for milliseconds in (10, 30, 60, 100, 160, 250):
        await places_of(app, schemas=0, databases=0).refill()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, settings.provisioner_database_url,
            str(settings.warm_schemas), str(settings.warm_databases),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.stdin.write(b"\n")
        await process.stdin.drain()
        await asyncio.sleep(milliseconds / 1000)  # the moment of death, not a wait for anything
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        rest, _ = await process.communicate()
        killed += b"done" not in rest
        left = {row["name"] for row in await ledger(app)}
        async with asyncio.timeout(30):  # the dead one's lock goes when the server notices
            while len([row for row in await ledger(app) if row["state"] == "ready"]) < sum(sizes.values()):
                await places_of(app, **sizes).refill()
        names = {row["name"] for row in await ledger(app)}
        assert left <= names, "what was begun is finished, not made again"
        async with app.connect() as connection:
            schemas = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'w\\_%'")
            databases = await connection.fetch(
                "SELECT datname FROM pg_database WHERE shobj_description(oid, 'pg_database') = $1",
                f"warm place of {app.name}",
            )
        assert {row[0] for row in (*schemas, *databases)} == names
    assert killed >= 2


async def test_a_worker_refills_after_a_hand_over(app):
    places = places_of(app, schemas=1, databases=0)
    keeper = asyncio.create_task(places.keep_warm())
    try:
        world = new_world(app, Isolation.SCHEMA)
        taken = set()
        for tenant in (world.a, world.b):
            async with asyncio.timeout(15):
                while not (ready := await ready_in(app)):  # noqa: ASYNC110 - rows of a table
                    await asyncio.sleep(0.01)
            taken.update(ready)
            await places.provide(tenant.id, tenant.placement)
        assert len(taken) == 2
    finally:
        keeper.cancel()
