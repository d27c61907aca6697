"""Tenants on a second store: their rows are in that database and in no other, whatever their isolation."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from app_product import run_product
from broker import open_broker
from sqlalchemy import text
from typer.testing import CliRunner

from app_service.models import CATALOGUE
from tenantry import Conflict, Isolation, ResidencyViolation, StartupRefused, uuid7
from tenantry.cli._main import app as command_line
from tenantry.database import (
    Places,
    StoreUrls,
    UnknownStore,
    UnsafeRole,
    create_service_database,
    migrate,
    tenant_database,
    tenant_schema,
)
from tenantry.database._url import with_database
from tenantry.events import (
    PROVISION_TENANT,
    KafkaDirectory,
    KafkaSettings,
    NotRelayed,
    OutboxEvent,
    Request,
    append_outbox,
    append_outbox_many,
    place_handlers,
    relay_stores,
)
from tenantry.testing import eventually
from tenantry.testing._databases import PASSWORD, ROLES, drop_databases, run_aside

STORE = "eu-2"


@pytest.fixture(scope="module")
def app(service_database):
    return service_database("app")


@pytest.fixture(scope="module")
def second(app):
    """The service's database in the second store, at the head."""

    async def create():
        urls = await create_service_database(
            app.admin_url, "app", dict.fromkeys(ROLES, PASSWORD), name=f"{app.name}_second"
        )
        await migrate(urls.migrator, "app")
        return urls

    yield run_aside(create())
    run_aside(drop_databases(app.admin_url, f"{app.name}_second"))


def stores(second):
    urls = StoreUrls(
        database_url=second.service,
        system_database_url=second.system,
        migrator_database_url=second.migrator,
        provisioner_database_url=second.provisioner,
    )
    return {"stores": {STORE: urls}}


async def count_documents(url, schema):
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass($1) IS NULL", f"{schema}.document"):
            return None
        return await connection.fetchval(f"SELECT count(*) FROM {schema}.document")
    finally:
        await connection.close()


@pytest.mark.parametrize("isolation", Isolation, ids=str)
@pytest.mark.parametrize("warm", [False, True], ids=["on-the-spot", "warm"])
async def test_rows_of_a_tenant_are_in_its_store(app, second, tenant_factory, isolation, warm):
    tenant = tenant_factory(isolation=isolation, store=STORE)
    app.owns_database_of(tenant.id)
    places = Places("app", app.settings(**stores(second), warm_schemas=int(warm), warm_databases=int(warm)))
    await places.refill()
    await places.provide(tenant.id, tenant.placement)
    schema = tenant_schema(tenant.id) if isolation is Isolation.SCHEMA else "pool"
    admin_of = {name: with_database(app.admin_url, name) for name in (app.name, f"{app.name}_second")}
    before = await count_documents(admin_of[app.name], schema)
    async with app.databases(**stores(second)) as databases:
        async with databases.tenant_session(tenant) as session:
            await session.execute(
                text(
                    "INSERT INTO document (tenant_id, id, title, body, tags, version, created_at, updated_at)"
                    " VALUES (:tenant_id, :id, 'x', 'y', '{}', 1, now(), now())"
                ),
                {"tenant_id": tenant.id, "id": uuid7()},
            )
        async with databases.tenant_session(tenant, read_only=True) as session:
            assert await session.scalar(text("SELECT count(*) FROM document")) == 1
    home = admin_of[f"{app.name}_second"]
    if isolation is Isolation.DATABASE:
        home = with_database(app.admin_url, tenant_database("app", tenant.id))
    assert await count_documents(home, schema) >= 1
    assert await count_documents(admin_of[app.name], schema) == before
    await Places("app", app.settings(**stores(second), warm_schemas=0, warm_databases=0)).refill()


async def test_a_tenant_on_an_unknown_store_is_served_from_nowhere(app, second, tenant_factory, tmp_path):
    lost, home = tenant_factory(store="nowhere"), tenant_factory(store="primary")
    async with run_product(app, [lost, home], tmp_path, **stores(second)) as product:
        answer = await product.client.get("/v1/documents", headers=product.headers(lost))
        assert (answer.status_code, answer.json()["type"]) == (503, "store-unknown")
        assert app.name not in answer.text
        assert (await product.client.get("/v1/documents", headers=product.headers(home))).status_code == 200
        with pytest.raises(UnknownStore):
            async with product.tenancy.databases.tenant_session(lost):
                pass
        with pytest.raises(UnknownStore), product.tenancy.databases.sync.tenant_session(lost) as session:
            session.connection()


@pytest.mark.parametrize("isolation", Isolation, ids=str)
async def test_a_request_for_an_unknown_store_fails_with_a_reason_and_blocks_no_other(app, isolation):
    handlers = place_handlers(Places("app", app.settings()), KafkaDirectory(KafkaSettings()))
    data = {"placement": {"store": "nowhere", "isolation": isolation, "epoch": 1}}
    request = Request(request_id=uuid7(), kind=PROVISION_TENANT, services=("app",), tenant_id=uuid7(), data=data)
    with pytest.raises(Conflict) as refused:
        await handlers[PROVISION_TENANT](request)
    assert refused.value.type == "store-unknown"


async def test_every_store_is_checked_for_roles_that_could_look_past_the_policies(app, second):
    dangerous = StoreUrls(database_url=with_database(app.admin_url, f"{app.name}_second"))
    async with app.databases(stores={STORE: dangerous}) as databases:
        with pytest.raises(UnsafeRole):
            await databases.verify_roles()
    async with app.databases(**stores(second)) as databases:
        await databases.verify_roles()
        assert databases.stores == (None, STORE)
        async with databases.system_session(STORE) as session:
            assert await session.scalar(text("SELECT current_database()")) == f"{app.name}_second"


def test_migrate_covers_every_store(app, monkeypatch):
    name = f"{app.name}_third"
    urls = run_aside(create_service_database(app.admin_url, "app", dict.fromkeys(ROLES, PASSWORD), name=name))
    try:
        monkeypatch.setenv("APP_MIGRATOR_DATABASE_URL", app.urls.migrator)
        monkeypatch.setenv("APP_STORES", json.dumps({"third": {"migrator_database_url": urls.migrator}}))
        done = CliRunner().invoke(command_line, ["migrate", "--service", "app"])
        assert done.exit_code == 0, done.output
        assert "app: nothing to do" in done.output
        assert "app in third: 0001_backbone" in done.output.replace("\n", " ")
        assert asyncio.run(count_documents(with_database(app.admin_url, name), "pool")) == 0
    finally:
        run_aside(drop_databases(app.admin_url, name))


async def test_a_second_store_holds_to_every_rule(app, second):
    async with app.databases(**stores(second)) as databases, databases.system_session(STORE) as session:
        assert await CATALOGUE.audit(await session.connection()) == []


async def test_a_tenant_of_another_region_is_refused_at_every_door(app, tenant_factory, tmp_path):
    home, elsewhere, anywhere = tenant_factory(region="eu"), tenant_factory(region="us"), tenant_factory()
    async with run_product(app, [home, elsewhere, anywhere], tmp_path, region="eu") as product:
        for tenant in (home, anywhere):
            answer = await product.client.get("/v1/documents", headers=product.headers(tenant))
            assert answer.status_code == 200
        answer = await product.client.get("/v1/documents", headers=product.headers(elsewhere))
        assert (answer.status_code, answer.json()["type"]) == (403, "residency-violation")
        with pytest.raises(ResidencyViolation):
            async with product.tenancy.databases.engine_for(elsewhere):
                pass
        with pytest.raises(ResidencyViolation), product.tenancy.databases.sync.tenant_session(elsewhere) as session:
            session.connection()


EVENT: dict[str, Any] = {"topic": "tenant.acks.v1", "type": "t.v1", "data": {"a": 1}, "version": 1}


@pytest.fixture
async def kafka(kafka_bootstrap, kafka_prefix):
    async with open_broker(kafka_bootstrap, kafka_prefix) as broker:
        yield broker


@pytest.mark.parametrize("isolation", [Isolation.POOL, Isolation.SCHEMA], ids=str)
async def test_events_of_a_tenant_in_another_store_are_published_from_there(
    app, second, tenant_factory, isolation, kafka
):
    here, there = tenant_factory(), tenant_factory(isolation=isolation, store=STORE)
    key = f"key-{isolation}"
    async with app.databases(**stores(second)) as databases:
        await Places("app", app.settings(**stores(second))).provide(there.id, there.placement)
        for tenant in (here, there):
            async with databases.tenant_session(tenant) as session:
                await append_outbox(session, key=f"{key} {tenant.id}", tenant_id=tenant.id, **EVENT)
        relaying = asyncio.create_task(relay_stores("app", databases, kafka.settings))
        try:

            async def published():
                keys = {record.key.decode() for record in await kafka.read("tenant.acks.v1")}
                return {f"{key} {here.id}", f"{key} {there.id}"} <= keys

            async def deleted():
                return sum([await outbox_rows(databases, store) for store in databases.stores]) == 0

            await eventually(published, within=60)
            # Rows are deleted after they are published; a relay that is ended in between publishes them again.
            await eventually(deleted)
        finally:
            relaying.cancel()
            await asyncio.wait([relaying])


async def outbox_rows(databases, store):
    async with databases.system_session(store) as session:
        return await session.scalar(text("SELECT count(*) FROM system.outbox"))


async def test_an_event_that_nobody_would_publish_is_refused_before_it_is_written(app, second, tenant_factory):
    tenant = tenant_factory(isolation=Isolation.DATABASE, store=STORE)
    async with app.databases(**stores(second)) as databases:
        await Places("app", app.settings(**stores(second))).provide(tenant.id, tenant.placement)
        app.owns_database_of(tenant.id)
        event = OutboxEvent(key="k", tenant_id=tenant.id, **EVENT)
        for append in (
            lambda session: append_outbox(session, key="k", tenant_id=tenant.id, **EVENT),
            lambda session: append_outbox_many(session, [event]),
        ):
            with pytest.raises(NotRelayed, match="own database"):
                async with databases.tenant_session(tenant) as session:
                    await append(session)
        url = with_database(second.provisioner, tenant_database("app", tenant.id))
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetchval("SELECT count(*) FROM system.outbox") == 0
        finally:
            await connection.close()


async def test_a_relay_that_cannot_reach_a_store_does_not_start(app, second, kafka):
    without = {"stores": {STORE: StoreUrls(database_url=second.service)}}
    async with app.databases(**without) as databases:
        with pytest.raises(StartupRefused, match=STORE):
            await relay_stores("app", databases, kafka.settings)
