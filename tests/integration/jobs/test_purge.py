"""What a tenant has queued goes with the tenant, and is in the export of its data."""

import gzip
import json

import msgspec
from jobs_product import CATALOGUE
from obstore.store import LocalStore

from tenantry import SystemClock, uuid7
from tenantry.events import Request
from tenantry.offboarding import EXPORT, PURGE, OffboardingWorker, offboarding_handlers


async def carried_out(notes, kind, tenant, store=None):
    databases = notes.tenancy.databases
    handlers = offboarding_handlers(databases, CATALOGUE, SystemClock(), exports=store is not None)
    data = {"idempotency_key": str(uuid7()), "tenant": msgspec.to_builtins(tenant)}
    await handlers[kind](Request(request_id=uuid7(), kind=kind, services=("notes",), tenant_id=tenant.id, data=data))
    worker = OffboardingWorker(databases, CATALOGUE, SystemClock(), store=store, batch_rows=2)
    while await worker.turn():
        pass


async def test_a_purge_takes_the_jobs_of_one_tenant_with_their_story(notes, tenant_a, tenant_b, write_note):
    for tenant in (tenant_a, tenant_b):
        for n in range(5):
            await notes.defer(tenant, write_note, f"note {n}")
    await notes.rows(
        "UPDATE jobs.procrastinate_jobs SET status = 'failed', error_type = 'x', failed_at = now()"
        " WHERE id IN (SELECT min(id) FROM jobs.procrastinate_jobs GROUP BY tenant_id) RETURNING id"
    )
    await carried_out(notes, PURGE, tenant_a)
    assert [row.tenant_id for row in await notes.queued()] == [tenant_b.id] * 5
    left = await notes.rows("SELECT DISTINCT job_id FROM jobs.procrastinate_events")
    assert {row.job_id for row in left} == {row.id for row in await notes.queued()}


async def test_an_export_has_the_tenants_jobs_and_no_others(notes, tenant_a, tenant_b, write_note, tmp_path):
    await notes.defer(tenant_a, write_note, "of a")
    await notes.defer(tenant_b, write_note, "of b")
    await carried_out(notes, EXPORT, tenant_a, LocalStore(tmp_path))
    (file,) = tmp_path.rglob("*procrastinate_jobs*")
    (line,) = gzip.decompress(file.read_bytes()).splitlines()
    assert json.loads(line)["args"]["arguments"] == {"body": "of a"}
