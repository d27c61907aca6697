"""What a client sees while a part of the system is away, and that nothing is lost or counted twice afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

import httpx
import psutil
import pytest

from tenantry.testing import eventually
from tenantry_dev.run.settings import ROLES
from tenantry_dev.run.system import System
from tenantry_dev.sample.api import Api, Apis
from tenantry_dev.sample.flow import SampleRun

from . import events


def restarted(system: System, role: str, pid: int) -> bool:
    return system.supervisor.pids().get(role, pid) != pid


async def send_all(usage: Api, batches: list[list[dict[str, object]]]) -> None:
    for batch in batches:
        await usage.call("POST", "/v1/events", json=batch, headers=events.BATCH_TYPE)


async def test_every_process_killed_during_a_replay_leaves_the_totals_exact(
    system: System, sample: SampleRun, operator: Apis, sender: Apis
) -> None:
    start = events.month(1)
    made = events.make("kill", sample, start, 12_000)
    stop = asyncio.Event()

    async def kill_one_after_another() -> list[str]:
        killed = []
        for role in [role for roles in ROLES.values() for role in roles]:
            pid = system.supervisor.pids()[role]
            os.kill(pid, signal.SIGKILL)
            killed.append(role)
            await eventually(partial(restarted, system, role, pid), within=60)
        stop.set()
        return killed

    killing = asyncio.create_task(kill_one_after_another())
    pending = events.batches(made, 100)
    while pending:
        # Half of all batches go out twice; the replay lasts as long as the killing.
        batch = pending.pop(0)
        await send_all(sender.usage, [batch, batch] if len(pending) % 2 else [batch])
        if not stop.is_set():
            await asyncio.sleep(0.1)
    assert len(await killing) == sum(map(len, ROLES.values()))

    await events.expect_counted(operator.usage, sample, start, len(made), within=60)


async def test_without_kafka_nothing_is_acknowledged_and_repeating_is_safe(
    system: System, sample: SampleRun, operator: Apis, sender: Apis
) -> None:
    start = events.month(2)
    made = events.make("kafka", sample, start, 300)
    token = (await token_of(system))["access_token"]
    headers = events.BATCH_TYPE | {"Authorization": f"Bearer {token}"}
    broker = system.supervisor.pids()["kafka"]

    os.kill(broker, signal.SIGSTOP)
    try:
        async with httpx.AsyncClient(base_url=system.addresses.url("usage"), timeout=60, trust_env=False) as client:
            refused = await client.post("/v1/events", json=made[:100], headers=headers)
    finally:
        os.kill(broker, signal.SIGCONT)

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["Content-Type"] == "application/problem+json"
    await send_all(sender.usage, events.batches(made, 100))

    await events.expect_counted(operator.usage, sample, start, len(made), within=60)


async def test_consumers_go_on_where_they_were_when_postgresql_was_killed(
    system: System, sample: SampleRun, operator: Apis, sender: Apis
) -> None:
    start = events.month(3)
    made = events.make("postgres", sample, start, 4_000)
    server = psutil.Process(system.supervisor.pids()["postgres"])

    async def kill() -> None:
        await asyncio.sleep(0.2)  # in the middle of the batches below
        server.kill()

    killing = asyncio.create_task(kill())
    await send_all(sender.usage, events.batches(made, 100))
    await killing

    await events.expect_counted(operator.usage, sample, start, len(made), within=90)


@pytest.mark.parametrize("number", [0, 8, 11], ids=["pool", "schema", "database"])
async def test_a_suspended_tenant_is_refused_within_a_second(
    system: System, sample: SampleRun, operator: Apis, number: int
) -> None:
    tenant = sample.tenants[number]
    headers = {"Authorization": f"Bearer {tenant.api_key}"}
    async with httpx.AsyncClient(
        base_url=system.addresses.url("app"), headers=headers, timeout=10, trust_env=False
    ) as client:
        await until(client, 200, within=60)

        # The tests before killed PostgreSQL and Kafka: the first round may wait, the second counts.
        for allowed in (30, 1):
            await operator.tenant.post(f"/v1/tenants/{tenant.id}/suspend", {"reason": "abuse", "note": "e2e"})
            answer = await until(client, 403, within=allowed)
            assert answer.json()["type"].endswith("tenant-suspended")

            await operator.tenant.post(f"/v1/tenants/{tenant.id}/reactivate", {"reason": "abuse"})
            await until(client, 200, within=allowed)


async def until(client: httpx.AsyncClient, status: int, *, within: float) -> httpx.Response:
    deadline = time.monotonic() + within
    while (answer := await client.get("/v1/documents")).status_code != status:
        assert time.monotonic() < deadline, answer.text
    return answer


async def token_of(system: System) -> dict[str, str]:
    from tenantry_dev.run.settings import SAMPLE_TRAFFIC  # noqa: PLC0415

    form = {
        "grant_type": "client_credentials",
        "client_id": SAMPLE_TRAFFIC,
        "client_secret": system.secrets[SAMPLE_TRAFFIC],
        "audience": "usage",
    }
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        answer = await client.post(f"{system.addresses.url('tenant')}/oauth/token", data=form)
        answer.raise_for_status()
        document: dict[str, str] = answer.json()
        return document
