"""The worker as it runs: woken by notifications, killed in the middle of every step, several at once."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import pytest

from tenant_service.runs.worker import SagaWorker
from tenantry import ManualClock, SystemClock, TenantStatus
from tenantry.testing import eventually

DYING_WORKER = Path(__file__).with_name("dying_worker.py")


@asynccontextmanager
async def running_worker(platform, *, concurrency: int = 2) -> AsyncIterator[None]:
    worker = SagaWorker(
        platform.transactions.begin,
        platform.database.urls.system,
        platform.settings,
        SystemClock(),
        concurrency=concurrency,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


async def status_of(platform, tenant):
    return (await platform.get(tenant.id)).status


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["place", "request_services", "activate"])
async def test_a_worker_killed_in_a_step_loses_nothing_and_does_nothing_twice(platform, step, moment):
    platform.clock = ManualClock(datetime.now(UTC))
    tenant = await platform.create()
    if step == "activate":
        await platform.turns()
        await platform.answer_all(tenant.id)

    killed = await anyio.run_process(
        [sys.executable, str(DYING_WORKER), step, moment],
        env={**os.environ, **platform.database.environment()},
        check=False,
        stdout=None,
        stderr=None,
    )
    assert killed.returncode == -signal.SIGKILL
    (run,) = await platform.runs(tenant.id)
    (step_row,) = [row for row in run.steps if row.name == step]
    assert step_row.attempt == 0

    async with running_worker(platform):
        if step != "activate":
            await eventually(lambda: platform.requests(tenant.id))
            await platform.answer_all(tenant.id)
        await eventually(lambda: _is(platform, tenant, TenantStatus.ACTIVE))

    assert len(await platform.requests(tenant.id)) == 1
    documents = await platform.outbox("tenant.state.v1", str(tenant.id))
    assert [row["version"] for row in documents] == [1, 2, 3]
    assert await platform.audit(tenant.id) == ["tenant.create", "tenant.provision", "tenant.activate"]


async def _is(platform, tenant, status):
    return await status_of(platform, tenant) is status


async def _listens(platform):
    async with platform.database.connect() as connection:
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle' AND query LIKE 'LISTEN %'"
        )


async def test_a_notification_wakes_the_worker(platform, monkeypatch):
    # A worker that only looks now and then would not look again within this test.
    monkeypatch.setattr("tenant_service.runs.worker.POLL_SECONDS", 600.0)
    platform.clock = ManualClock(datetime.now(UTC))
    async with running_worker(platform):
        await eventually(partial(_listens, platform))
        for _ in range(3):
            tenant = await platform.create()
            await eventually(partial(platform.requests, tenant.id))
            await platform.answer_all(tenant.id)
            await eventually(partial(_is, platform, tenant, TenantStatus.ACTIVE))


async def test_two_workers_share_a_queue(platform):
    platform.clock = ManualClock(datetime.now(UTC))
    tenants = [await platform.create() for _ in range(20)]
    async with running_worker(platform), running_worker(platform):
        for tenant in tenants:
            await eventually(partial(platform.requests, tenant.id))
            await platform.answer_all(tenant.id)
        for tenant in tenants:
            await eventually(partial(_is, platform, tenant, TenantStatus.ACTIVE))
    for tenant in tenants:
        assert await platform.audit(tenant.id) == ["tenant.create", "tenant.provision", "tenant.activate"]


async def test_a_worker_waits_for_a_database_that_breaks_its_connections(platform):
    platform.clock = ManualClock(datetime.now(UTC))
    async with running_worker(platform):
        first = await platform.create()
        await eventually(lambda: platform.requests(first.id))
        async with platform.database.connect() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND usename = 'tenant_system'"
            )
        await eventually(lambda: _created(platform))
        await platform.answer_all(first.id)
        await eventually(lambda: _is(platform, first, TenantStatus.ACTIVE))


async def _created(platform):
    # The test's own pool has lost its connections as well; the first use of each fails.
    try:
        return await platform.create()
    except Exception:  # noqa: BLE001
        return None
