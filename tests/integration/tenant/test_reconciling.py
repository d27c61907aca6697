"""What is broken by hand is found, repaired where that is safe, and raised where it is not."""

import asyncio
import itertools
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from tests.integration.tenant.fleet import Fleet

from tenant_service.domain.findings import FindingCode
from tenant_service.domain.saga import AckOutcome, RunKind, RunState
from tenant_service.publication import TENANT_STATE
from tenant_service.reconciling.repository import store_reports
from tenant_service.runs.requests import Ack
from tenantry import Isolation, Placement, uuid7
from tenantry.database import tenant_schema
from tenantry.events import KafkaSettings, create_topics
from tenantry.testing import eventually

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
async def fleet(service_database, kafka_bootstrap, kafka_prefix):
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    await create_topics(kafka)
    async with Fleet.start(service_database("tenant"), service_database("app"), kafka) as fleet:
        yield fleet


def codes(findings):
    return sorted(finding.code for finding in findings)


async def history(fleet, tenant_id):
    """Codes of what was found and is over."""
    return codes(await fleet.findings(tenant_id, is_open=False))


async def has_schema(fleet, tenant_id):
    async with fleet.app_database.connect() as connection:
        return await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", tenant_schema(tenant_id))


async def test_nothing_is_found_where_nothing_is_wrong(fleet):
    tenants = [await fleet.tenant(isolation) for isolation in Isolation]
    versions = [tenant.version for tenant in tenants]
    assert codes(await fleet.reconcile()) == []
    assert [(await fleet.get(tenant.id)).version for tenant in tenants] == versions
    assert [await history(fleet, tenant.id) for tenant in tenants] == [[], [], []]


async def test_a_schema_that_was_dropped_by_hand_is_made_again(fleet):
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')

    assert codes(await fleet.reconcile(tenant.id)) == []

    assert await has_schema(fleet, tenant.id)
    assert await history(fleet, tenant.id) == [FindingCode.PLACE_MISSING]
    (run,) = await fleet.runs(tenant.id, RunKind.REPAIR)
    assert run.row.state is RunState.SUCCEEDED
    (finding,) = await fleet.findings(tenant.id, is_open=False)
    assert (finding.service, finding.run_id) == ("app", run.row.id)
    assert (await fleet.audit(tenant.id))[-1] == "reconcile.provision"


async def test_more_missing_places_than_an_accident_makes_are_left_to_somebody(fleet):
    """Empty schemas would hide that a whole database is gone, or that a URL is wrong."""
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    assert codes(await fleet.reconcile(tenant.id, missing_places=0)) == [FindingCode.PLACE_MISSING]
    assert not await has_schema(fleet, tenant.id)
    assert await fleet.runs(tenant.id, RunKind.REPAIR) == []
    assert codes(await fleet.reconcile(tenant.id)) == []


async def test_a_dry_run_says_what_is_wrong_and_changes_nothing(fleet):
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    fleet.directory.directory.forget(tenant.id)

    found = await fleet.reconcile(tenant.id, repair=False)

    assert codes(found) == [FindingCode.TENANT_UNKNOWN]
    assert (await fleet.get(tenant.id)).version == tenant.version
    assert not await has_schema(fleet, tenant.id)
    # Known again, it has a place to miss.
    assert codes(await fleet.reconcile(tenant.id)) == []
    assert await history(fleet, tenant.id) == [FindingCode.PLACE_MISSING, FindingCode.TENANT_UNKNOWN]


async def send(fleet, key, value=None, headers=()):
    async with AIOKafkaProducer(**fleet.kafka.client_options(), acks="all") as producer:
        await producer.send_and_wait(fleet.kafka.topic(TENANT_STATE), key=key, value=value, headers=list(headers))


async def test_a_record_that_somebody_deleted_is_published_again(fleet):
    tenant = await fleet.tenant()
    await send(fleet, str(tenant.id).encode())
    await eventually(lambda: fleet.directory.directory.is_purged(tenant.id))

    assert codes(await fleet.reconcile(tenant.id)) == []

    known = fleet.directory.directory.get(tenant.id)
    assert known == await fleet.get(tenant.id)
    assert known.version == tenant.version + 1
    assert not fleet.directory.directory.is_purged(tenant.id)
    assert FindingCode.TOPIC_STALE in await history(fleet, tenant.id)
    assert (await fleet.audit(tenant.id)).count("reconcile.republish") == 1


async def test_a_tombstone_that_the_service_wrote_itself_is_believed(fleet):
    """The database may have been set back to before a purge: nobody revives the tenant by himself."""
    tenant = await fleet.tenant()
    version = str(tenant.version + 1).zfill(19).encode()
    await send(fleet, str(tenant.id).encode(), headers=[("ce_sequence", version)])
    await eventually(lambda: fleet.directory.directory.is_purged(tenant.id))

    for _ in range(3):
        found = await fleet.reconcile(tenant.id)
        assert codes(found) == [FindingCode.TENANT_UNKNOWN, FindingCode.TOPIC_AHEAD]
    assert (await fleet.get(tenant.id)).version == tenant.version
    assert fleet.directory.directory.is_purged(tenant.id)
    async with fleet.tenant_database.connect() as connection:
        await connection.execute(
            "UPDATE system.tenant SET status = 'purged', store = NULL, version = version + 1 WHERE id = $1", tenant.id
        )
        await connection.execute("UPDATE system.store SET tenants = tenants - 1")
    assert codes(await fleet.reconcile(tenant.id)) == []


async def test_a_service_that_is_behind_is_told_again(fleet):
    tenant = await fleet.tenant()
    local = fleet.directory.directory
    old = msgspec.structs.replace(tenant, version=tenant.version - 1, name="Old")
    local.forget(tenant.id)
    local.upsert(old)

    assert codes(await fleet.reconcile(tenant.id)) == []

    assert local.get(tenant.id) == await fleet.get(tenant.id)
    assert await history(fleet, tenant.id) == [FindingCode.TENANT_BEHIND]


async def test_a_service_that_knows_the_version_otherwise_is_told_a_new_one(fleet):
    tenant = await fleet.tenant()
    local = fleet.directory.directory
    local.forget(tenant.id)
    local.upsert(msgspec.structs.replace(tenant, read_only=True))

    assert codes(await fleet.reconcile(tenant.id)) == []

    assert local.get(tenant.id) == await fleet.get(tenant.id)
    assert not local.get(tenant.id).read_only
    assert await history(fleet, tenant.id) == [FindingCode.TENANT_DIFFERS]


async def test_an_orphaned_schema_is_raised_kept_and_closed_when_it_is_gone(fleet):
    nobody = uuid7()
    await fleet.places.provide(nobody, Placement("primary", Isolation.SCHEMA))

    for _ in range(2):
        (finding,) = await fleet.reconcile()
        assert (finding.code, finding.service, finding.tenant_id) == (FindingCode.PLACE_ORPHANED, "app", nobody)
        assert await has_schema(fleet, nobody)
    assert finding.repaired_at is None
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(nobody)}" CASCADE')
    assert codes(await fleet.reconcile()) == []
    assert await history(fleet, nobody) == [FindingCode.PLACE_ORPHANED]


async def test_the_database_of_another_installation_is_none_of_ours(fleet):
    """Two installations share a server, and with it the names of roles."""
    ours, theirs = uuid7(), uuid7()
    for tenant_id in (ours, theirs):
        fleet.app_database.owns_database_of(tenant_id)
        await fleet.places.provide(tenant_id, Placement("primary", Isolation.DATABASE))
    async with fleet.app_database.connect() as connection:
        await connection.execute(f"COMMENT ON DATABASE \"app_t_{theirs.hex}\" IS 'place of something else'")
    (finding,) = await fleet.reconcile()
    assert (finding.code, finding.tenant_id) == (FindingCode.PLACE_ORPHANED, ours)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP DATABASE "app_t_{ours.hex}"')
    assert codes(await fleet.reconcile()) == []


async def test_what_a_purge_left_behind_is_raised_and_never_deleted(fleet):
    tenant = await fleet.tenant()
    async with fleet.tenant_database.connect() as connection:
        await connection.execute(
            "UPDATE system.tenant SET status = 'purged', store = NULL, version = version + 1 WHERE id = $1", tenant.id
        )
        await connection.execute("UPDATE system.store SET tenants = tenants - 1")
    await send(fleet, str(tenant.id).encode(), headers=[("ce_sequence", str(tenant.version + 1).zfill(19).encode())])
    await eventually(lambda: fleet.directory.directory.is_purged(tenant.id))
    async with fleet.app_database.connect() as connection:
        await connection.execute(
            "INSERT INTO pool.storage_total (tenant_id, bytes, changed_at) VALUES ($1, 1, now())", tenant.id
        )

    (finding,) = await fleet.reconcile(tenant.id)

    assert (finding.code, finding.subject) == (FindingCode.ROWS_LEFT, f"{tenant.id} pool.storage_total")
    async with fleet.app_database.connect() as connection:
        deleted = await connection.execute("DELETE FROM pool.storage_total WHERE tenant_id = $1", tenant.id)
    assert deleted == "DELETE 1"
    assert codes(await fleet.reconcile(tenant.id)) == []


async def test_a_service_that_is_required_now_provisions_the_tenants_that_were_there_before(fleet):
    tenant = await fleet.tenant()
    async with fleet.tenant_database.connect() as connection:
        await connection.execute(
            "DELETE FROM system.saga_request WHERE run_id IN (SELECT id FROM system.saga_run WHERE tenant_id = $1)",
            tenant.id,
        )

    assert codes(await fleet.reconcile(tenant.id)) == []

    assert await history(fleet, tenant.id) == [FindingCode.NOT_PROVISIONED]
    (run,) = await fleet.runs(tenant.id, RunKind.REPAIR)
    assert [(each.service, each.outcome) for each in run.answers[0]] == [("app", "done")]


async def test_a_store_that_miscounts_is_counted_again(fleet):
    await fleet.tenant()
    async with fleet.tenant_database.connect() as connection:
        right = await connection.fetchval("SELECT tenants FROM system.store WHERE name = 'primary'")
        await connection.execute("UPDATE system.store SET tenants = tenants + 5 WHERE name = 'primary'")
        assert codes(await fleet.reconcile(repair=False)) == [FindingCode.STORE_COUNT]
        assert codes(await fleet.reconcile()) == []
        assert await connection.fetchval("SELECT tenants FROM system.store WHERE name = 'primary'") == right


async def test_a_table_that_nobody_classified_is_raised(fleet):
    async with fleet.app_database.connect() as connection:
        await connection.execute("CREATE TABLE system.forgotten (tenant_id uuid)")
        try:
            (finding,) = await fleet.reconcile()
            assert (finding.code, finding.service) == (FindingCode.TABLE_UNCLASSIFIED, "app")
            assert "forgotten" in finding.detail
        finally:
            await connection.execute("DROP TABLE system.forgotten")
    assert codes(await fleet.reconcile()) == []


async def test_a_silent_service_is_raised_and_nothing_else_is_said_of_it(fleet):
    tenant = await fleet.tenant()
    soon = timedelta(seconds=2)
    (finding,) = await fleet.reconcile(tenant.id, services=("ghost",), answer_within=soon) or await fleet.findings()
    assert (finding.code, finding.service) == (FindingCode.SERVICE_SILENT, "ghost")
    # Its answer comes in after all, when nobody waits for it any more.
    async with fleet.tenant_database.connect() as connection:
        assert await connection.fetchval("SELECT count(*) FROM system.reconciliation_page") == 0
        await connection.execute("UPDATE system.finding SET closed_at = now() WHERE service = 'ghost'")


async def test_a_tenant_on_its_way_is_not_judged(fleet):
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.tenant_database.connect() as connection:
        run_id = await connection.fetchval(
            "SELECT id FROM system.saga_run WHERE tenant_id = $1 AND kind = 'provision'", tenant.id
        )
        # A run under way, which nobody carries on while the test looks.
        await connection.execute("UPDATE system.saga_run SET state = 'running' WHERE id = $1", run_id)
        await connection.execute(
            "UPDATE system.saga_step SET state = 'waiting', next_retry_at = now() + interval '1 h' "
            "WHERE run_id = $1 AND position = 2",
            run_id,
        )
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    assert codes(await fleet.reconcile(tenant.id)) == []
    assert not await has_schema(fleet, tenant.id)
    async with fleet.tenant_database.connect() as connection:
        await connection.execute("UPDATE system.saga_run SET state = 'succeeded' WHERE id = $1", run_id)
        await connection.execute(
            "UPDATE system.saga_step SET state = 'succeeded', next_retry_at = NULL WHERE run_id = $1", run_id
        )
    assert codes(await fleet.reconcile(tenant.id)) == []
    assert await history(fleet, tenant.id) == [FindingCode.PLACE_MISSING]


async def test_a_fleet_is_looked_at_page_by_page(fleet):
    tenants = [await fleet.tenant(Isolation.SCHEMA) for _ in range(3)]
    async with fleet.app_database.connect() as connection:
        for tenant in (tenants[0], tenants[2]):
            await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    reconciliation = await fleet.finish(await fleet.ask(), page=2)
    async with fleet.tenant_database.connect() as connection:
        tenants_of_all = await connection.fetchval("SELECT count(*) FROM system.tenant")
    assert reconciliation.pages == tenants_of_all // 2 + 1
    assert (reconciliation.opened, reconciliation.repaired, reconciliation.closed) == (2, 2, 2)
    assert [await has_schema(fleet, tenant.id) for tenant in tenants] == [True, True, True]


async def test_reports_that_come_twice_or_too_late_change_nothing(fleet):
    """Answers to looks that were given up: the page has another request by then."""
    tenant = await fleet.tenant()
    reconciliation_id = await fleet.ask(tenant.id)
    reconciler = fleet.reconciler(services=("ghost",), tolerance=timedelta(0))
    await reconciler.turn()
    await reconciler.turn()
    async with fleet.tenant_database.connect() as connection:
        first = await connection.fetchval("SELECT request_id FROM system.reconciliation_page")
    differs = {"agrees": False, "follows": True, "lag_seconds": 0.1}
    await answer(fleet, first, differs)
    await reconciler.turn()
    async with fleet.tenant_database.connect() as connection:
        row = await connection.fetchrow("SELECT * FROM system.reconciliation_page")
        assert (row["look"], row["answered_at"]) == (2, None)
    await reconciler.turn()
    # The first report again: nothing of it is known, so it would be believed to be the second look.
    await answer(fleet, first, differs, expect=0)
    async with fleet.tenant_database.connect() as connection:
        row = await connection.fetchrow("SELECT * FROM system.reconciliation_page")
        assert (row["look"], row["answered_at"]) == (2, None)
        assert row["request_id"] != first
    assert await fleet.findings(tenant.id) == []
    await answer(fleet, row["request_id"], differs)
    await answer(fleet, row["request_id"], {"agrees": True, "follows": True}, expect=0)
    await reconciler.turn()
    assert codes(await fleet.findings(tenant.id)) == [FindingCode.TENANT_UNKNOWN]
    await finish_without(fleet, reconciliation_id)


async def answer(fleet, request_id, result, *, expect=1):
    async with fleet.transactions.begin() as session, fleet.tenant_database.connect() as connection:
        query = "SELECT count(*) FROM system.reconciliation_page WHERE answered_at IS NOT NULL"
        before = await connection.fetchval(query)
        ack = Ack(request_id, "ghost", AckOutcome.DONE, None, None, result)
        await store_reports(await session.connection(), [ack], datetime.now(UTC))
        await session.commit()
        assert await connection.fetchval(query) == before + expect


async def finish_without(fleet, reconciliation_id):
    async with fleet.tenant_database.connect() as connection:
        await connection.execute("DELETE FROM system.reconciliation_page")
        await connection.execute(
            "UPDATE system.reconciliation SET state = 'ended', ended_at = now() WHERE id = $1", reconciliation_id
        )
        await connection.execute("UPDATE system.finding SET closed_at = now() WHERE service = 'ghost'")


def environment(fleet):
    return {
        **os.environ,
        **fleet.tenant_database.environment(),
        "TENANTRY_KAFKA_BOOTSTRAP": fleet.kafka.kafka_bootstrap,
        "TENANTRY_TOPIC_PREFIX": fleet.kafka.topic_prefix,
    }


async def repairs(fleet, tenant):
    return await fleet.runs(tenant.id, RunKind.REPAIR)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_worker_killed_in_a_repair_does_it_once(fleet, moment):
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    reconciliation_id = await fleet.ask(tenant.id)
    reconciler = fleet.reconciler()

    async def is_repairing():
        await reconciler.turn()
        return await repairs(fleet, tenant)

    (run,) = await eventually(is_repairing, 30)
    killed = await anyio.run_process(
        [sys.executable, str(HERE / "dying_worker.py"), "provision_again", moment],
        env=environment(fleet),
        check=False,
        stdout=None,
        stderr=None,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not await has_schema(fleet, tenant.id)

    await fleet.finish(reconciliation_id)

    (done,) = await repairs(fleet, tenant)
    assert (done.row.id, done.row.state) == (run.row.id, RunState.SUCCEEDED)
    assert len(done.answers[0]) == 1
    assert await has_schema(fleet, tenant.id)
    assert await fleet.findings(tenant.id) == []
    assert (await fleet.audit(tenant.id)).count("reconcile.provision") == 1


@pytest.mark.parametrize("state", ["comparing", "looking", "repaired"])
async def test_a_reconciler_killed_anywhere_is_carried_on(fleet, state):
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    reconciliation_id = await fleet.ask(tenant.id)

    async def is_there():
        row = await fleet.reconciliation(reconciliation_id)
        return row.repaired > 0 if state == "repaired" else row.state == state

    command = [sys.executable, str(HERE / "reconciler_process.py")]
    async with await anyio.open_process(command, env=environment(fleet), stdout=None, stderr=None) as process:
        await eventually(is_there, 30, interval=0.01)
        process.kill()

    await fleet.finish(reconciliation_id)

    assert await fleet.findings(tenant.id) == []
    (run,) = await repairs(fleet, tenant)
    assert run.row.state is RunState.SUCCEEDED
    assert await has_schema(fleet, tenant.id)
    assert (await fleet.audit(tenant.id)).count("reconcile.provision") == 1


async def test_rounds_begin_by_themselves_and_one_at_a_time(fleet):
    every = timedelta(seconds=1)
    first, second = fleet.reconciler(every=every), fleet.reconciler(every=every)
    for _ in range(5):
        await asyncio.gather(first.turn(), second.turn())
        async with fleet.tenant_database.connect() as connection:
            assert await connection.fetchval(ROUNDS + " AND state <> 'ended'") <= 1

    async def is_over():
        await asyncio.gather(first.turn(), second.turn())
        async with fleet.tenant_database.connect() as connection:
            return await connection.fetchval(ROUNDS + " AND state = 'ended'") >= 2

    await eventually(is_over, 60)
    async with fleet.tenant_database.connect() as connection:
        begun = await connection.fetch(
            "SELECT created_at FROM system.reconciliation WHERE requested_by = 'tenant-worker' ORDER BY id"
        )
    assert all(later[0] - earlier[0] >= every for earlier, later in itertools.pairwise(begun))
    last = fleet.reconciler()

    async def nothing_is_under_way():
        return await last.turn() == 0

    await eventually(nothing_is_under_way, 60)


ROUNDS = "SELECT count(*) FROM system.reconciliation WHERE requested_by = 'tenant-worker'"


async def test_two_reconciliations_that_find_the_same_repair_it_once(fleet):
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    one, all_of_them = await fleet.ask(tenant.id), await fleet.ask()
    assert await fleet.ask(tenant.id) == one
    # It waits three times as long for a repair that is under way.
    reconciler = fleet.reconciler(answer_within=timedelta(seconds=5))

    async def both_have_found_it():
        await reconciler.turn()
        rows = [await fleet.reconciliation(each) for each in (one, all_of_them)]
        return all(row.ended_at is not None for row in rows)

    # No worker carries the run on meanwhile: both see what is missing, time and again.
    await eventually(both_have_found_it, 90)
    (run,) = await repairs(fleet, tenant)
    assert run.row.state is RunState.RUNNING
    assert codes(await fleet.reconcile(tenant.id)) == []
    assert len(await repairs(fleet, tenant)) == 1


async def test_a_reconciliation_that_never_ends_is_not_the_last_one(fleet):
    stuck = await fleet.ask()
    async with fleet.tenant_database.connect() as connection:
        await connection.execute(
            "UPDATE system.reconciliation SET created_at = now() - interval '7 h', requested_by = 'tenant-worker' "
            "WHERE id = $1",
            stuck,
        )
    await fleet.reconciler(every=timedelta(hours=1)).turn()
    assert (await fleet.reconciliation(stuck)).ended_at is not None
    async with fleet.tenant_database.connect() as connection:
        begun = await connection.fetchval("SELECT id FROM system.reconciliation ORDER BY id DESC LIMIT 1")
    assert begun != stuck
    await fleet.finish(begun)


async def test_a_repair_that_waits_for_an_operator_is_not_begun_again(fleet):
    tenant = await fleet.tenant(Isolation.SCHEMA)
    async with fleet.app_database.connect() as connection:
        await connection.execute(f'DROP SCHEMA "{tenant_schema(tenant.id)}" CASCADE')
    await fleet.ask(tenant.id)
    reconciler = fleet.reconciler()

    async def is_repairing():
        await reconciler.turn()
        return await repairs(fleet, tenant)

    (run,) = await eventually(is_repairing, 60)
    async with fleet.tenant_database.connect() as connection:
        await connection.execute("UPDATE system.saga_run SET state = 'needs_operator' WHERE id = $1", run.row.id)
        await connection.execute("UPDATE system.saga_step SET state = 'failed' WHERE run_id = $1", run.row.id)
        await connection.execute("UPDATE system.reconciliation SET state = 'ended', ended_at = now()")
        await connection.execute("DELETE FROM system.reconciliation_page")

    assert codes(await fleet.reconcile(tenant.id)) == [FindingCode.PLACE_MISSING, FindingCode.RUN_STUCK]
    assert len(await repairs(fleet, tenant)) == 1


async def test_a_run_that_waits_for_an_operator_is_raised(fleet):
    tenant = await fleet.tenant()
    async with fleet.tenant_database.connect() as connection:
        run_id = await connection.fetchval("SELECT id FROM system.saga_run WHERE tenant_id = $1", tenant.id)
        await connection.execute("UPDATE system.saga_run SET state = 'needs_operator' WHERE id = $1", run_id)
        await connection.execute(
            "UPDATE system.saga_step SET state = 'failed', error_code = 'no-answer' WHERE run_id = $1 AND position = 1",
            run_id,
        )
    (finding,) = await fleet.reconcile(tenant.id)
    assert (finding.code, finding.subject) == (FindingCode.RUN_STUCK, str(run_id))
    assert "no-answer" in finding.detail
    async with fleet.tenant_database.connect() as connection:
        await connection.execute("UPDATE system.saga_run SET state = 'running' WHERE id = $1", run_id)
        await connection.execute(
            "UPDATE system.saga_step SET state = 'waiting', next_retry_at = now() - interval '1 h' "
            "WHERE run_id = $1 AND position = 1",
            run_id,
        )
    row = await fleet.reconciliation(await fleet.ask(tenant.id, repair=False))
    reconciler = fleet.reconciler()

    async def is_over():
        await reconciler.turn()
        return (await fleet.reconciliation(row.id)).ended_at is not None

    # Nobody carries it on: no worker runs.
    await eventually(is_over, 30)
    (finding,) = await fleet.findings(tenant.id)
    assert "nobody carries it on" in finding.detail or "no-answer" in finding.detail
    async with fleet.tenant_database.connect() as connection:
        await connection.execute("UPDATE system.saga_run SET state = 'succeeded' WHERE id = $1", run_id)
    assert codes(await fleet.reconcile(tenant.id)) == []
