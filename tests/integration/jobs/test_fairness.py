"""A tenant with ten thousand jobs does not keep the others waiting, and whose turn it is costs no look at its jobs."""

import asyncio
import json
from collections import Counter

import pytest
from sqlalchemy import text

from tenantry import Tier
from tenantry.jobs import Job
from tenantry.jobs._queue import _WAITING, CLAIM
from tenantry.testing import TenantFactory, eventually

LOUD_JOBS = 10_000
OTHERS = 20
THEIR_JOBS = 10


async def queue_many(notes, tenant, task, count):
    async with notes.tenancy.databases.tenant_session(tenant) as session:
        await session.execute(
            text(
                "SELECT jobs.procrastinate_defer_jobs_v1(array_agg(ROW('tenants', CAST(:task AS text), 0, NULL, NULL,"
                " CAST(:args AS jsonb), NULL)::jobs.procrastinate_job_to_defer_v1)) FROM generate_series(1, :count)"
            ),
            {"task": task.name, "args": json.dumps({"tenant_id": str(tenant.id), "arguments": {}}), "count": count},
        )


@pytest.fixture
def loud(notes):
    tenant = TenantFactory()(slug="loud")
    notes.source.directory.upsert(tenant)
    return tenant


@pytest.fixture
def quiet(notes):
    make = TenantFactory()
    tenants = [make() for _ in range(OTHERS)]
    for tenant in tenants:
        notes.source.directory.upsert(tenant)
    return tenants


@pytest.fixture
def ran(notes):
    return []


@pytest.fixture
def note_run(notes, ran):
    @notes.jobs.task("run")
    async def run(job: Job) -> None:
        async with job.session(read_only=True) as session:
            await session.scalar(text("SELECT count(*) FROM note"))
        ran.append(job.tenant.slug)

    return run


async def test_others_get_their_turns_beside_a_loud_tenant(notes, loud, quiet, note_run, ran):
    await queue_many(notes, loud, note_run, LOUD_JOBS)
    async with notes.working():
        # The loud one has had the workers to itself for a while.
        await eventually(lambda: _at_least(ran, 20), within=60)
        for tenant in quiet:
            await queue_many(notes, tenant, note_run, THEIR_JOBS)
        before = len(ran)
        await eventually(lambda: _count(ran, quiet), within=60)
    last = max(n for n, slug in enumerate(ran) if slug != "loud")
    loud_meanwhile = ran[before : last + 1].count("loud")
    # Fair shares: while each of 20 had 10 turns, the loud one had about 10 too, beside what the reserve left it.
    assert loud_meanwhile <= 4 * THEIR_JOBS, loud_meanwhile


async def _at_least(ran, count):
    return len(ran) >= count


async def _count(ran, quiet):
    return sum(slug != "loud" for slug in ran) == len(quiet) * THEIR_JOBS


async def test_turns_follow_the_weight_of_the_tier(notes, note_run, ran):
    make = TenantFactory()
    heavy, light = make(slug="heavy", tier="big"), make(slug="light", tier="small")
    for name, weight in (("big", 3), ("small", 1)):
        notes.source.directory.upsert_tier(Tier(name=name, version=1, limits={"weight": weight}))
    for tenant in (heavy, light):
        notes.source.directory.upsert(tenant)
        await queue_many(notes, tenant, note_run, 200)
    async with notes.working(concurrency=1, reserve=0):
        await eventually(lambda: _at_least(ran, 120), within=60)
    share = ran[:120].count("heavy") / 120
    assert 0.7 <= share <= 0.8, share


async def test_the_next_job_is_found_without_a_look_at_the_others(notes, loud, tenant_a, note_run):
    """Figures of PostgreSQL: rows that the plans touched, with ten thousand jobs of somebody else in the queue."""
    # Statistics that are taken in the middle of the queueing say that the queue is empty, and any index will do.
    async with notes.database.connect() as connection:
        await connection.execute("ALTER TABLE jobs.procrastinate_jobs SET (autovacuum_enabled = false)")
    await queue_many(notes, loud, note_run, LOUD_JOBS)
    await plans_touch_few_rows(notes, loud, tenant_a)
    # What statistics say of a queue is always old: here, that there is one tenant and no other.
    await analyze(notes)
    await queue_many(notes, tenant_a, note_run, 1)
    await plans_touch_few_rows(notes, loud, tenant_a)
    await notes.rows("UPDATE jobs.procrastinate_jobs SET status = 'failed' WHERE id % 2 = 0 RETURNING id")
    await plans_touch_few_rows(notes, loud, tenant_a)
    await analyze(notes)
    await plans_touch_few_rows(notes, loud, tenant_a)


async def analyze(notes):
    async with notes.database.connect() as connection:
        await connection.execute("VACUUM ANALYZE jobs.procrastinate_jobs")


async def plans_touch_few_rows(notes, *tenants):
    async with notes.tenancy.databases.system_session() as session:
        worker_id = await session.scalar(text("SELECT worker_id FROM jobs.procrastinate_register_worker_v1()"))
        for tenant in tenants:
            touched = await _touched(session, CLAIM.text, tenant_id=tenant.id, worker_id=worker_id)
            assert touched < 20, (tenant.slug, touched)
        touched = await _touched(session, _WAITING.text)
        assert touched < 20, touched
        await session.rollback()


async def _touched(session, statement, **values):
    plan = (await session.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), values)).scalar_one()
    return _rows(plan[0]["Plan"])


def _rows(node):
    own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return max([own, *(_rows(child) for child in node.get("Plans", ()))])


async def test_a_tenant_has_no_more_jobs_at_a_time_than_its_tier_says(notes, tenant_a, tenant_b, loud, note_run, ran):
    notes.source.directory.upsert_tier(Tier(name="standard", version=1, limits={"jobs": 2}))
    running: Counter[str] = Counter()
    may_end = asyncio.Event()

    @notes.jobs.task("meet")
    async def meet(job: Job) -> None:
        running[job.tenant.slug] += 1
        await asyncio.wait_for(may_end.wait(), 60)

    for tenant in (tenant_a, tenant_b):
        await queue_many(notes, tenant, meet, 10)
    async with notes.working(concurrency=8):
        await eventually(lambda: _at_least(list(running.elements()), 4), within=30)
        # There is room for more: that of a third tenant is run behind them.
        await queue_many(notes, loud, note_run, 3)
        await eventually(lambda: _at_least(ran, 3), within=30)
        assert running == {"tenant-a": 2, "tenant-b": 2}
        may_end.set()
        await notes.none_left()
    assert running == {"tenant-a": 10, "tenant-b": 10}
