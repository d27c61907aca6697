"""What the tests of billing share: rollup records made by hand, and a usage service of their own that makes cuts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec

from billing_service.catalog.service import put_plan
from billing_service.domain.periods import Anchor
from billing_service.domain.plans import Plan
from billing_service.domain.runs import RunState
from billing_service.invoicing.cuts import CutSource
from billing_service.invoicing.models import Run
from billing_service.invoicing.run_repository import find as find_run
from billing_service.invoicing.run_repository import insert as insert_run
from billing_service.invoicing.runner import InvoiceRunner
from billing_service.subscriptions.models import Subscription
from billing_service.subscriptions.service import subscribe
from billing_service.usage.consumers import RollupConsumer
from tenantry import LocalDirectory, ManualClock, Tenant, TenantClock, uuid7
from tenantry.database import Databases

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
PARTITIONS = 3

PLAN = {
    "currencies": ["USD"],
    "interval": "month",
    "charges": [
        {"code": "base", "price": {"model": "flat", "amount": "20.00"}},
        {"code": "requests", "meter": "requests", "price": {"model": "per_unit", "unit_amount": "0.0125"}},
        {
            "code": "bytes",
            "meter": "bytes",
            "price": {
                "model": "graduated",
                "tiers": [{"up_to": "1000", "unit_amount": "0.01"}, {"up_to": None, "unit_amount": "0.005"}],
            },
        },
    ],
}


def rollup(
    tenant_id: UUID,
    meter: str,
    at: datetime,
    version: int,
    count: int,
    total: str | None = None,
    group: str = "",
    **changes: Any,
) -> dict[str, Any]:
    return {
        "tenant_id": str(tenant_id),
        "meter": meter,
        "meter_version": 1,
        "aggregation": "count" if total is None else "sum",
        "granularity": "hour",
        "window_start": at.isoformat(),
        "group": {"path": group} if group else {},
        "group_hash": (group or "none").encode().hex(),
        "count": str(count),
        "sum": total,
        "min": None,
        "max": None,
        "latest": None,
        "integral": None,
        "version": version,
        **changes,
    }


def partition_of(tenant_id: UUID) -> int:
    return tenant_id.int % PARTITIONS


def as_record(value: Mapping[str, Any], partition: int, offset: int = 0) -> Any:
    """A consumed record, as far as the handler looks at it."""
    headers = [("type", b"cut")] if "cut_id" in value else []
    return SimpleNamespace(
        topic="usage.rollups.v1",
        partition=partition,
        offset=offset,
        key=b"key",
        value=msgspec.json.encode(value),
        headers=headers,
    )


def cut_record(cut_id: UUID, partition: int) -> dict[str, Any]:
    return {"cut_id": str(cut_id), "offsets": {"0": 7}, "partition": partition, "partitions": PARTITIONS}


@dataclass
class Billing(CutSource):
    """The billing worker in one process, its rollups fed by hand."""

    databases: Databases
    directory: LocalDirectory = field(default_factory=lambda: LocalDirectory(ready=True))
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime(2030, 1, 1, tzinfo=UTC)))
    write_off: Decimal = Decimal(0)
    after_cut: Callable[[UUID], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.consumer = RollupConsumer(self.directory.is_purged)

    async def feed(self, *values: Mapping[str, Any], partition: int | None = None) -> None:
        """Consume records in one transaction, each in its tenant's partition."""
        records = [
            as_record(value, partition_of(UUID(value["tenant_id"])) if partition is None else partition, offset)
            for offset, value in enumerate(values)
        ]
        records.sort(key=lambda record: record.partition)
        async with self.databases.system.begin() as connection:
            await self.consumer.handle(connection, records)

    async def request_cut(self) -> UUID:
        """A cut that is read at once in every partition; `after_cut` may then feed what comes behind it."""
        cut_id = uuid7()
        for partition in range(PARTITIONS):
            await self.feed(cut_record(cut_id, partition), partition=partition)
        if self.after_cut is not None:
            await self.after_cut(cut_id)
        return cut_id

    async def put_plan(self, document: Mapping[str, Any] = PLAN, code: str = "standard") -> None:
        async with self.databases.system_session() as session:
            await put_plan(session, code, Plan.model_validate(document), clock=self.clock, created_by="test")

    async def subscribe(self, tenant: Tenant, *, start_at: datetime = MARCH, **changes: Any) -> Subscription:
        self.directory.upsert(tenant)
        values: dict[str, Any] = {
            "plan_code": "standard",
            "plan_version": None,
            "currency": None,
            "quantities": {},
            "account": None,
            "time_zone": "UTC",
            "anchor": Anchor.ANNIVERSARY,
            "start_at": start_at,
            "ends_at": None,
        }
        async with self.databases.system_session() as session:
            return await subscribe(session, tenant, clock=self.clock, **(values | changes))

    async def request_run(
        self, as_of: datetime, *, tenants: tuple[UUID, ...] | None = None, dry_run: bool = False
    ) -> UUID:
        run = Run(
            id=uuid7(),
            as_of=as_of,
            tenants=tenants,
            dry_run=dry_run,
            grace_seconds=3600,
            state=RunState.REQUESTED,
            cut_id=None,
            error=None,
            requested_by="test",
            created_at=self.clock.now(),
            cut_requested_at=None,
            finished_at=None,
        )
        async with self.databases.system_session() as session:
            await insert_run(session, run)
        return run.id

    def runner(self, *, chunk: int = 500) -> InvoiceRunner:
        return InvoiceRunner(
            self.databases,
            self.directory,
            self,
            self.clock,
            freshen=_fresh,
            chunk=chunk,
            write_off=self.write_off,
        )

    async def finish_runs(self, *, chunk: int = 500, within: float = 120) -> None:
        """Run a worker until no run is open."""
        working = asyncio.create_task(self.runner(chunk=chunk).run())
        try:
            async with asyncio.timeout(within):
                while await self.scalar(
                    "SELECT count(*) FROM system.invoice_run WHERE state NOT IN ('done', 'failed')"
                ):
                    if working.done():
                        await working
                    await asyncio.sleep(0.02)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def run(self, as_of: datetime, **options: Any) -> Run:
        run_id = await self.request_run(as_of, **options)
        await self.finish_runs()
        async with self.databases.system_session() as session:
            found = await find_run(session, run_id)
        assert found is not None
        return found

    async def scalar(self, statement: str, *parameters: Any) -> Any:
        async with self.databases.system.connect() as connection:
            return (await connection.exec_driver_sql(statement, parameters)).scalar_one()

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        async with self.databases.system.connect() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(statement)]

    async def totals(self) -> dict[tuple[UUID, datetime], Decimal]:
        rows = await self.rows("SELECT tenant_id, period_from, total FROM invoice_final")
        return {(row[0], row[1]): row[2] for row in rows}


async def _fresh() -> None:
    """The tests' directory is always up to date."""


def at(tenant: Tenant, now: datetime) -> Tenant:
    """`tenant` bound to a test clock that shows `now`."""
    return msgspec.structs.replace(tenant, clock=TenantClock(id=UUID(int=1), now=now), version=tenant.version + 1)
