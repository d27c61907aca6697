"""The tenant service on a real database: use cases and workers in this process, Kafka played by the test."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from secret_watch import watched
from sqlalchemy import event
from tenacity.wait import wait_fixed

from tenant_service.app import create_app
from tenant_service.audit import Actor
from tenant_service.domain.saga import AckOutcome, RetryPolicy, RunKind, StepName
from tenant_service.domain.suspension import SuspensionReason
from tenant_service.runs.engine import Turn, take_turns
from tenant_service.runs.repository import Run, list_runs
from tenant_service.runs.requests import Ack, store_acks
from tenant_service.runs.steps import STEPS, SagaSettings, StepWork
from tenant_service.runtime import Runtime
from tenant_service.settings import TenantSettings
from tenant_service.stores.service import ensure_default_store
from tenant_service.tenants.creation import NewTenant, create_tenant
from tenant_service.tenants.service import get_tenant, suspend_tenant
from tenant_service.transactions import Transactions
from tenantry import Clock, ManualClock, SystemClock, Tenancy, TenancySettings, Tenant, current_request_id
from tenantry.events import KafkaDirectory, KafkaSettings, OutboxRelay, create_topics
from tenantry.testing import ServiceDatabase, eventually

OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")
START = datetime(2026, 1, 1, tzinfo=UTC)

_slugs = count()


@dataclass
class Platform:
    """The service's use cases with a clock that the test moves and sagas that the test turns."""

    database: ServiceDatabase
    transactions: Transactions
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    settings: SagaSettings = field(
        default_factory=lambda: SagaSettings(
            services={
                RunKind.PROVISION: ("app",),
                RunKind.CLOCK_ADVANCE: ("app", "billing"),
                RunKind.CONFIRM_STATE: ("app", "usage"),
            },
            retry=RetryPolicy(wait=wait_fixed(5), attempts=3, answer_within=timedelta(seconds=30)),
        )
    )

    async def create(self, **wanted: Any) -> Tenant:
        number = next(_slugs)
        values = {
            "slug": f"tenant-{number}",
            "name": f"Tenant {number}",
            "tier": "standard",
            "admin_email": "a@example.org",
        }
        async with self.transactions.begin() as session:
            return await create_tenant(session, NewTenant(**(values | wanted)), actor=OPERATOR, now=self.clock.now())

    async def get(self, tenant_id: UUID) -> Tenant:
        async with self.transactions.begin() as session:
            return await get_tenant(session, str(tenant_id))

    async def activate(self, **wanted: Any) -> Tenant:
        """A tenant whose provisioning is done."""
        tenant = await self.create(**wanted)
        await self.turns()
        await self.answer_all(tenant.id)
        await self.turns()
        return await self.get(tenant.id)

    async def suspend(self, tenant_id: UUID, reason: SuspensionReason = SuspensionReason.ABUSE) -> Tenant:
        async with self.transactions.begin() as session:
            return await suspend_tenant(session, str(tenant_id), reason, "a note", actor=OPERATOR, now=self.clock.now())

    async def turn(self, work: Mapping[StepName, StepWork] = STEPS) -> list[Turn]:
        """One turn of a worker."""
        async with self.transactions.begin() as session:
            return await take_turns(session, work, self.settings, self.clock.now())

    async def turns(self) -> list[Turn]:
        """Turns until nothing is due."""
        taken = []
        while turns := await self.turn():
            taken += turns
        return taken

    async def runs(self, subject_id: UUID) -> Sequence[Run]:
        async with self.transactions.begin() as session:
            return await list_runs(session, subject_id, before=None, limit=10)

    async def requests(self, subject_id: UUID) -> list[dict[str, Any]]:
        """What was asked of the services about a tenant or a clock."""
        return [row["payload"] for row in await self.outbox("tenant.requests.v1", str(subject_id))]

    async def answer(self, *acks: Ack) -> int:
        async with self.transactions.begin() as session:
            return await store_acks(await session.connection(), acks, self.clock.now())

    async def answer_all(self, subject_id: UUID) -> None:
        """Every service that was asked says that it is done."""
        for request in await self.requests(subject_id):
            await self.answer(*(ack(request, service) for service in request["services"]))

    async def outbox(self, topic: str, key: str) -> list[dict[str, Any]]:
        async with self.database.connect() as connection:
            rows = await connection.fetch(
                "SELECT type, version, tenant_id, payload FROM system.outbox WHERE topic = $1 AND key = $2 "
                "ORDER BY version, id",
                topic,
                key,
            )
        return [{**row, "payload": None if row["payload"] is None else json.loads(row["payload"])} for row in rows]

    async def audit(self, chain_id: UUID) -> list[str]:
        async with self.database.connect() as connection:
            rows = await connection.fetch(
                "SELECT action, position FROM system.audit_entry WHERE chain_id = $1 ORDER BY position", chain_id
            )
        assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["action"] for row in rows]


def ack(request: dict[str, Any], service: str, outcome: AckOutcome = AckOutcome.DONE, **reason: str) -> Ack:
    return Ack(
        request_id=UUID(request["request_id"]),
        service=service,
        outcome=outcome,
        error_code=reason.get("error_code"),
        detail=reason.get("detail"),
        result=None,
    )


@pytest.fixture(scope="module")
def database(service_database: Callable[[str], ServiceDatabase]) -> ServiceDatabase:
    return service_database("tenant")


@pytest.fixture
async def platform(database: ServiceDatabase) -> AsyncIterator[Platform]:
    async with database.databases() as databases, database.connect() as connection:
        # Sagas that an earlier test has left open are not this test's.
        await connection.execute("UPDATE system.saga_run SET state = 'cancelled' WHERE state = 'running'")
        platform = Platform(database, Transactions(databases))
        async with platform.transactions.begin() as session:
            await ensure_default_store(session, "primary", "eu-1", now=START)
        yield platform


@pytest.fixture
def make_ack() -> Callable[..., Ack]:
    return ack


MASTER_KEY = base64.b64encode(bytes(range(32))).decode()
ISSUER = "http://tenant.test"
SECRETS = {name: watched(f"{name}-secret") for name in ("operator", "app", "reader")}
CLIENTS = [
    {"client_id": "operator", "scopes": ["platform"], "audiences": ["tenant", "usage", "billing", "app"]},
    {"client_id": "app", "scopes": ["service"], "audiences": ["usage", "tenant"]},
    {"client_id": "reader", "scopes": ["tenant:read"], "audiences": ["tenant"]},
]


@dataclass
class Api:
    """The service over HTTP, in this process."""

    runtime: Runtime
    http: httpx.AsyncClient

    async def token(self, client_id: str, *, audience: str = "tenant", **more: str) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": SECRETS[client_id],
            "audience": audience,
            **more,
        }
        answer = await self.http.post("/oauth/token", data=form)
        assert answer.status_code == 200, answer.text
        return watched(str(answer.json()["access_token"]))

    async def sign_in(self, client_id: str = "operator") -> None:
        """Every later request carries this client's token."""
        self.http.headers["Authorization"] = f"Bearer {await self.token(client_id)}"

    async def create(self, **wanted: Any) -> dict[str, Any]:
        number = next(_slugs)
        body = {
            "slug": f"tenant-{number}",
            "name": f"Tenant {number}",
            "tier": "standard",
            "admin_email": "a@example.org",
        }
        answer = await self.http.post("/v1/tenants", json=body | wanted)
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def activate(self, tenant_id: str) -> None:
        """Provisions the tenant; no service has a say."""
        settings = self.runtime.settings.saga()
        while True:
            async with self.runtime.transactions.begin() as session:
                if not await take_turns(session, STEPS, settings, self.runtime.clock.now()):
                    return


@pytest.fixture
def bootstrap_file(tmp_path: Path) -> Path:
    path = tmp_path / "bootstrap.json"
    path.write_text(
        json.dumps(
            [
                {**client, "secret_sha256": hashlib.sha256(SECRETS[str(client["client_id"])].encode()).hexdigest()}
                for client in CLIENTS
            ]
        )
    )
    return path


@pytest.fixture
def settings(bootstrap_file: Path) -> TenantSettings:
    return TenantSettings(
        base_url=ISSUER,
        master_key=MASTER_KEY,
        bootstrap_file=bootstrap_file,
        test_clocks_enabled=True,
        default_region="eu-1",
        sign_in_origins=["http://billing.test"],
    )


@pytest.fixture
async def start_api(
    database: ServiceDatabase, settings: TenantSettings
) -> AsyncIterator[Callable[..., Awaitable[Api]]]:
    """Starts replicas of the API that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(clock: Clock | None = None, **changes: Any) -> Api:
            runtime = await stack.enter_async_context(
                Runtime.start(settings.model_copy(update=changes), database.settings(), clock or SystemClock())
            )
            transport = httpx.ASGITransport(create_app(runtime))
            client = httpx.AsyncClient(transport=transport, base_url=ISSUER)
            return Api(runtime, await stack.enter_async_context(client))

        yield start


@pytest.fixture
async def api(start_api: Callable[..., Awaitable[Api]]) -> Api:
    """The API with an operator's token."""
    started = await start_api()
    await started.sign_in()
    return started


@dataclass
class Statements:
    """How many statements were sent."""

    count: int = 0


@pytest.fixture
def count_statements(api: Api) -> Callable[[], AbstractContextManager[Statements]]:
    engine = api.runtime.transactions._databases.system.sync_engine

    @contextmanager
    def counting() -> Iterator[Statements]:
        statements = Statements()

        def count_one(*_: object) -> None:
            # What the process does beside requests (following changes) is not counted.
            statements.count += current_request_id() is not None

        event.listen(engine, "before_cursor_execute", count_one)
        try:
            yield statements
        finally:
            event.remove(engine, "before_cursor_execute", count_one)

    return counting


@pytest.fixture
async def product(api: Api, kafka_bootstrap: str, kafka_prefix: str) -> AsyncIterator[Tenancy]:
    """Another service, as its library sees the platform: through the outbox, a relay and Kafka."""
    kafka = KafkaSettings(kafka_bootstrap=kafka_bootstrap, topic_prefix=kafka_prefix)
    await create_topics(kafka)
    source = KafkaDirectory(kafka)
    tenancy = Tenancy("app", TenancySettings(issuer=ISSUER), source=source)
    relay = asyncio.create_task(OutboxRelay("tenant", api.runtime.transactions._databases.system, kafka).run())
    try:
        async with tenancy.run():
            await eventually(lambda: source.ready, within=60)
            yield tenancy
    finally:
        relay.cancel()
        await asyncio.wait([relay])
