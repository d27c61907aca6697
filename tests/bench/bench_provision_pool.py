"""Tenants from the request to active: saga, request over Kafka, the app's answer, activation.

Goals, on a machine that does nothing else: a pool tenant is active within 300 ms (p50), one with a schema or a database
of its own within 500 ms; a thousand pool tenants within 60 s; and who signs up while a thousand are queued within 1 s
(p99). Seconds are those between `created_at` and `activated_at`. Beside a figure stands the CPU that all processes have
used for a tenant, by which a run on a busy machine can still be compared with another.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from report import Row, Servers, percentiles, row

from tenantry_dev.home import Home, read_json
from tenantry_dev.sample.api import Api, connect

IDLE = 25
PLACED = 10
QUEUED = 1_000
BATCH = 250
CONCURRENCY = 32
START_SECONDS = 180
PROVISION_SECONDS = 300
POLL_SECONDS = 0.01
# Until the places that were handed over are warm again.
REFILL_SECONDS = 1.0
MAX_ROLES = 6


async def run(servers: Servers) -> list[Row]:
    """Singles on an idle system; a thousand one by one and as batches; and singles while a thousand are queued."""
    del servers  # services own roles of a whole server, so they get one of their own
    rows = []
    async with (
        _system() as system,
        connect(system.urls, system.client_id, system.client_secret) as operator,
    ):
        await operator.tenant.put("/v1/tiers/bench", {})
        await _provision(operator.tenant, "warm")
        before = system.cpu()
        idle = [await _provision(operator.tenant, f"idle-{number:04}") for number in range(IDLE)]
        used = system.cpu_since(before, IDLE)
        rows.append(
            row("provision_pool_idle", statistics.median(idle) * 1e3, "ms p50", goal=300, cpu_ms=used, **_ms(idle))
        )
        for isolation in ("schema", "database"):
            took = []
            for number in range(PLACED):
                took.append(await _provision(operator.tenant, f"{isolation}-{number:04}", isolation=isolation))
                await asyncio.sleep(REFILL_SECONDS)
            rows.append(
                row(f"provision_{isolation}_idle", statistics.median(took) * 1e3, "ms p50", goal=500, **_ms(took))
            )
        for name, queue in (("one-by-one", _queue_one_by_one), ("batches", _queue_batches)):
            before = system.cpu()
            accepted = await queue(operator.tenant, name)
            began, ended = await _all_active(operator.tenant, name)
            rows.append(
                row(
                    f"provision_thousand_{name.replace('-', '_')}",
                    ended - began,
                    "s",
                    goal=60,
                    accepted_after=round(accepted, 2),
                    cpu_ms=system.cpu_since(before, QUEUED),
                )
            )
        rows.append(await _among_a_thousand(operator.tenant))
    return rows


async def _among_a_thousand(tenant_api: Api) -> Row:
    """Singles, one after the other, from when a thousand are queued until the last of those is active."""
    await _queue_batches(tenant_api, "crowd")
    crowd = asyncio.create_task(_all_active(tenant_api, "crowd"))
    singles: list[float] = []
    while not crowd.done():
        singles.append(await _provision(tenant_api, f"single-{len(singles):04}"))
    began, ended = await crowd
    took = _ms(singles)
    return row(
        "provision_among_thousand",
        took.get("p99_ms", max(singles) * 1e3),
        "ms p99",
        goal=1000,
        singles=len(singles),
        crowd_seconds=round(ended - began, 2),
        **took,
    )


def _ms(took: Sequence[float]) -> dict[str, float]:
    return {f"{name}_ms": round(value * 1e3) for name, value in percentiles(took).items()}


async def _provision(tenant_api: Api, name: str, **wanted: str) -> float:
    """Create a tenant and wait until it is active; returns the seconds between the two as the service saw them."""
    tenant_id = (await tenant_api.post("/v1/tenants", _document(name) | wanted))["id"]
    async with asyncio.timeout(PROVISION_SECONDS):
        while True:
            tenant = await tenant_api.get(f"/v1/tenants/{tenant_id}")
            if tenant["status"] == "active":
                return _instant(tenant["activated_at"]) - _instant(tenant["created_at"])
            await asyncio.sleep(POLL_SECONDS)


async def _queue_batches(tenant_api: Api, prefix: str) -> float:
    """Create a thousand tenants by the batch route; returns how long that took until the last was accepted."""
    began = time.perf_counter()
    for first in range(0, QUEUED, BATCH):
        tenants = [_document(f"{prefix}-{number:04}") for number in range(first, first + BATCH)]
        answer = await tenant_api.post("/v1/tenants/batch", {"tenants": tenants})
        if answer["refused"]:
            raise RuntimeError(f"{answer['refused']} of a batch were refused")
    return time.perf_counter() - began


async def _queue_one_by_one(tenant_api: Api, prefix: str) -> float:
    """Create a thousand tenants, 32 at a time; returns how long that took until the last was accepted."""
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


@dataclass(frozen=True, slots=True)
class _System:
    """The whole system as it runs, and its operator's credentials."""

    urls: dict[str, str]
    client_id: str
    client_secret: str
    process: psutil.Process

    def cpu(self) -> Mapping[str, float]:
        """Seconds of CPU that each role has used, and the two servers."""
        used: defaultdict[str, float] = defaultdict(float)
        for process in self.process.children(recursive=True):
            try:
                command, times = process.cmdline(), process.cpu_times()
            except psutil.NoSuchProcess:  # a connection of PostgreSQL that has just ended
                continue
            used[_role(command)] += times.user + times.system
        return used

    def cpu_since(self, before: Mapping[str, float], tenants: int) -> dict[str, float]:
        """Milliseconds of CPU a tenant since then, in all and by who used most."""
        each = {name: (used - before.get(name, 0.0)) / tenants * 1e3 for name, used in self.cpu().items()}
        most = sorted(each, key=lambda name: -each[name])[:MAX_ROLES]
        return {"all": round(sum(each.values()), 1), **{name: round(each[name], 1) for name in most}}


def _role(command: Sequence[str]) -> str:
    if "--role" in command:
        return command[command.index("--role") + 1]
    program = command[0] if command else ""
    return "kafka" if program.endswith("java") else "postgres" if "postgres" in program else "other"


@asynccontextmanager
async def _system() -> AsyncIterator[_System]:
    """The whole system without the sample."""
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-", ignore_cleanup_errors=True) as directory:
        own = {"TENANTRY_HOME": directory}
        environment = {
            k: v for k, v in os.environ.items() if k not in {"TENANTRY_POSTGRES_URL", "TENANTRY_KAFKA_BOOTSTRAP"}
        }
        command = [str(Path(sysconfig.get_path("scripts")) / "tenantry"), "up", "--no-sample"]
        up = subprocess.Popen(command, env=environment | own, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 - short
        try:
            operator = await _ready(Home(Path(directory)), up)
            credentials = operator["client_id"], operator["client_secret"]
            yield _System(operator["urls"], *credentials, psutil.Process(up.pid))
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
        # Whether there is one that waits is asked, not for all of them: the API has other things to do.
        while await _any(tenant_api, prefix, "requested") or await _any(tenant_api, prefix, "provisioning"):  # noqa: ASYNC110
            await asyncio.sleep(0.25)
    tenants = [tenant async for tenant in tenant_api.items("/v1/tenants", status="active", q=f"{prefix}-", limit=200)]
    if len(tenants) != QUEUED:
        raise RuntimeError(f"{len(tenants)} of {QUEUED} tenants became active")
    return min(_instant(t["created_at"]) for t in tenants), max(_instant(t["activated_at"]) for t in tenants)


async def _any(tenant_api: Api, prefix: str, status: str) -> bool:
    page = await tenant_api.get("/v1/tenants", status=status, q=f"{prefix}-", limit=1)
    return bool(page["items"])
