"""The app in this process: its real application on a real database, with a directory and a spool in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
from fastapi import FastAPI
from issuer import ISSUER, Issuer
from local_state import GivenState

from app_service.app import create_app
from app_service.jobs import jobs
from app_service.settings import AppSettings
from tenantry import Clock, SystemClock, Tenancy, TenancySettings, Tenant
from tenantry.jobs import JobSettings, JobWorker
from tenantry.metering import MeteringClient, Spool
from tenantry.testing import ServiceDatabase


@dataclass
class MemorySpool:
    """What was metered, in its order."""

    max_bytes: int = 1 << 20
    held_bytes: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def append(self, key: bytes, value: bytes) -> bool:
        event = json.loads(value)
        assert event["subject"].encode() == key
        self.events.append(event)
        return True


@dataclass
class Product:
    app: FastAPI
    client: httpx.AsyncClient
    issuer: Issuer
    tenancy: Tenancy
    source: GivenState
    spool: MemorySpool

    def headers(self, tenant: Tenant, scope: str = "tenant:write") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token(tenant_id=tenant.id, scope=scope)}"}

    async def send(self, request: httpx.Request) -> httpx.Response:
        return await self.client.send(request)

    def spooled(self, tenant: Tenant, event_type: str | None = None) -> list[dict[str, Any]]:
        """The tenant's metered events, of one type or of all."""
        return [
            event
            for event in self.spool.events
            if event["subject"] == str(tenant.id) and event_type in {None, event["type"]}
        ]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The jobs of tenants are run inside the block."""
        task = asyncio.create_task(JobWorker(jobs, self.tenancy, JobSettings(own_database_poll_seconds=0.1)).run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @contextmanager
    def changed(self, tenant: Tenant, **changes: Any) -> Iterator[Tenant]:
        """The directory knows the tenant so, inside the block."""
        known = self.source.directory.get(tenant.id)
        assert known is not None
        changed = msgspec.structs.replace(known, **changes, version=known.version + 1)
        self.source.directory.upsert(changed)
        try:
            yield changed
        finally:
            self.source.directory.upsert(msgspec.structs.replace(known, version=known.version + 2))


@asynccontextmanager
async def run_product(
    database: ServiceDatabase,
    tenants: Sequence[Tenant],
    state_dir: Path,
    *,
    clock: Clock | None = None,
    settings: AppSettings | None = None,
    **database_changes: Any,
) -> AsyncIterator[Product]:
    issuer = Issuer()
    source, spool = GivenState(tenants, issuer.jwks), MemorySpool()
    async with database.databases(**database_changes) as databases:
        tenancy = Tenancy(
            "app",
            TenancySettings(issuer=ISSUER, state_dir=state_dir),
            source=source,
            databases=databases,
            clock=clock or SystemClock(),
        )
        async with tenancy.run():
            tenancy.meter_spool = cast("Spool", spool)
            tenancy._metering = MeteringClient(tenancy.meter_spool, "app", tenancy.clock)
            app = create_app(settings or AppSettings(), tenancy)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
                yield Product(app, client, issuer, tenancy, source, spool)
