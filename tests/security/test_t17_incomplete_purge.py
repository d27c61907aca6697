"""T17: a purge leaves nothing of the tenant, in no table, wherever it is killed, and touches nobody else."""

import gzip
import hashlib
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import UUID

import asyncpg
import msgspec
import pytest
from app_world import new_world
from obstore.store import LocalStore
from sqlalchemy import text

from app_service.models import CATALOGUE
from tenantry import Isolation, ManualClock, SystemClock, uuid7
from tenantry.database import DataCatalogue, Retention, TenantTable
from tenantry.events import LATER, Request
from tenantry.offboarding import (
    EXPORT,
    PURGE,
    ExportNotConfigured,
    OffboardingWorker,
    catalogue_digest,
    offboarding_handlers,
)
from tenantry.offboarding._places import Place
from tenantry.offboarding._plan import UnpurgeableTable, plan_place
from tenantry.offboarding._worker import RETRY_AFTER

CLOCK = SystemClock()
TABLES = set(CATALOGUE.tenant_tables)
BESIDE = {"idempotency_key", "procrastinate_jobs"}
"""With rows of tenants, and in the schemas of the service."""


@pytest.fixture(params=list(Isolation), ids=str)
async def world(request, service_database):
    world = new_world(service_database("app"), request.param)
    await world.build()
    return world


def request_of(tenant, kind=PURGE, key=None):
    data = {"idempotency_key": str(key or uuid7()), "tenant": msgspec.to_builtins(tenant)}
    return Request(request_id=uuid7(), kind=kind, services=("app",), tenant_id=tenant.id, data=data)


@asynccontextmanager
async def service(world, *, batch_rows=2, store=None, provisioner=True, catalogue=CATALOGUE, clock=CLOCK):
    async with world.databases() as databases:
        yield SimpleNamespace(
            databases=databases,
            handlers=offboarding_handlers(databases, catalogue, clock, exports=store is not None),
            worker=OffboardingWorker(
                databases,
                catalogue,
                clock,
                store=store,
                settings=world.database.settings() if provisioner else None,
                batch_rows=batch_rows,
            ),
        )


async def until_done(worker):
    turns = 0
    while await worker.turn():
        turns += 1
        assert turns < 500
    return turns


async def acks(world, tenant):
    async with world.database.connect() as connection:
        rows = await connection.fetch(
            "SELECT payload FROM system.outbox WHERE topic = 'tenant.acks.v1' AND tenant_id = $1", tenant.id
        )
    return [json.loads(row["payload"]) for row in rows]


async def rows_left(world, tenant):
    """Rows with the tenant's id in any table of any place that still exists."""
    found = {}
    async with world.database.connect() as connection:
        names = [row[0] for row in await connection.fetch("SELECT datname FROM pg_database")]
    databases = [world.database.name, *(name for name in names if tenant.id.hex in name)]
    for name in databases:
        connection = await asyncpg.connect(world.database.admin_url.rpartition("/")[0] + "/" + name)
        try:
            tables = await connection.fetch(
                "SELECT attrelid::regclass::text AS name FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
                "WHERE attname = 'tenant_id' AND relkind = 'r' AND relnamespace <> 'pg_catalog'::regnamespace"
            )
            for table in tables:
                count = await connection.fetchval(
                    f"SELECT count(*) FROM {table['name']} WHERE tenant_id = $1", tenant.id
                )
                if count:
                    found[f"{name}.{table['name']}"] = count
        finally:
            await connection.close()
    return {
        table: count
        for table, count in found.items()
        if not table.endswith(("offboarding_task", "system.outbox"))  # what was done, and the answer on its way
    }


def erased(result):
    return [table for table in result["tables"] if table["retention"] == "erase"]


async def plant_beside(world, tenant):
    """A kept answer and a queued job."""
    async with world.database.connect() as connection:
        await connection.execute(
            "INSERT INTO system.idempotency_key (tenant_id, credential, route, key, body_hash) "
            "VALUES ($1, 'c', 'r', 'k', '\\x00') ON CONFLICT DO NOTHING",
            tenant.id,
        )
        await connection.execute(
            "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args) "
            "VALUES ('tenants', 'write_export', jsonb_build_object('tenant_id', $1::text))",
            str(tenant.id),
        )


async def test_t17_nothing_is_left_and_nobody_else_is_touched(world):
    before = await world.fingerprint(world.b)
    await plant_beside(world, world.a)
    assert {table.rpartition(".")[2] for table in await rows_left(world, world.a)} == TABLES | BESIDE

    async with service(world) as app:
        wanted = request_of(world.a)
        assert await app.handlers[PURGE](wanted) is LATER
        await until_done(app.worker)
        again = await app.handlers[PURGE](wanted)

    assert await rows_left(world, world.a) == {}
    assert await world.fingerprint(world.b) == before
    assert all(digest for digest in before.values())
    answers = await acks(world, world.a)
    assert [(answer["request_id"], answer["outcome"]) for answer in answers] == [(str(wanted.request_id), "done")]
    result = answers[0]["result"]
    assert result == again
    assert result["catalogue_digest"] == catalogue_digest(CATALOGUE)
    counted = {each["table"].rpartition(".")[2]: each for each in erased(result) if each["rows_before"]}
    assert set(counted) == TABLES | BESIDE
    assert {each["rows_after"] for each in erased(result)} == {0}
    assert counted["file_chunk"]["rows_before"] == 4
    # What says that it was done stays, and the certificate says so.
    assert [each["table"] for each in result["exceptions"]] == ["system.offboarding_task"]


async def test_t17_killed_after_every_batch_it_goes_on(world):
    """Each turn is another process; every second one dies before its commit."""
    before = await world.fingerprint(world.b)
    async with service(world) as app:
        await app.handlers[PURGE](request_of(world.a))
    turns = 0
    while True:
        async with service(world) as app:
            turns += 1
            if turns % 2:
                die_before_the_commit(app.worker)
                try:
                    await app.worker.turn()
                except Killed:
                    continue
            elif not await app.worker.turn():
                break
        assert turns < 500

    assert await rows_left(world, world.a) == {}
    assert await world.fingerprint(world.b) == before
    (answer,) = await acks(world, world.a)
    assert {each["rows_after"] for each in erased(answer["result"])} == {0}
    assert sum(each["rows_before"] for each in erased(answer["result"])) == 2 + 4 + 4 + 1 + 2


class Killed(BaseException):
    """As a SIGKILL: nothing that the turn has done in its session is committed; what it did elsewhere is."""


def die_before_the_commit(worker):
    advance = worker._advance

    async def advance_and_die(session, task):
        await advance(session, task)
        raise Killed

    worker._advance = advance_and_die


async def test_t17_rows_that_come_in_while_it_runs_go_too(world):
    async with service(world, batch_rows=1) as app:
        await app.handlers[PURGE](request_of(world.a))
        open_tables = None
        while open_tables != 0:
            assert await app.worker.turn()
            async with world.database.connect() as connection:
                open_tables = await connection.fetchval(
                    "SELECT count(*) FILTER (WHERE rows_after IS NULL) FROM system.offboarding_table "
                    "JOIN system.offboarding_task ON id = task_id WHERE tenant_id = $1 HAVING count(*) > 0",
                    world.a.id,
                )
        await plant_beside(world, world.a)
        await until_done(app.worker)

    assert await rows_left(world, world.a) == {}


@pytest.mark.parametrize("world", [Isolation.DATABASE], indirect=True, ids=str)
async def test_t17_idle_connections_of_pools_do_not_keep_a_database(world):
    async with world.databases() as elsewhere:
        async with elsewhere.tenant_session(world.a, read_only=True) as session:
            assert await session.scalar(text("SELECT count(*) FROM document")) == 2
        async with service(world) as app:
            await app.handlers[PURGE](request_of(world.a))
            await until_done(app.worker)

    assert await rows_left(world, world.a) == {}


async def test_t17_whoever_asks_again_gets_the_same_answer(world):
    key = uuid7()
    async with service(world) as app:
        first, second = request_of(world.a, key=key), request_of(world.a, key=key)
        assert await app.handlers[PURGE](first) is LATER
        assert await app.handlers[PURGE](second) is LATER
        await until_done(app.worker)
        late = await app.handlers[PURGE](request_of(world.a, key=key))

    answers = await acks(world, world.a)
    assert {UUID(answer["request_id"]) for answer in answers} == {first.request_id, second.request_id}
    assert {json.dumps(answer["result"], sort_keys=True) for answer in answers} == {json.dumps(late, sort_keys=True)}


@pytest.mark.parametrize("world", [Isolation.SCHEMA, Isolation.DATABASE], indirect=True, ids=str)
async def test_t17_a_place_that_cannot_be_dropped_is_not_called_purged(world):
    async with service(world, provisioner=False) as app:
        await app.handlers[PURGE](request_of(world.a))
        for _ in range(20):
            await app.worker.turn()
        async with world.database.connect() as connection:
            state, error = await connection.fetchrow(
                "SELECT state, error FROM system.offboarding_task WHERE tenant_id = $1", world.a.id
            )

    assert (state, error.partition(":")[0]) == ("running", "no-provisioner")
    (answer,) = await acks(world, world.a)
    assert (answer["outcome"], answer["error_code"], answer["retryable"]) == ("failed", "no-provisioner", False)


@pytest.mark.parametrize("world", [Isolation.POOL], indirect=True, ids=str)
async def test_t17_a_purge_that_fails_unexpectedly_is_told_and_holds_up_no_other(world):
    async with world.database.connect() as connection:
        await connection.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no'; END $$;
            CREATE TRIGGER refuse BEFORE DELETE ON pool.document
                FOR EACH ROW WHEN (old.tenant_id = '{world.a.id}') EXECUTE FUNCTION refuse();
            """
        )
    clock, key = ManualClock(CLOCK.now()), uuid7()
    async with service(world, clock=clock) as app:
        await app.handlers[PURGE](request_of(world.a, key=key))
        await app.handlers[PURGE](request_of(world.b))
        await until_done(app.worker)

        (failed,) = await acks(world, world.a)
        assert (failed["outcome"], failed["error_code"], failed["retryable"]) == ("failed", "internal-error", True)
        assert failed["detail"] == "DBAPIError"  # what it says may quote a row
        assert [answer["outcome"] for answer in await acks(world, world.b)] == ["done"]
        assert await rows_left(world, world.b) == {}

        async with world.database.connect() as connection:
            await connection.execute("DROP TRIGGER refuse ON pool.document")
        assert await app.handlers[PURGE](request_of(world.a, key=key)) is LATER
        clock.advance(RETRY_AFTER)
        await until_done(app.worker)

    assert [answer["outcome"] for answer in await acks(world, world.a)] == ["failed", "done"]
    assert await rows_left(world, world.a) == {}


async def test_t17_a_request_about_another_tenant_than_its_document_is_refused(world):
    async with service(world) as app:
        wanted = msgspec.structs.replace(request_of(world.a), tenant_id=world.b.id)
        with pytest.raises(Exception, match="another tenant"):
            await app.handlers[PURGE](wanted)


async def test_t17_what_the_law_keeps_is_kept_and_said(service_database):
    world = new_world(service_database("app"), Isolation.SCHEMA)
    await world.build()
    catalogue = DataCatalogue(
        "app",
        [
            TenantTable(name, retention=Retention.STATUTE if name == "storage_total" else Retention.ERASE)
            for name in TABLES
        ],
    )
    async with service(world, catalogue=catalogue) as app:
        await app.handlers[PURGE](request_of(world.a))
        await until_done(app.worker)

    left = await rows_left(world, world.a)
    assert {name.rpartition(".")[2]: count for name, count in left.items()} == {"storage_total": 1}
    (answer,) = await acks(world, world.a)
    (exception,) = answer["result"]["exceptions"]
    assert (exception["reason"], exception["rows"]) == ("statute", 1)


@pytest.mark.parametrize(
    "table",
    [
        TenantTable("document", retention=Retention.PSEUDONYMISE),
        TenantTable("document", immutable=True),
        TenantTable("no_such_table"),
    ],
)
async def test_t17_a_promise_that_cannot_be_kept_is_found_before_a_row_is_gone(service_database, table):
    world = new_world(service_database("app"), Isolation.POOL)
    await world.build()
    before = await world.fingerprint(world.a)
    async with service(world, catalogue=DataCatalogue("app", [table])) as app:
        async with app.databases.system.connect() as connection:
            with pytest.raises(UnpurgeableTable):
                await plan_place(connection, DataCatalogue("app", [table]), world.a, Place("pool", None, "pool"))
        await app.handlers[PURGE](request_of(world.a))
        for _ in range(5):
            await app.worker.turn()
    assert await world.fingerprint(world.a) == before
    assert [answer["error_code"] for answer in await acks(world, world.a)] == ["unpurgeable-table"]


async def test_an_export_holds_every_row_and_says_so(world, tmp_path):
    await plant_beside(world, world.a)
    async with service(world, store=LocalStore(tmp_path)) as app:
        key = uuid7()
        await app.handlers[EXPORT](request_of(world.a, EXPORT, key))
        await until_done(app.worker)

    (answer,) = await acks(world, world.a)
    manifest = json.loads((tmp_path / answer["result"]["manifest"]).read_bytes())
    assert manifest["tenant_id"] == str(world.a.id)
    found = {}
    for table in manifest["tables"]:
        if not table["rows"]:
            continue
        name = table["table"].rpartition(".")[2]
        raw = (tmp_path / table["file"]).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == table["sha256"]
        lines = [json.loads(line) for line in gzip.decompress(raw).splitlines()]
        assert len(lines) == table["rows"]
        assert {line["tenant_id"] for line in lines} == {str(world.a.id)}
        found[name] = lines
    # No idempotency key, which is the service's own, and no copy of what is exported anyway.
    assert set(found) == TABLES - {"export_chunk"} | {"procrastinate_jobs"}
    assert world.canary(world.a) in found["document"][0]["title"]
    assert bytes.fromhex(found["file_chunk"][0]["data"][2:]).decode() == world.canary(world.a)
    everything = b"".join(gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.gz"))
    assert world.canary(world.b).encode() not in everything
    assert str(world.b.id).encode() not in everything


async def test_an_export_that_was_killed_is_the_same_in_the_end(world, tmp_path):
    async with service(world, store=LocalStore(tmp_path)) as app:
        await app.handlers[EXPORT](request_of(world.a, EXPORT))
        for _ in range(3):
            assert await app.worker.turn()
    async with service(world, store=LocalStore(tmp_path)) as app:
        die_before_the_commit(app.worker)
        with pytest.raises(Killed):
            await app.worker.turn()
    async with service(world, store=LocalStore(tmp_path)) as app:
        await until_done(app.worker)

    (answer,) = await acks(world, world.a)
    assert sum(each["rows"] for each in answer["result"]["tables"]) == 2 + 4 + 4 + 1 + 1


async def test_an_export_without_a_store_is_refused_with_the_reason(world):
    async with service(world) as app:
        with pytest.raises(ExportNotConfigured):
            await app.handlers[EXPORT](request_of(world.a, EXPORT))
