"""Tenants of the pool pattern from the request to active: saga, request over Kafka, the app's answer, activation."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from report import Row, Servers, percentiles, row

from tenantry_dev.home import Home, read_json
from tenantry_dev.sample.api import Api, connect

TENANTS = 200
CONCURRENCY = 16
START_SECONDS = 180
PROVISION_SECONDS = 300


async def run(servers: Servers) -> list[Row]:
    del servers  # services own roles of a whole server, so they get one of their own
    async with (
        _system() as operator_file,
        connect(operator_file["urls"], operator_file["client_id"], operator_file["client_secret"]) as operator,
    ):
        await operator.tenant.put("/v1/tiers/bench", {})
        slots = asyncio.Semaphore(CONCURRENCY)

        async def create(number: int) -> None:
            name = f"bench-{number:04}"
            document = {"slug": name, "name": name, "tier": "bench", "admin_email": f"{name}@example.com"}
            async with slots:
                await operator.tenant.post("/v1/tenants", document)

        began = time.perf_counter()
        await asyncio.gather(*(create(number) for number in range(TENANTS)))
        accepted = time.perf_counter() - began
        tenants = await _all_active(operator.tenant)
    created, active = ([datetime.fromisoformat(t[name]) for t in tenants] for name in ("created_at", "activated_at"))
    took = [(end - start).total_seconds() for start, end in zip(created, active, strict=True)]
    elapsed = (max(active) - min(created)).total_seconds()
    detail = {"tenants": TENANTS, "accepted_per_second": round(TENANTS / accepted, 1)}
    seconds = {f"{name}_seconds": value for name, value in percentiles(took).items()}
    return [row("provision_pool", TENANTS / elapsed, "tenants/s", **detail, **seconds)]


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


async def _all_active(tenant_api: Api) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PROVISION_SECONDS
    while time.monotonic() < deadline:
        active = [tenant async for tenant in tenant_api.items("/v1/tenants", status="active", limit=200)]
        if len(active) == TENANTS:
            return active
        await asyncio.sleep(0.2)
    raise RuntimeError("not all tenants became active")
