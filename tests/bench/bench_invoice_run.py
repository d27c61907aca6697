"""How many invoices a second an invoice run makes, from the request to the last final row.

Tenants with three meters, a rollup for every hour of two days each, and a plan of four charges: a flat fee, two prices
per unit and one in tiers. The limit is writing the very same final rows with two plain statements, nothing else.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from datetime import time as midnight
from statistics import median
from uuid import UUID, uuid4

import asyncpg
from report import Row, Servers, row

from billing_service.catalog.service import put_plan
from billing_service.domain.periods import add_months
from billing_service.domain.plans import Plan
from billing_service.domain.runs import RunState
from billing_service.invoicing import run_repository
from billing_service.invoicing.models import Run
from billing_service.invoicing.runner import InvoiceRunner
from tenantry import LocalDirectory, SystemClock, Tenant, TenantId, TenantStatus, uuid7
from tenantry.database import Databases, DatabaseSettings, create_service_database, migrate

TENANTS = 5_000
HOURS = 48
METERS = ("requests", "bytes", "tokens")
RUNS = 3
START = datetime(2026, 3, 1, tzinfo=UTC)

PLAN = Plan.model_validate(
    {
        "currencies": ["USD"],
        "charges": [
            {"code": "base", "price": {"model": "flat", "amount": "20.00"}},
            {"code": "requests", "meter": "requests", "price": {"model": "per_unit", "unit_amount": "0.0004"}},
            {"code": "bytes", "meter": "bytes", "price": {"model": "per_unit", "unit_amount": "0.00000002"}},
            {
                "code": "tokens",
                "meter": "tokens",
                "price": {
                    "model": "graduated",
                    "tiers": [
                        {"up_to": "1000", "unit_amount": "0.002"},
                        {"up_to": "100000", "unit_amount": "0.001"},
                        {"up_to": None, "unit_amount": "0.0005"},
                    ],
                },
            },
        ],
    }
)

_SUBSCRIBE = """
INSERT INTO pool.subscription
SELECT id, gen_random_uuid(), 'a', 'default', 'bench', 1, 'USD', '{}', 'UTC', 'anniversary', $2, NULL, 1, $2
  FROM unnest($1::uuid[]) AS id
"""
_ROLLUPS = """
INSERT INTO pool.usage_rollup
       (tenant_id, meter, window_start, meter_version, aggregation, group_hash, "group", count, sum, version)
SELECT id, meter, $2::timestamptz + make_interval(hours => hour), 1,
       CASE meter WHEN 'requests' THEN 'count' ELSE 'sum' END, '00', '{}', 7 + hour,
       CASE meter WHEN 'requests' THEN NULL ELSE 1000.5 * (1 + hour) END, 3
  FROM unnest($1::uuid[]) AS id, unnest($3::text[]) AS meter, generate_series(0, $4::int - 1) AS hour
"""


class _CutsAtOnce:
    """A usage service that has nothing under way: its cut is read in every partition at once."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    async def request_cut(self) -> UUID:
        cut_id = uuid7()
        async with self._databases.system.begin() as connection:
            await connection.exec_driver_sql(
                "INSERT INTO system.usage_cut SELECT $1, n, 12, '{}', false, now() FROM generate_series(0, 11) AS n",
                (cut_id,),
            )
        return cut_id


async def run(servers: Servers) -> list[Row]:
    name = f"bench_billing_{uuid4().hex[:8]}"
    passwords = dict.fromkeys(("migrator", "service", "system", "provisioner", "backup"), "only-for-tests")
    urls = await create_service_database(servers.postgres, "billing", passwords, name=name)
    admin = await asyncpg.connect(servers.postgres)
    try:
        await migrate(urls.migrator, "billing")
        databases = Databases(
            "billing",
            DatabaseSettings(database_url=urls.service, system_database_url=urls.system),
            follow_placement=False,
        )
        try:
            return await _measure(databases, servers.postgres.rsplit("/", 1)[0] + f"/{name}")
        finally:
            await databases.dispose()
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def _measure(databases: Databases, owner_url: str) -> list[Row]:
    clock = SystemClock()
    tenants = [_tenant(n) for n in range(TENANTS)]
    async with databases.system_session() as session:
        await put_plan(session, "bench", PLAN, clock=clock, created_by="bench")
    owner = await asyncpg.connect(owner_url)
    try:
        ids = [tenant.id for tenant in tenants]
        await owner.execute(_SUBSCRIBE, ids, START)
        await owner.execute(_ROLLUPS, ids, START, list(METERS), HOURS)
        await owner.execute("ANALYZE")
        runner = InvoiceRunner(databases, LocalDirectory.of(tenants), _CutsAtOnce(databases), clock, freshen=_fresh)
        working = asyncio.create_task(runner.run())
        rates: list[float] = []
        limits: list[float] = []
        try:
            for month in range(RUNS):
                # Every run bills the next month; only the first has usage, so it is moved along.
                if month:
                    await owner.execute("UPDATE pool.usage_rollup SET window_start = window_start + interval '1 month'")
                    await owner.execute("VACUUM ANALYZE pool.usage_rollup")
                seconds = await _bill(databases, _months_later(month + 1))
                rates.append(TENANTS / seconds)
                limits.append(TENANTS / await _plain_seconds(owner))
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        lines = await owner.fetchval("SELECT count(*) FROM pool.invoice_line")
        numbers = await owner.fetchrow("SELECT count(*), max(sequence) FROM pool.invoice_final")
    finally:
        await owner.close()
    if numbers is None or tuple(numbers) != (RUNS * TENANTS, RUNS * TENANTS):
        raise RuntimeError(f"{RUNS * TENANTS} invoices were due, there are (count, last number): {numbers}")
    return [
        row(
            "invoice_run",
            median(rates),
            "invoices/s",
            limit=median(limits),
            tenants=TENANTS,
            lines=lines // RUNS,
            rollups=TENANTS * HOURS * len(METERS),
            runs=RUNS,
        )
    ]


async def _bill(databases: Databases, as_of: datetime) -> float:
    run_id = uuid7()
    async with databases.system_session() as session:
        await run_repository.insert(
            session,
            Run(
                id=run_id,
                as_of=as_of,
                tenants=None,
                dry_run=False,
                grace_seconds=0,
                state=RunState.REQUESTED,
                cut_id=None,
                error=None,
                requested_by="bench",
                created_at=datetime.now(UTC),
                cut_requested_at=None,
                finished_at=None,
            ),
        )
    began = time.perf_counter()
    while True:
        async with databases.system_session() as session:
            run = await run_repository.find(session, run_id)
        if run is not None and run.state in {RunState.DONE, RunState.FAILED}:
            return time.perf_counter() - began
        await asyncio.sleep(0.05)


async def _plain_seconds(owner: asyncpg.Connection) -> float:
    """Writing the invoices of one run again, into tables of the same columns and indexes."""
    for table in ("invoice_final", "invoice_line"):
        await owner.execute(f"CREATE TABLE pool.plain_{table} (LIKE pool.{table} INCLUDING ALL)")
    first = "(SELECT run_id FROM pool.invoice_final ORDER BY id DESC LIMIT 1)"
    began = time.perf_counter()
    await owner.execute(f"INSERT INTO pool.plain_invoice_final SELECT * FROM pool.invoice_final WHERE run_id = {first}")
    await owner.execute(
        "INSERT INTO pool.plain_invoice_line SELECT line.* FROM pool.invoice_line AS line"
        " JOIN pool.plain_invoice_final AS final ON final.tenant_id = line.tenant_id AND final.id = line.invoice_id"
    )
    seconds = time.perf_counter() - began
    await owner.execute("DROP TABLE pool.plain_invoice_line, pool.plain_invoice_final")
    return seconds


def _tenant(number: int) -> Tenant:
    return Tenant(
        id=TenantId(uuid7()),
        slug=f"tenant-{number}",
        name=f"Tenant {number}",
        status=TenantStatus.ACTIVE,
        tier="standard",
        version=1,
        created_at=START,
    )


def _months_later(months: int) -> datetime:
    return datetime.combine(add_months(START.date(), months), midnight(), UTC)


async def _fresh() -> None:
    """The directory is complete from the start."""
