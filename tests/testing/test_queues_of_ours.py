"""The library's own ways to run jobs, swept: the queue in PostgreSQL, and Celery."""

import asyncio
import json
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from uuid import UUID

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from jobs_product import MIGRATIONS, notes_of
from sqlalchemy import text

from tenantry import LocalDirectory, current_tenant
from tenantry.celery import TENANT_HEADER, carry_tenants
from tenantry.jobs import Job
from tenantry.testing import TenantFactory, eventually, sweep_jobs

NEVER = datetime(2100, 1, 1, tzinfo=UTC)
QUEUE = (
    "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args)"
    " VALUES ('tenants', 'note', CAST(:args AS jsonb)) RETURNING id"
)


class OfPostgres:
    """A task that leaves a note, in the queue of `tenantry.jobs`."""

    def __init__(self, notes):
        self.notes = notes

        @notes.jobs.task("note", retry=None)
        async def note(job: Job, number: int, owner: str) -> None:
            async with job.session() as session:
                values = {"tenant": job.tenant.id, "body": f"note {number}"}
                await session.execute(text("INSERT INTO note VALUES (:tenant, gen_random_uuid(), :body)"), values)

        self.task = note

    async def publish(self, number):
        async with self.notes.tenancy.databases.tenant_session() as session:
            tenant = str(current_tenant().id)
            job_id = await self.notes.jobs.defer_at(session, NEVER, self.task, number=number, owner=tenant)
        (row,) = await self.notes.rows("DELETE FROM jobs.procrastinate_jobs WHERE id = :id RETURNING args", id=job_id)
        return row.args

    async def run(self, envelope):
        (row,) = await self.notes.rows(QUEUE, args=json.dumps(envelope))
        known = {str(tenant.id) for tenant in self.notes.tenancy.directory}
        if envelope["tenant_id"] not in known:
            # Held back for as long as nobody knows the tenant; nothing tells that it has been looked at.
            await asyncio.sleep(1)
            await self.notes.rows("DELETE FROM jobs.procrastinate_jobs WHERE id = :id RETURNING id", id=row.id)
            raise LookupError(envelope["tenant_id"])

        async def ended():
            found = await self.notes.rows("SELECT status::text FROM jobs.procrastinate_jobs WHERE id = :id", id=row.id)
            return not found or found[0].status == "failed"

        await eventually(ended)
        if await self.notes.rows("SELECT id FROM jobs.procrastinate_jobs WHERE id = :id", id=row.id):
            raise RuntimeError("the job has failed")

    async def effect_of(self, tenant):
        return [
            row.body
            for row in await self.notes.rows("SELECT body FROM note WHERE tenant_id = :t ORDER BY body", t=tenant.id)
        ]


async def test_jobs_in_postgresql(service_database, tmp_path):
    make = TenantFactory()
    a, b = make(slug="tenant-a", external_id="a-51"), make(slug="tenant-b", external_id="b-52")
    async with notes_of(service_database("notes", MIGRATIONS), [a, b], tmp_path) as notes:
        queue = OfPostgres(notes)
        async with notes.working():
            report = await sweep_jobs(queue, a, b, tenant_at=("tenant_id",))
    assert {"no tenant", "tenant_id of nobody", "arguments.owner of another tenant"} <= report.tried.keys()


class OfCelery:
    """A task that remembers for whom it was run, with the broker in memory and a worker of one thread."""

    def __init__(self, directory):
        self.made: dict[UUID, list[int]] = defaultdict(list)
        self.app = carry_tenants(Celery("product", broker="memory://", backend="cache+memory://"), directory)
        self.app.conf.update(
            task_default_queue=f"q-{uuid.uuid4().hex}", broker_transport_options={"polling_interval": 0.01}
        )

        @self.app.task(shared=False, name="note")
        def note(number: int, owner: str) -> None:
            self.made[current_tenant().id].append(number)

        self.task = note

    async def publish(self, number):
        held = f"held-{uuid.uuid4().hex}"
        tenant = str(current_tenant().id)
        await asyncio.to_thread(self.task.apply_async, kwargs={"number": number, "owner": tenant}, queue=held)

        def take():
            with self.app.connection_for_read() as connection, connection.SimpleQueue(held) as queue:
                message = queue.get(timeout=10)
                message.ack()
                return {"tenant": message.headers.get(TENANT_HEADER), "arguments": message.payload[1]}

        return await asyncio.to_thread(take)

    async def run(self, envelope):
        headers = {TENANT_HEADER: envelope["tenant"]} if "tenant" in envelope else {}

        def wait():
            self.app.send_task("note", kwargs=envelope["arguments"], headers=headers).get(timeout=30, interval=0.01)

        await asyncio.to_thread(wait)

    async def effect_of(self, tenant):
        return sorted(self.made[tenant.id])


@pytest.fixture
def tenants():
    make = TenantFactory()
    return [make(slug="tenant-a"), make(slug="tenant-b")]


async def test_tasks_of_celery(tenants):
    queue = OfCelery(LocalDirectory.of(tenants))
    with start_worker(queue.app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
        report = await sweep_jobs(queue, *tenants, tenant_at=("tenant",))
    assert {"no tenant", "tenant of nobody", "arguments.owner of another tenant"} <= report.tried.keys()
