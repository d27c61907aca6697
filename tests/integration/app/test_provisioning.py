"""The places of tenants: made once, however often and by however many they are asked for."""

import asyncio
import subprocess
import sys

import asyncpg
import pytest
from app_world import new_world
from sqlalchemy.exc import DBAPIError

from app_service.models import CATALOGUE
from tenantry import Isolation, uuid7
from tenantry.database import Places, tenant_schema

OWN_PLACES = [Isolation.SCHEMA, Isolation.DATABASE]


@pytest.fixture
def app(service_database):
    return service_database("app")


@pytest.fixture
def place(app):
    """Two tenants of an isolation, not provisioned yet."""

    def make(isolation):
        world = new_world(app, isolation)
        if isolation is Isolation.DATABASE:
            app.owns_database_of(world.a.id)
            app.owns_database_of(world.b.id)
        return world

    return make


def places_of(app, **changes):
    return Places("app", app.settings(**changes))


async def tables(world, tenant):
    connection = await world.connect(tenant, role="system")
    try:
        rows = await connection.fetch(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'",
            world.schema(tenant),
        )
    finally:
        await connection.close()
    return {row["relname"] for row in rows} - {"alembic_version"}


async def test_a_tenant_of_the_pool_needs_nothing(app, place):
    world = place(Isolation.POOL)
    await places_of(app, provisioner_database_url=None).provide(world.a.id, world.a.placement)
    assert await tables(world, world.a) == set(CATALOGUE.tenant_tables)


@pytest.mark.parametrize("isolation", OWN_PLACES, ids=str)
async def test_provisioning_may_be_repeated_and_raced(app, place, isolation):
    world = place(isolation)
    places = places_of(app)
    await asyncio.gather(*(places.provide(world.a.id, world.a.placement) for _ in range(3)))
    assert await tables(world, world.a) == set(CATALOGUE.tenant_tables)
    async with world.transaction(world.a, bound_to=world.a) as connection:
        assert await connection.fetch("SELECT * FROM document") == []
    await places.provide(world.a.id, world.a.placement)
    assert await tables(world, world.a) == set(CATALOGUE.tenant_tables)


@pytest.mark.parametrize("isolation", OWN_PLACES, ids=str)
async def test_data_survives_a_repetition(app, place, isolation):
    world = place(isolation)
    await world.build()
    before = await world.fingerprint(world.a)
    await places_of(app).provide(world.a.id, world.a.placement)
    assert await world.fingerprint(world.a) == before


@pytest.mark.parametrize("isolation", OWN_PLACES, ids=str)
async def test_a_killed_attempt_is_finished_by_the_next(app, place, isolation):
    """SIGKILL after 0 to 200 ms of work, at a new tenant each time."""
    program = (
        "import asyncio, sys, uuid\n"
        "from tenantry import Isolation, Placement\n"
        "from tenantry.database import DatabaseSettings, Places\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "places = Places('app', DatabaseSettings(database_url=sys.argv[1], provisioner_database_url=sys.argv[1]))\n"
        "placement = Placement('primary', Isolation(sys.argv[3]))\n"
        "asyncio.run(places.provide(uuid.UUID(sys.argv[2]), placement))\n"
        "print('done', flush=True)\n"
    )
    killed = 0
    for milliseconds in (0, 5, 15, 30, 50, 80, 120, 200):
        world = place(isolation)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, app.urls.provisioner, str(world.a.id), isolation.value,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.stdin.write(b"\n")
        await process.stdin.drain()
        await asyncio.sleep(milliseconds / 1000)  # the moment of death, not a wait for anything
        if process.returncode is None:
            process.kill()
        rest, _ = await process.communicate()
        killed += b"done" not in rest
        await places_of(app).provide(world.a.id, world.a.placement)
        assert await tables(world, world.a) == set(CATALOGUE.tenant_tables)
    assert killed >= 2


async def test_the_provisioner_leaves_no_connection(app, place):
    for isolation in OWN_PLACES:
        world = place(isolation)
        await places_of(app).provide(world.a.id, world.a.placement)
    async with app.connect() as connection:
        open_connections = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_provisioner' AND datname LIKE $1 || '%'",
            app.name,
        )
    assert open_connections == 0


async def test_the_service_role_makes_no_place(app, place):
    for isolation in OWN_PLACES:
        world = place(isolation)
        with pytest.raises(Exception, match=r"permission denied|must be able to SET ROLE"):
            await places_of(app, provisioner_database_url=app.urls.service).provide(world.a.id, world.a.placement)
    async with app.connect() as connection:
        assert not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", tenant_schema(uuid7()))


async def test_a_tenant_without_its_place_is_an_error_and_nobody_elses_rows(app, place):
    """The schema of an unprovisioned tenant does not exist: the bind refuses, instead of falling back to the pool."""
    world = place(Isolation.SCHEMA)
    async with app.databases() as databases:
        with pytest.raises(DBAPIError, match="does not exist") as refused:
            async with databases.tenant_session(world.a) as session:
                await session.connection()
    assert refused.value.orig is not None
    assert isinstance(refused.value.orig.__cause__, asyncpg.InvalidSchemaNameError)
