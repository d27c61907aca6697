"""Tenants of the pool pattern from the request to active: saga, request over Kafka, the app's answer, activation."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from report import Row, Servers, percentiles, row

from tenantry_dev.home import Home, read_json
from tenantry_dev.sample.api import Api, connect

IDLE = 25
QUEUED = 1_000
SINGLES = 40
CONCURRENCY = 32
START_SECONDS = 180
PROVISION_SECONDS = 300
POLL_SECONDS = 0.01


async def run(servers: Servers) -> list[Row]:
    """Singles on an idle system; a thousand at once; and singles that come while a thousand are queued."""
    del servers  # services own roles of a whole server, so they get one of their own
    async with (
        _system() as operator_file,
        connect(operator_file["urls"], operator_file["client_id"], operator_file["client_secret"]) as operator,
    ):
        await operator.tenant.put("/v1/tiers/bench", {})
        await _provision(operator.tenant, "warm")
        idle = [await _provision(operator.tenant, f"idle-{number:04}") for number in range(IDLE)]
        crowd = asyncio.create_task(_queue(operator.tenant, "crowd"))
        accepted = await crowd
        began, ended = await _all_active(operator.tenant, "crowd")
        second = asyncio.create_task(_queue(operator.tenant, "second"))
        singles: list[float] = []
        while not second.done() and len(singles) < SINGLES:
            singles.append(await _provision(operator.tenant, f"single-{len(singles):04}"))
        await second
        second_began, second_ended = await _all_active(operator.tenant, "second")
    return [
        row("provision_pool_idle", 1 / statistics.median(idle), "tenants/s", **_seconds(idle)),
        row(
            "provision_pool_thousand",
            QUEUED / (ended - began),
            "tenants/s",
            seconds=round(ended - began, 2),
            accepted_per_second=round(QUEUED / accepted, 1),
        ),
        row(
            "provision_pool_among_a_thousand",
            QUEUED / (second_ended - second_began),
            "tenants/s",
            singles=len(singles),
            **_seconds(singles),
        ),
    ]


def _seconds(took: Sequence[float]) -> dict[str, float]:
    return {f"{name}_seconds": value for name, value in percentiles(took).items()}


async def _provision(tenant_api: Api, name: str) -> float:
    """Create a tenant and wait until it is active; returns the seconds between the two as the service saw them."""
    tenant_id = (await tenant_api.post("/v1/tenants", _document(name)))["id"]
    async with asyncio.timeout(PROVISION_SECONDS):
        while True:
            tenant = await tenant_api.get(f"/v1/tenants/{tenant_id}")
            if tenant["status"] == "active":
                return _instant(tenant["activated_at"]) - _instant(tenant["created_at"])
            await asyncio.sleep(POLL_SECONDS)


async def _queue(tenant_api: Api, prefix: str) -> float:
    """Create a thousand tenants; returns how long that took until the last was accepted."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def create(number: int) -> None:
        async with slots:
            await tenant_api.post("/v1/tenants", _document(f"{prefix}-{number:04}"))

    began = time.perf_counter()
    await asyncio.gather(*(create(number) for number in range(QUEUED)))
    return time.perf_counter() - began


def _document(name: str) -> dict[str, str]:
    return {"slug": name, "name": name, "tier": "bench", "admin_email": f"{name}@example.com"}


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@asynccontextmanager
async def _system() -> AsyncIterator[dict[str, Any]]:
    """The whole system without the sample; gives its operator.json."""
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-", ignore_cleanup_errors=True) as directory:
        own = {"TENANTRY_HOME": directory}
        environment = {
            k: v for k, v in os.environ.items() if k not in {"TENANTRY_POSTGRES_URL", "TENANTRY_KAFKA_BOOTSTRAP"}
        }
        command = [str(Path(sysconfig.get_path("scripts")) / "tenantry"), "up", "--no-sample"]
        up = subprocess.Popen(command, env=environment | own, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 - short
        try:
            yield await _ready(Home(Path(directory)), up)
        finally:
            up.send_signal(signal.SIGTERM)
            await asyncio.to_thread(up.wait)


async def _ready(home: Home, up: subprocess.Popen[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline and up.poll() is None:
            document = read_json(home.operator_file)
            try:
                answers = [await client.get(f"{url}/readyz") for url in document.get("urls", {}).values()]
            except httpx.TransportError:
                answers = []
            if answers and all(answer.is_success for answer in answers):
                return document
            await asyncio.sleep(0.2)
    raise RuntimeError("the system did not come up")


async def _all_active(tenant_api: Api, prefix: str) -> tuple[float, float]:
    """Wait for the tenants of a prefix; returns when the first was created and the last became active."""
    async with asyncio.timeout(PROVISION_SECONDS):
        while True:
            tenants = [
                tenant async for tenant in tenant_api.items("/v1/tenants", status="active", q=f"{prefix}-", limit=200)
            ]
            if len(tenants) == QUEUED:
                break
            await asyncio.sleep(0.5)
    return min(_instant(t["created_at"]) for t in tenants), max(_instant(t["activated_at"]) for t in tenants)
