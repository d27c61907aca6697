"""A worker that dies, or only seems to, in the middle of a job."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
from sqlalchemy import text

from tenantry.jobs import Job, RetryStrategy
from tenantry.testing import eventually

# A process of its own: a worker that says when it is in the middle of a job, and never ends it.
WORKER = """
import asyncio, sys
from pathlib import Path
import msgspec
sys.path.append(sys.argv[1])
from jobs_product import QUICK
from local_state import GivenState
from tenantry import Tenancy, TenancySettings, Tenant
from tenantry.database import Databases, DatabaseSettings
from tenantry.jobs import Job, JobWorker, Jobs

jobs = Jobs()

@jobs.task("write_once")
async def write_once(job: Job) -> None:
    print("in the middle", flush=True)
    await asyncio.Event().wait()

async def main():
    tenant = msgspec.json.decode(sys.argv[2], type=Tenant)
    databases = Databases("notes", DatabaseSettings.from_env("notes"))
    settings = TenancySettings(issuer="https://issuer.test", state_dir=Path(sys.argv[3]))
    async with Tenancy("notes", settings, source=GivenState([tenant]), databases=databases).run() as tenancy:
        await JobWorker(jobs, tenancy, QUICK).run()

asyncio.run(main())
"""


async def test_the_job_of_a_killed_worker_is_run_by_another(notes, tenant_a, tmp_path):
    @notes.jobs.task("write_once")
    async def write_once(job: Job) -> None:
        async with job.session() as session:
            await session.execute(
                text("INSERT INTO note VALUES (:t, gen_random_uuid(), :body)"),
                {"t": job.tenant.id, "body": f"attempt {job.attempt}"},
            )

    await notes.defer(tenant_a, write_once)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WORKER,
        str(Path(__file__).parents[2] / "support"),
        msgspec.json.encode(tenant_a).decode(),
        str(tmp_path / "other"),
        env={"PATH": os.environ["PATH"], **notes.database.environment()},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            assert process.stdout is not None
            await process.stdout.readline()
        (queued,) = await notes.queued()
        assert queued.status == "doing"
    finally:
        process.kill()
        await process.wait()
    async with notes.working():
        await notes.none_left()
    assert await notes.rows("SELECT body FROM pool.note WHERE tenant_id = :t", t=tenant_a.id) == [("attempt 2",)]


async def test_a_job_that_kills_its_workers_is_given_up(notes, tenant_a):
    @notes.jobs.task("poison", retry=RetryStrategy(max_attempts=1))
    async def poison(job: Job) -> None: ...

    job_id = await notes.defer(tenant_a, poison)
    await notes.rows("UPDATE jobs.procrastinate_jobs SET status = 'doing', attempts = 1 RETURNING id")
    async with notes.working():
        await eventually(lambda: _is(notes, job_id, "failed"), within=60)
    (kept,) = await notes.queued()
    assert (kept.error_type, kept.attempts) == ("worker-lost", 2)


async def _is(notes, job_id, status):
    rows = await notes.rows("SELECT status::text FROM jobs.procrastinate_jobs WHERE id = :id", id=job_id)
    return [row.status for row in rows] == [status]


async def test_a_job_whose_claim_was_never_heard_of_is_run_all_the_same(notes, tenant_a, write_note):
    async with notes.working():
        await notes.defer(tenant_a, write_note, "first")
        await notes.none_left()
        # The claim is committed, and the connection breaks before it is told.
        await notes.rows(
            "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args, status, worker_id)"
            " SELECT 'tenants', 'write_note', jsonb_build_object('tenant_id', CAST(:tenant AS text), 'arguments',"
            " jsonb_build_object('body', 'second')), 'doing', max(id) FROM jobs.procrastinate_workers RETURNING id",
            tenant=str(tenant_a.id),
        )
        await notes.none_left()
    bodies = await notes.rows("SELECT body FROM pool.note WHERE tenant_id = :t ORDER BY body", t=tenant_a.id)
    assert [row.body for row in bodies] == ["first", "second"]


async def test_a_worker_that_was_taken_for_dead_has_no_say_any_more(notes, tenant_a):
    """Its job is somebody else's by now; that it ends, or fails, must not end the other's."""
    reached, may_end = asyncio.Event(), asyncio.Event()

    @notes.jobs.task("slow")
    async def slow(job: Job) -> None:
        reached.set()
        await may_end.wait()

    job_id = await notes.defer(tenant_a, slow)
    async with notes.working(heartbeat_seconds=1000.0, lost_after_seconds=10_000.0):
        await asyncio.wait_for(reached.wait(), 20)
        # Another worker took this one for dead, and runs the job.
        await notes.rows("DELETE FROM jobs.procrastinate_workers RETURNING id")
        await notes.rows("UPDATE jobs.procrastinate_jobs SET worker_id = NULL RETURNING id")
        other = (await notes.rows("SELECT worker_id FROM jobs.procrastinate_register_worker_v1()"))[0].worker_id
        await notes.rows("UPDATE jobs.procrastinate_jobs SET worker_id = :other RETURNING id", other=other)
        may_end.set()
        await eventually(lambda: _has_ended(job_id), within=60)
        (queued,) = await notes.queued()
        assert (queued.status, queued.worker_id) == ("doing", other)


async def _has_ended(job_id):
    return not any(task.get_name() == f"job {job_id}" for task in asyncio.all_tasks())


async def test_a_worker_that_hears_that_it_is_dead_stops_its_jobs_and_goes_on_as_another(notes, tenant_a):
    runs, ended = [], asyncio.Event()

    @notes.jobs.task("slow")
    async def slow(job: Job) -> None:
        runs.append(job.attempt)
        if len(runs) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    await notes.defer(tenant_a, slow)
    async with notes.working():
        await eventually(lambda: _holds(runs), within=60)
        await notes.rows("DELETE FROM jobs.procrastinate_workers RETURNING id")
        await asyncio.wait_for(ended.wait(), 20)
        await notes.none_left()
    assert runs == [1, 2]


async def _holds(runs):
    return bool(runs)


async def test_two_workers_never_have_one_job(notes, tenant_a, tenant_b):
    runs = []

    @notes.jobs.task("count")
    async def count(job: Job, number: int) -> None:
        runs.append((job.tenant.slug, number))
        await asyncio.sleep(0)

    for tenant in (tenant_a, tenant_b):
        async with notes.tenancy.databases.tenant_session(tenant) as session:
            for number in range(100):
                await notes.jobs.defer(session, count, number)
    async with notes.working(), notes.working():
        await notes.none_left()
    assert sorted(runs) == sorted((slug, number) for slug in ("tenant-a", "tenant-b") for number in range(100))
