"""What one tenant feels of another that sends a hundred times of what its tier allows.

The app service is a process on a real database; tenants, tier and keys come to it over Kafka. The quiet tenant lists
its documents at a modest rate, alone and then beside the neighbour, which does the same at 100 times its limit of 20
requests a second from a process of its own. Both are open-loop: a request counts from when it was due.

The generators use the same cores as the service, and that slows the quiet tenant as well. So there is a third measure
in each run: the neighbour's requests go to a bare process that answers each with a constant. That ratio is the limit,
what no service could better on this machine. Last, the tier is published without limits, to show what they are for.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import cast
from uuid import uuid4

import httpx
import msgspec
import psutil
import uvloop
from aiokafka import AIOKafkaProducer
from load import Outcome, offer
from report import Row, Servers, row
from usage_stack import PASSWORD, ROLES, TOPICS, UsageStack, _remove

from tenantry import Isolation, Placement, Tenant, TenantId, TenantStatus, Tier, uuid7
from tenantry.database import create_service_database, migrate
from tenantry.events import KafkaSettings, create_topics
from tenantry.identity import Credential, Scope, new_api_key, secret_hash

RUNS = 5
SECONDS = 8.0
QUIET_RATE = 50
LIMIT = 20
TIMES = 100
DOCUMENTS = 50
GOAL_RATIO = 1.5
LIMITED = {"requests": {"read": {"rate": LIMIT, "burst": LIMIT}}, "concurrency": 20, "connections": 4}
_BORN = datetime(2026, 1, 1, tzinfo=UTC)
_REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(frozen=True, slots=True)
class _Run:
    """p99 of the quiet tenant in seconds: alone, beside load on another process, beside load on its own service.

    And the part of a core that the service used, alone and beside the other.
    """

    alone: float
    elsewhere: float
    beside: float
    cpu_alone: float
    cpu_beside: float
    neighbour: dict[str, object]


class AppStack(UsageStack):
    """The stack of a usage bench, around the app."""

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            "APP_DATABASE_URL": self.urls.service,
            "APP_SYSTEM_DATABASE_URL": self.urls.system,
            "APP_PORT": str(self.port),
        }

    async def publish(self, topic: str, key: str, value: object) -> None:
        producer = AIOKafkaProducer(**self.kafka.client_options(), acks="all")
        await producer.start()
        try:
            await producer.send_and_wait(self.kafka.topic(topic), key=key.encode(), value=msgspec.json.encode(value))
        finally:
            await producer.stop()

    async def add_tenant(self, slug: str) -> str:
        """A tenant of its own tier; returns an API key of it."""
        tenant = Tenant(
            id=TenantId(uuid7()),
            slug=slug,
            name=slug,
            status=TenantStatus.ACTIVE,
            tier=slug,
            version=1,
            created_at=_BORN,
            placement=Placement("primary", Isolation.POOL),
        )
        secret = new_api_key()
        credential = Credential(
            id=slug, kind="api_key", hash=secret_hash(secret), tenant_id=tenant.id, subject=slug,
            scopes=frozenset({Scope.TENANT_WRITE}),
        )  # fmt: skip
        await self.publish("tenant.credentials.v1", slug, credential)
        await self.publish("tenant.state.v1", str(tenant.id), tenant)
        return secret


async def run(servers: Servers) -> list[Row]:
    """The median of the ratios of p99 of the quiet tenant, beside its neighbour to alone."""
    async with _app_stack(servers) as stack:
        await stack.publish("platform.state.v1", "tier/quiet", Tier(name="quiet", version=1))
        await stack.publish("platform.state.v1", "tier/loud", Tier(name="loud", version=1, limits=LIMITED))
        quiet, loud = await stack.add_tenant("quiet"), await stack.add_tenant("loud")
        async with stack.role("app-api") as server:
            for secret in (quiet, loud):
                await _fill(stack.port, secret)
            await _quiet(stack.port, quiet)  # warm
            runs = [await _compare(stack.port, quiet, loud, server.pid) for _ in range(RUNS)]
            await stack.publish("platform.state.v1", "tier/loud", Tier(name="loud", version=2))
            unlimited = await _compare(stack.port, quiet, loud, server.pid)
    ratios = [run.beside / run.alone for run in runs]
    return [
        row(
            "noisy_neighbour",
            median(ratios),
            "x p99 alone",
            limit=median(run.elsewhere / run.alone for run in runs),
            goal=GOAL_RATIO,
            ratios=[round(ratio, 2) for ratio in ratios],
            alone_p99_ms=[round(run.alone * 1e3, 2) for run in runs],
            elsewhere_p99_ms=[round(run.elsewhere * 1e3, 2) for run in runs],
            beside_p99_ms=[round(run.beside * 1e3, 2) for run in runs],
            cpu_alone=[round(run.cpu_alone, 2) for run in runs],
            cpu_beside=[round(run.cpu_beside, 2) for run in runs],
            neighbour=[run.neighbour for run in runs],
        ),
        row(
            "noisy_neighbour_unlimited",
            unlimited.beside / unlimited.alone,
            "x p99 alone",
            alone_p99_ms=round(unlimited.alone * 1e3, 2),
            beside_p99_ms=round(unlimited.beside * 1e3, 2),
            neighbour=unlimited.neighbour,
        ),
    ]


async def _compare(port: int, quiet: str, loud: str, server: int) -> _Run:
    process = psutil.Process(server)
    before = _cpu(process)
    alone = await _quiet(port, quiet)
    cpu_alone = (_cpu(process) - before) / alone.seconds
    async with _bare_responder() as elsewhere_port, _neighbour(elsewhere_port, loud):
        elsewhere = await _quiet(port, quiet)
    between = _cpu(process)
    async with _neighbour(port, loud) as neighbour:
        beside = await _quiet(port, quiet)
        cpu_beside = (_cpu(process) - between) / beside.seconds
    return _Run(_p99(alone), _p99(elsewhere), _p99(beside), cpu_alone, cpu_beside, json.loads(neighbour.read()))


@asynccontextmanager
async def _neighbour(port: int, secret: str) -> AsyncIterator[io.StringIO]:
    """The loud tenant at its work, from when it has begun until it is done; what it has to report is there then."""
    report = io.StringIO()
    process = await _child("offer", str(port), str(LIMIT * TIMES), str(SECONDS + 1))
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(secret.encode() + b"\n")
    await process.stdout.readline()
    yield report
    output, _ = await process.communicate()
    report.write(output.decode())
    report.seek(0)


@asynccontextmanager
async def _bare_responder() -> AsyncIterator[int]:
    process = await _child("respond")
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


async def _child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def _quiet(port: int, secret: str) -> Outcome:
    outcome = await offer(port, _lists(port, secret), rate=QUIET_RATE, seconds=SECONDS, connections=16)
    if set(outcome.statuses) != {200}:
        raise RuntimeError(f"the quiet tenant was answered {outcome.statuses}")
    return outcome


def _lists(port: int, secret: str) -> itertools.repeat[bytes]:
    head = f"GET /v1/documents HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {secret}\r\n\r\n"
    return itertools.repeat(head.encode())


def _p99(outcome: Outcome) -> float:
    return quantiles(outcome.latencies, n=100)[98]


async def _fill(port: int, secret: str) -> None:
    """Some documents, once the service knows the tenant."""
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {secret}"}) as client:
        async with asyncio.timeout(60):
            while not await _ready(client):  # noqa: ASYNC110 - the process says it in no other way
                await asyncio.sleep(0.1)
        for number in range(DOCUMENTS):
            document = {"title": f"Document {number}", "body": "words " * 50, "tags": ["bench"]}
            answer = await client.post("/v1/documents", json=document)
            if not answer.is_success:
                raise RuntimeError(f"a document was refused: {answer.status_code} {answer.text}")


async def _ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).is_success
    except httpx.HTTPError:
        return False


@asynccontextmanager
async def _app_stack(servers: Servers) -> AsyncIterator[AppStack]:
    name = f"bench_{uuid4().hex[:8]}"
    urls = await create_service_database(servers.postgres, "app", dict.fromkeys(ROLES, PASSWORD), name=name)
    kafka = KafkaSettings(kafka_bootstrap=servers.kafka, topic_prefix=f"{name}.")
    try:
        await migrate(urls.migrator, "app")
        await create_topics(kafka, only=TOPICS)
        yield AppStack(servers, name, urls, kafka, port=18504)
    finally:
        await _remove(servers, name, kafka)


async def _offer(port: int, rate: float, seconds: float, secret: str) -> None:
    print("begun", flush=True)  # noqa: T201 - for the process that waits for it
    outcome = await offer(port, _lists(port, secret), rate=rate, seconds=seconds, connections=64)
    statuses = {str(status): count for status, count in sorted(outcome.statuses.items())}
    print(json.dumps({"offered": rate, "answered": round(outcome.answered / outcome.seconds), **statuses}))  # noqa: T201 - its result


class _Constant(asyncio.Protocol):
    """Answers whatever is asked, as the service answers who is over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            self._transport.write(_REFUSAL)


async def _respond() -> None:
    server = await asyncio.get_running_loop().create_server(_Constant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - for the process that waits for it
    await server.serve_forever()


def main() -> None:
    """A process of the bench: the neighbour's generator, or the bare process that it may be aimed at."""
    # What asks is not what is measured: where both want a core, the service has it.
    os.nice(10)
    work, *arguments = sys.argv[1:]
    if work == "respond":
        uvloop.run(_respond())
    else:
        port, rate, seconds = arguments
        uvloop.run(_offer(int(port), float(rate), float(seconds), sys.stdin.readline().strip()))


if __name__ == "__main__":
    main()
