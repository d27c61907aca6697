"""Hot tenants are spread and quiet ones gathered, by one process at a time; what comes meanwhile counts once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy.exc import DBAPIError

from tenantry import Routing
from tenantry.testing import eventually
from usage_service.domain.routing import RoutingPolicy
from usage_service.metering.worker import GROUP, TOPIC
from usage_service.publishing.watermark import advance_watermark
from usage_service.routing import router as routing_router
from usage_service.routing.rates import TenantRates
from usage_service.routing.repository import hold
from usage_service.routing.router import Router, last_window

from .support import API_CALLS, BANDWIDTH, event, first_sent, running

POLICY = RoutingPolicy(100, timedelta(seconds=30), timedelta(minutes=10), 12)


class TenantServiceHere:
    """The tenant service's part in this process: every service's directory follows at once."""

    def __init__(self, usage) -> None:
        self.usage = usage
        self.asked: list[tuple] = []

    async def route(self, tenant_id, buckets: int, *, pinned: bool = False) -> int:
        tenant = self.usage.state.directory.get(tenant_id)
        self.asked.append((tenant.slug, buckets))
        if tenant.routing.pinned and not pinned:
            return 409
        routing = Routing(buckets=buckets, pinned=pinned, changed_at=datetime.now(UTC))
        self.usage.state.directory.upsert(msgspec.structs.replace(tenant, routing=routing, version=tenant.version + 1))
        return 200


@pytest.fixture
def service(usage):
    return TenantServiceHere(usage)


@pytest.fixture
def router(usage, service):
    return Router(usage.databases.system, usage.state.directory, service, POLICY)


async def sent(usage, tenant, rate: int, *, seconds: int, until: datetime) -> None:
    """A tenant's rate in the windows that end with `until`, as workers write it."""
    windows = [until - timedelta(seconds=10 * number) for number in range(1, seconds // 10 + 1)]
    await usage.fetch(
        "INSERT INTO system.tenant_rate SELECT $1, received_from, $2 FROM unnest($3::timestamptz[]) AS received_from"
        " ON CONFLICT (tenant_id, received_from) DO UPDATE SET events = excluded.events",
        tenant.id,
        10 * rate,
        windows,
    )


async def counted_until(usage, moment: datetime) -> datetime:
    """Everything that came before is counted; where the last window of rates ends then."""
    await usage.fetch(
        "INSERT INTO system.partition_progress SELECT number, $1 FROM generate_series(0, 11) AS number"
        " ON CONFLICT (partition) DO UPDATE SET received_until = excluded.received_until",
        moment,
    )
    return last_window(moment)


async def test_a_hot_tenant_is_spread_and_a_quiet_one_gathered(usage, service, router, tenant_a, tenant_b):
    end = await counted_until(usage, datetime.now(UTC))
    await sent(usage, tenant_a, 350, seconds=30, until=end)
    await sent(usage, tenant_b, 350, seconds=20, until=end)
    await router.look()
    await router.look()
    assert service.asked == [("tenant-a", 4)]

    # It stays for as long as it may come back, and is gathered after.
    later = datetime.now(UTC) + POLICY.quiet_for + timedelta(minutes=1)
    end = await counted_until(usage, later)
    await sent(usage, tenant_a, 150, seconds=60, until=end)
    await router.look()
    assert service.asked == [("tenant-a", 4)]
    await sent(usage, tenant_a, 90, seconds=60, until=end)
    await router.look()
    assert service.asked == [("tenant-a", 4), ("tenant-a", 2)]


async def test_a_backlog_does_not_hide_what_is_sent(usage, service, router, tenant_a):
    """The workers are an hour behind: what counts is what came then, not what they manage."""
    end = await counted_until(usage, datetime.now(UTC) - timedelta(hours=1))
    await sent(usage, tenant_a, 150, seconds=30, until=end)
    await router.look()
    assert service.asked == [("tenant-a", 2)]


async def test_a_pinned_tenant_is_left_alone(usage, service, router, tenant_a):
    await service.route(tenant_a.id, 3, pinned=True)
    end = await counted_until(usage, datetime.now(UTC))
    await sent(usage, tenant_a, 9_000, seconds=30, until=end)
    await router.look()
    assert service.asked == [("tenant-a", 3)]
    response = await usage.http.get("/v1/routing", headers=usage.operator)
    [item] = response.json()["items"]
    assert (item["slug"], item["buckets"], item["pinned"]) == ("tenant-a", 3, True)
    assert (item["events_per_second"], item["keys"]) == (4_500, "one")
    assert (await usage.http.get("/v1/routing", headers=usage.service)).status_code == 403


async def test_one_process_decides_at_a_time(usage, service, router, tenant_a):
    end = await counted_until(usage, datetime.now(UTC))
    await sent(usage, tenant_a, 350, seconds=30, until=end)
    async with usage.databases.system.begin() as connection:
        assert await hold(connection)
        await router.look()
        assert service.asked == []
    await router.look()
    assert service.asked == [("tenant-a", 4)]


async def test_who_settles_does_not_wait_for_a_worker_that_is_stopped(usage, service, router, tenant_a):
    """Its batch holds its share of the lock: the others go on, and the router comes again."""
    await service.route(tenant_a.id, 4)
    await usage.fetch("INSERT INTO system.spread_tenant VALUES ($1, 1, now() - interval '1 hour', NULL)", tenant_a.id)
    await counted_until(usage, datetime.now(UTC))
    async with usage.databases.system.begin() as connection:
        await connection.exec_driver_sql("LOCK TABLE system.spread_tenant IN ROW SHARE MODE")
        with pytest.raises(DBAPIError, match="lock timeout"):
            await router.look()
    await router.look()
    assert [tuple(row) for row in await usage.fetch("SELECT buckets, mixed_since FROM system.spread_tenant")] == [
        (4, None)
    ]


async def test_rates_are_written_and_forgotten(usage, router, tenant_a):
    rates = TenantRates()
    await usage.put_meter("api-calls", API_CALLS)
    async with usage.metering(members=1, rates=rates):
        await usage.send(*(event(tenant_a, number) for number in range(2_000)))
        await eventually(usage.counted, within=60)
    await rates.flush(usage.databases.system)
    [[events]] = await usage.fetch("SELECT sum(events)::int FROM system.tenant_rate WHERE tenant_id = $1", tenant_a.id)
    assert 1_800 < events < 2_200
    await counted_until(usage, datetime.now(UTC) + timedelta(hours=1))
    await router.look()
    assert await usage.fetch("SELECT FROM system.tenant_rate") == []


async def test_a_deadlock_only_repeats_the_batch(usage, tenant_a, monkeypatch):
    """Of a worker with something that holds a rollup's row, and waits for the worker."""
    await usage.put_meter("api-calls", API_CALLS)
    same_hour = first_sent(tenant_a.id, 0)
    async with usage.metering(members=1):
        await usage.send(event(tenant_a, 0))
        await eventually(usage.counted, within=60)
    attempts: list[int] = []
    worker = usage.worker()
    handle = worker.handle

    async def crossing(connection, records) -> None:
        await handle(connection, records)
        attempts.append(len(records))
        if len(attempts) == 1:
            waiting.append(asyncio.create_task(other.execute("UPDATE pool.usage_rollup SET groups = groups")))
            await eventually(lambda: is_waiting(usage), within=30)
            await connection.exec_driver_sql("SELECT pg_advisory_xact_lock(51)")

    monkeypatch.setattr(worker, "handle", crossing)
    waiting: list[asyncio.Task] = []
    async with usage.database.connect() as other:
        await other.execute("SET deadlock_timeout = '1h'")
        await usage.send(event(tenant_a, 1, time=same_hour))
        async with running(usage.consumer(worker).run()):
            # It holds 51 and waits for the row; the worker has the row and waits for 51.
            async with other.transaction():
                await other.execute("SELECT pg_advisory_xact_lock(51)")
                await eventually(lambda: waiting and waiting[0].done(), within=30)
            await eventually(usage.counted, within=60)
    assert attempts == [1, 1]
    [stopped] = await usage.fetch("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert stopped[0] == 1
    [[value]] = await usage.fetch("SELECT sum(count)::int FROM pool.usage_rollup")
    assert value == 2


async def is_waiting(usage) -> bool:
    [[found]] = await usage.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return found > 0


async def test_routing_changes_while_events_and_copies_flow(usage, service, tenant_a, tenant_b, monkeypatch):
    """Up, down and up again, with copies on neighbouring days, senders that lag, workers that come and go."""
    monkeypatch.setattr(routing_router, "_GRACE", timedelta(0))
    await usage.put_meter("bandwidth", BANDWIDTH)
    draw = random.Random(51)  # noqa: S311 (a repeatable test)
    router = Router(usage.databases.system, usage.state.directory, None, POLICY)
    sends: list[dict] = []
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)

    def one(tenant, number: int, days: int) -> dict:
        return event(tenant, number, time=(today - timedelta(days=2 + days)).isoformat(), data={"bytes": 10})

    async with running(advance_watermark(usage.databases.system, usage.kafka, group=GROUP, topic=TOPIC)):
        for turn, buckets in enumerate((1, 4, 12, 2, 1, 8)):
            await service.route(tenant_a.id, buckets)
            async with usage.metering(members=1 + turn % 3):
                sending = []
                for _ in range(8):
                    numbers = [draw.randrange(turn * 150, turn * 150 + 300) for _ in range(60)]
                    events = [one(draw.choice((tenant_a, tenant_a, tenant_b)), n, draw.choice((0, 1))) for n in numbers]
                    sends += events
                    # The keys of this turn, and of others: senders whose directory is behind, or ahead.
                    if draw.random() < 0.3:
                        await service.route(tenant_a.id, draw.choice((1, 2, 8)))
                    sending.append(asyncio.create_task(usage.send(*events, partial="true")))
                    await asyncio.sleep(0)
                for answer in await asyncio.gather(*sending):
                    assert answer.json()["accepted"] == 60, answer.text
                if turn % 2:
                    await eventually(usage.counted, within=60)
                    await router.look()
        async with usage.metering(members=3):
            await eventually(usage.counted, within=60)
    expected = Counter(subject for subject, _ in {(each["subject"], each["id"]) for each in sends})
    rows = await usage.fetch("SELECT tenant_id, sum(count)::int, sum(sum)::int FROM pool.usage_rollup GROUP BY 1")
    assert {str(tenant): (calls, size) for tenant, calls, size in rows} == {
        tenant: (number, 10 * number) for tenant, number in expected.items()
    }
    stored = await usage.fetch("SELECT tenant_id, identity FROM pool.usage_event")
    assert len(stored) == len({tuple(row) for row in stored}) == sum(expected.values())
    assert not [row for row in await usage.fetch("SELECT tenant_id FROM system.spread_tenant") if row[0] == tenant_b.id]
