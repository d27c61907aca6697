"""A product with a table of notes, and jobs that write them: a real database, with a directory in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from local_state import GivenState
from sqlalchemy import text

from tenantry import Tenancy, TenancySettings, Tenant
from tenantry.database import DataCatalogue, TenantTable
from tenantry.jobs import JOB_TABLES, Jobs, JobSettings, JobWorker
from tenantry.offboarding import OFFBOARDING_TABLES
from tenantry.testing import ServiceDatabase, eventually

MIGRATIONS = Path(__file__).parents[1] / "integration" / "jobs" / "migrations"
CATALOGUE = DataCatalogue("notes", [TenantTable("note"), *JOB_TABLES, *OFFBOARDING_TABLES])
# Fast, so that a test waits for what it looks at and for nothing else.
QUICK = JobSettings(
    poll_seconds=0.05,
    own_database_poll_seconds=0.05,
    heartbeat_seconds=0.3,
    lost_after_seconds=6.0,
    drain_seconds=0.0,
)


@dataclass
class Notes:
    """The product: its tenancy, its tasks, and a look behind the scenes."""

    database: ServiceDatabase
    tenancy: Tenancy
    source: GivenState
    jobs: Jobs

    async def defer(self, tenant: Tenant, task: Any, *arguments: Any, **named: Any) -> int:
        async with self.tenancy.databases.tenant_session(tenant) as session:
            return await self.jobs.defer(session, task, *arguments, **named)

    async def rows(self, statement: str, **values: Any) -> Sequence[Any]:
        """As the system role, which sees every tenant."""
        async with self.tenancy.databases.system_session() as session:
            return (await session.execute(text(statement), values)).all()

    async def queued(self, tenant: Tenant | None = None) -> Sequence[Any]:
        rows = await self.rows("SELECT * FROM jobs.procrastinate_jobs ORDER BY id")
        return [row for row in rows if tenant is None or row.tenant_id == tenant.id]

    async def none_left(self) -> None:
        """Waits until every job has succeeded, and so is gone."""

        async def empty() -> bool:
            return not await self.queued()

        await eventually(empty, within=60)

    @asynccontextmanager
    async def working(self, **changes: Any) -> AsyncIterator[JobWorker]:
        """A worker that runs inside the block."""
        worker = JobWorker(self.jobs, self.tenancy, msgspec.structs.replace(QUICK, **changes))
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def change(self, tenant: Tenant, **changes: Any) -> Tenant:
        """The directory knows the tenant so from now on."""
        known = self.source.directory.get(tenant.id) or tenant
        changed = msgspec.structs.replace(known, **changes, version=known.version + 1)
        self.source.directory.upsert(changed)
        return changed


@asynccontextmanager
async def notes_of(database: ServiceDatabase, tenants: Sequence[Tenant], state_dir: Path) -> AsyncIterator[Notes]:
    source = GivenState(tenants)
    async with database.databases() as databases:
        settings = TenancySettings(issuer="https://issuer.test", state_dir=state_dir, metrics_top_tenants=2)
        tenancy = Tenancy("notes", settings, source=source, databases=databases)
        async with tenancy.run():
            yield Notes(database, tenancy, source, Jobs())
