from __future__ import annotations

import pytest
from archives import ArchiveWorld

from tenantry import SystemClock, Tier
from usage_service.archive.reading import ArchiveReader
from usage_service.entitlements.balances import BalanceKeeper
from usage_service.retention.days import closed_day

from .backfills import backfiller_of
from .quotas import put
from .support import API_CALLS, NUMBERS, are_empty, open_usage


@pytest.fixture(scope="module")
def untouched() -> list[str]:
    """Prefixes of topics that a test was given and has not used: to make some takes longer than most tests."""
    return []


@pytest.fixture
async def usage(service_database, kafka_bootstrap, kafka_prefix, untouched, tenant_a, tenant_b):
    """The HTTP application on an emptied database; nobody has written to its topics."""
    database = service_database("usage")
    await database.truncate()
    prefix = untouched.pop() if untouched else f"{kafka_prefix}{next(NUMBERS)}."
    service = await open_usage(database, kafka_bootstrap, prefix)
    service.state.directory.upsert_tier(Tier(name="standard", version=1))
    for tenant in (tenant_a, tenant_b):
        service.state.directory.upsert(tenant)
    async with service.running():
        yield service
    if not service.worked and await are_empty(service.kafka):
        untouched.append(prefix)


@pytest.fixture
async def world(service_database, tmp_path):
    """Days of events and an archive; no Kafka."""
    database = service_database("usage")
    async with database.databases(follow_placement=False, system_pool_size=10) as databases:
        found = ArchiveWorld(database, databases, tmp_path / "archive")
        found.directory.mkdir()
        for [day] in await found.fetch(
            "SELECT to_date(right(relname, 8), 'YYYYMMDD') FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid"
            " WHERE inhparent = 'pool.usage_event'::regclass"
        ):
            async with closed_day(database.urls.migrator, day) as closed:
                await closed.drop()
        await database.truncate()  # of the days that are gone, too
        yield found


@pytest.fixture
async def quota(usage, tenant_a):
    """A hard quota of 100 a month, with alerts, on a meter of its own."""
    meter = await usage.put_meter("api-calls", API_CALLS)
    body = {"limit": "100", "period": "month", "hard": True, "alerts": ["0.8", "1.0"]}
    answer = await put(usage, tenant_a, "quotas/api-calls", body)
    assert answer.status_code == 200, answer.text
    return meter


@pytest.fixture
def keeper(usage, archive):
    reader = ArchiveReader(usage.databases, archive.store)
    return BalanceKeeper(usage.databases, usage.state.directory, SystemClock(), reader)


@pytest.fixture
def archive(usage, tmp_path):
    """An archive beside the service, empty at first."""
    return ArchiveWorld(usage.database, usage.databases, tmp_path)


@pytest.fixture
def backfiller(usage, archive):
    """The keeper of backfills."""
    return backfiller_of(usage, archive)
