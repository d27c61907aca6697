"""The tenant service's workers and the app's in this process, on real PostgreSQL and Kafka: what a reconciler sees."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any, Self
from uuid import UUID

from tenacity.wait import wait_fixed

from app_service.models import CATALOGUE as APP_CATALOGUE
from tenant_service.audit import Actor
from tenant_service.catalogue import CATALOGUE
from tenant_service.domain.saga import RetryPolicy, RunKind
from tenant_service.publication import TENANT_ACKS
from tenant_service.reconciling import findings
from tenant_service.reconciling.consumers import REPORTS_GROUP, reports_handler
from tenant_service.reconciling.findings import FindingFilter
from tenant_service.reconciling.models import FindingRow, Phase, ReconciliationRow
from tenant_service.reconciling.policy import ReconcilingPolicy
from tenant_service.reconciling.repository import find_reconciliation
from tenant_service.reconciling.service import request_reconciliation
from tenant_service.reconciling.worker import Reconciler
from tenant_service.runs.consumers import acks_handler
from tenant_service.runs.repository import Run, list_runs
from tenant_service.runs.steps import SagaSettings
from tenant_service.runs.worker import SagaWorker
from tenant_service.stores.service import ensure_default_store
from tenant_service.tenants.creation import NewTenant, create_tenant
from tenant_service.tenants.service import get_tenant
from tenant_service.tiers.service import publish_unpublished_tiers
from tenant_service.transactions import Transactions
from tenantry import Clock, Isolation, SystemClock, Tenant, TenantStatus, uuid7
from tenantry.database import Databases, Places
from tenantry.events import (
    PLACE_LANES,
    KafkaDirectory,
    KafkaSettings,
    OutboxRelay,
    RequestResponder,
    TransactionalConsumer,
    place_handlers,
)
from tenantry.reconciling import OBSERVE_LANES, observing_handlers
from tenantry.testing import ServiceDatabase, eventually

OPERATOR = Actor(subject="operator", kind="operator", credential_id="test")
POLICY = ReconcilingPolicy(
    services=("app", "tenant"),
    provisioning=("app",),
    every=None,
    tolerance=timedelta(milliseconds=300),
    answer_within=timedelta(seconds=20),
)
SAGA = SagaSettings(
    services={RunKind.PROVISION: ("app",)},
    retry=RetryPolicy(wait=wait_fixed(0.2), attempts=5, answer_within=timedelta(seconds=20)),
)

_slugs = count()


@dataclass
class Fleet:
    tenant_database: ServiceDatabase
    app_database: ServiceDatabase
    transactions: Transactions
    databases: Databases
    app: Databases
    kafka: KafkaSettings
    directory: KafkaDirectory
    places: Places
    clock: Clock = field(default_factory=SystemClock)
    policy: ReconcilingPolicy = POLICY

    @classmethod
    @asynccontextmanager
    async def start(
        cls, tenant_database: ServiceDatabase, app_database: ServiceDatabase, kafka: KafkaSettings
    ) -> AsyncIterator[Self]:
        """Everything but the workers of sagas and the reconciler, which tests start or turn."""
        directory = KafkaDirectory(kafka)
        places = Places("app", app_database.settings())
        async with (
            tenant_database.databases(system_pool_size=24) as databases,
            app_database.databases(system_pool_size=24) as app,
        ):
            fleet = cls(
                tenant_database, app_database, Transactions(databases), databases, app, kafka, directory, places
            )
            async with fleet.transactions.begin() as session:
                await ensure_default_store(session, "primary", "eu-1", now=fleet.clock.now())
                await publish_unpublished_tiers(session)
            answers = {
                **place_handlers(places, directory),
                **observing_handlers(app, APP_CATALOGUE, directory, places=places),
            }
            own = observing_handlers(databases, CATALOGUE, None)
            try:
                async with asyncio.timeout(60):
                    await directory.start()
                async with running(
                    OutboxRelay("tenant", databases.system, kafka).run(),
                    OutboxRelay("app", app.system, kafka).run(),
                    fleet._consumer("tenant-acks", acks_handler(fleet.clock)).run(),
                    fleet._consumer(REPORTS_GROUP, reports_handler(fleet.clock)).run(),
                    RequestResponder("app", kafka, app.system, answers, lanes={**PLACE_LANES, **OBSERVE_LANES}).run(),
                    RequestResponder("tenant", kafka, databases.system, own, lanes=OBSERVE_LANES).run(),
                ):
                    yield fleet
            finally:
                await directory.stop()

    def _consumer(self, group: str, handle: Any) -> TransactionalConsumer:
        return TransactionalConsumer(
            kafka=self.kafka, engine=self.databases.system, group=group, topics=[TENANT_ACKS], handle=handle
        )

    @asynccontextmanager
    async def sagas(self) -> AsyncIterator[None]:
        """A worker that carries runs on."""
        worker = SagaWorker(self.transactions.begin, self.tenant_database.urls.system, SAGA, self.clock, concurrency=1)
        async with running(worker.run()):
            yield

    async def tenant(self, isolation: Isolation = Isolation.POOL) -> Tenant:
        """One that is active, in every service."""
        number = f"{next(_slugs)}-{uuid7().hex[-6:]}"
        new = NewTenant(
            slug=f"fleet-{number}", name="Fleet", tier="standard", admin_email="a@example.org", isolation=isolation
        )
        async with self.transactions.begin() as session:
            tenant = await create_tenant(session, new, actor=OPERATOR, now=self.clock.now())
        if isolation is Isolation.DATABASE:
            self.app_database.owns_database_of(tenant.id)
        async with self.sagas():
            await eventually(lambda: self._is_active_everywhere(tenant.id), 60)
        return await self.get(tenant.id)

    async def _is_active_everywhere(self, tenant_id: UUID) -> bool:
        known = self.directory.directory.get(tenant_id)
        return known is not None and known.status is TenantStatus.ACTIVE

    async def get(self, tenant_id: UUID) -> Tenant:
        async with self.transactions.begin() as session:
            return await get_tenant(session, str(tenant_id))

    def reconciler(self, **changes: Any) -> Reconciler:
        return Reconciler(self.transactions, self.kafka, replace(self.policy, **changes), self.clock)

    async def ask(self, tenant_id: UUID | None = None, *, repair: bool = True) -> UUID:
        async with self.transactions.begin() as session:
            row = await request_reconciliation(
                session,
                None if tenant_id is None else str(tenant_id),
                repair=repair,
                actor=OPERATOR,
                now=self.clock.now(),
            )
        return row.id

    async def reconcile(
        self, tenant_id: UUID | None = None, *, repair: bool = True, **changes: Any
    ) -> Sequence[FindingRow]:
        """A reconciliation from beginning to end; what is still wrong then, of the tenant or at all."""
        await self.finish(await self.ask(tenant_id, repair=repair), **changes)
        return await self.findings(tenant_id)

    async def finish(self, reconciliation_id: UUID, **changes: Any) -> ReconciliationRow:
        reconciler = self.reconciler(**changes)
        async with self.sagas(), asyncio.timeout(120):
            while (row := await self.reconciliation(reconciliation_id)).state != Phase.ENDED:
                await reconciler.turn()
                await asyncio.sleep(0.05)
        return row

    async def reconciliation(self, reconciliation_id: UUID) -> ReconciliationRow:
        async with self.transactions.begin() as session:
            return await find_reconciliation(session, reconciliation_id)

    async def findings(self, tenant_id: UUID | None = None, *, is_open: bool = True) -> Sequence[FindingRow]:
        wanted = FindingFilter(tenant_id=tenant_id, is_open=is_open)
        async with self.transactions.begin() as session:
            return await findings.list_findings(session, wanted, before=None, limit=200)

    async def runs(self, tenant_id: UUID, kind: RunKind) -> Sequence[Run]:
        async with self.transactions.begin() as session:
            runs = await list_runs(session, tenant_id, before=None, limit=50)
        return [run for run in runs if run.row.kind is kind]

    async def audit(self, tenant_id: UUID) -> list[str]:
        async with self.tenant_database.connect() as connection:
            rows = await connection.fetch(
                "SELECT action FROM system.audit_entry WHERE chain_id = $1 ORDER BY position", tenant_id
            )
        return [row["action"] for row in rows]


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
