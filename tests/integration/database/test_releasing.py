"""Places that are taken back: whole, once, and never under somebody's feet."""

import asyncio

import asyncpg
import pytest

from tenantry import Isolation, uuid7
from tenantry.database import PlaceInUse, create_tenant_database, migrate, release_place, tenant_database, tenant_schema


@pytest.fixture(scope="module")
def app(service_database):
    return service_database("app")


async def make(app, tenant_id, isolation):
    if isolation is Isolation.SCHEMA:
        await migrate(app.urls.provisioner, "app", schema=tenant_schema(tenant_id))
    else:
        app.owns_database_of(tenant_id)
        await migrate(await create_tenant_database(app.urls.provisioner, "app", tenant_id), "app")


async def there(app, tenant_id):
    async with app.connect() as connection:
        return await connection.fetchval(
            "SELECT to_regnamespace($1) IS NOT NULL OR EXISTS (SELECT FROM pg_database WHERE datname = $2)",
            tenant_schema(tenant_id),
            tenant_database("app", tenant_id),
        )


@pytest.mark.parametrize("isolation", [Isolation.SCHEMA, Isolation.DATABASE])
async def test_a_place_is_taken_back_with_everything_in_it_once(app, isolation):
    tenant_id, other = uuid7(), uuid7()
    await make(app, tenant_id, isolation)
    await make(app, other, isolation)
    assert await there(app, tenant_id)
    dropped = await asyncio.gather(
        *(release_place(app.urls.provisioner, "app", tenant_id, isolation) for _ in range(3))
    )
    assert sorted(dropped) == [False, False, True]
    assert not await there(app, tenant_id)
    assert await there(app, other)
    # Whoever comes back is given a new one.
    await make(app, tenant_id, isolation)
    assert await there(app, tenant_id)


async def test_what_was_never_made_and_the_pool_need_nothing(app):
    for isolation in Isolation:
        assert await release_place(app.urls.provisioner, "app", uuid7(), isolation) is False


async def test_a_database_that_somebody_uses_stays(app):
    tenant_id = uuid7()
    await make(app, tenant_id, Isolation.DATABASE)
    url = await create_tenant_database(app.urls.provisioner, "app", tenant_id)
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(PlaceInUse):
            await release_place(app.urls.provisioner, "app", tenant_id, Isolation.DATABASE)
        assert await there(app, tenant_id)
    finally:
        await connection.close()


async def test_only_the_provisioner_may(app):
    tenant_id = uuid7()
    await make(app, tenant_id, Isolation.SCHEMA)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await release_place(app.urls.service, "app", tenant_id, Isolation.SCHEMA)
    assert await there(app, tenant_id)
