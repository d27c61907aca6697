"""A job runs as the tenant that queued it: with its session, its name in logs and traces, its rights of the moment."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from jobs_product import MIGRATIONS
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text

from tenantry import (
    Isolation,
    NotFound,
    TenantAlreadyBound,
    TenantStatus,
    Unavailable,
    configure_tracing,
    current_request_id,
    current_tenant,
    current_tenant_or_none,
    span,
)
from tenantry._tracing import stop_tracing
from tenantry.database import Places
from tenantry.jobs import Job, RetryStrategy
from tenantry.testing import TenantFactory, eventually

CANARY = "canary-4e1d"


async def test_a_job_runs_in_its_tenants_scope_alone(notes, tenant_a, tenant_b):
    seen = []

    @notes.jobs.task("look")
    async def look(job: Job) -> None:
        async with job.session() as session:
            bound = await session.scalar(text("SELECT current_setting('app.tenant_id')"))
            await session.execute(
                text("INSERT INTO note VALUES (:t, gen_random_uuid(), 'mine')"), {"t": current_tenant().id}
            )
        seen.append((job.tenant.id, current_tenant().id, str(bound), current_request_id()))
        other = tenant_b if job.tenant.id == tenant_a.id else tenant_a
        with pytest.raises(TenantAlreadyBound):
            notes.tenancy.databases.tenant_session(other)
        with pytest.raises(TenantAlreadyBound), notes.tenancy.databases.sync.tenant_session(other):
            pass

    async with notes.working():
        for tenant in (tenant_a, tenant_b, tenant_a):
            await notes.defer(tenant, look)
        await notes.none_left()
    assert sorted(seen, key=str) == sorted(
        ((t.id, t.id, str(t.id), None) for t in (tenant_a, tenant_a, tenant_b)), key=str
    )
    assert current_tenant_or_none() is None
    for tenant, count in ((tenant_a, 2), (tenant_b, 1)):
        async with notes.tenancy.databases.tenant_session(tenant, read_only=True) as session:
            assert await session.scalar(text("SELECT count(*) FROM note")) == count


@pytest.mark.parametrize("isolation", [Isolation.SCHEMA, Isolation.DATABASE])
async def test_places_of_ones_own_have_jobs_too(notes, isolation):
    tenant = TenantFactory()(isolation=isolation)
    assert tenant.placement is not None
    if isolation is Isolation.DATABASE:
        notes.database.owns_database_of(tenant.id)
    await Places("notes", notes.database.settings(), directory=MIGRATIONS).provide(tenant.id, tenant.placement)
    notes.source.directory.upsert(tenant)
    done = asyncio.Event()

    @notes.jobs.task("work")
    async def work(job: Job) -> None:
        async with job.session() as session:
            assert await session.scalar(text("SELECT count(*) FROM note")) == 0
        done.set()

    async with notes.working():
        await notes.defer(tenant, work)
        async with asyncio.timeout(20):
            await done.wait()


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    configure_tracing("notes", exporter=exporter)
    yield exporter
    stop_tracing()


async def test_a_job_goes_on_in_the_trace_of_who_queued_it(notes, tenant_a, spans, write_note):
    with span("request", "server") as request:
        assert request is not None
        position = request.get_span_context()
        await notes.defer(tenant_a, write_note, "traced")
    async with notes.working():
        await notes.none_left()
    (job,) = [each for each in spans.get_finished_spans() if each.name == "process write_note"]
    assert job.context.trace_id == position.trace_id
    assert job.parent.span_id == position.span_id
    assert job.attributes["tenant.id"] == str(tenant_a.id)


async def test_what_fails_is_tried_again_and_then_kept_with_its_reason(notes, tenant_a, caplog):
    attempts = []

    @notes.jobs.task("flaky", retry=RetryStrategy(max_attempts=2))
    async def flaky(job: Job, secret: str) -> None:
        attempts.append(job.attempt)
        raise ValueError(f"cannot use {secret}")

    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as logged:
        job_id = await notes.defer(tenant_a, flaky, CANARY)
        async with notes.working():
            await eventually(lambda: _has_status(notes, job_id, "failed"), within=60)
    assert attempts == [1, 2, 3]
    async with notes.tenancy.databases.tenant_session(tenant_a) as session:
        state = await notes.jobs.state(session, job_id)
    assert (state.status, state.attempts, state.error_type) == ("failed", 3, "internal-error")
    assert state.error_text.startswith("ValueError at test_worker.py:")
    assert CANARY not in state.error_text
    assert CANARY not in caplog.text + repr(logged)
    failures = [event for event in logged if event["event"] == "job_failed"]
    assert [event["attempt"] for event in failures] == [1, 2, 3]
    assert {event["tenant_id"] for event in failures} == {str(tenant_a.id)}


async def _has_status(notes, job_id, status):
    rows = await notes.rows("SELECT status::text FROM jobs.procrastinate_jobs WHERE id = :id", id=job_id)
    return [row.status for row in rows] == [status]


async def test_what_is_expected_and_lasting_is_not_tried_again(notes, tenant_a):
    attempts = []

    @notes.jobs.task("gone")
    async def gone(job: Job) -> None:
        attempts.append(job.attempt)
        raise NotFound("There is no such document.")

    job_id = await notes.defer(tenant_a, gone)
    async with notes.working():
        await eventually(lambda: _has_status(notes, job_id, "failed"), within=60)
    (kept,) = await notes.queued()
    assert (kept.error_type, kept.error_text, attempts) == ("not-found", "There is no such document.", [1])


async def test_what_is_unavailable_is_tried_again_no_sooner_than_it_says(notes, tenant_a):
    @notes.jobs.task("away", retry=RetryStrategy(max_attempts=2))
    async def away(job: Job) -> None:
        raise Unavailable("The printer is off.", retry_after=3600)

    job_id = await notes.defer(tenant_a, away)
    async with notes.working():
        await eventually(lambda: _has_error(notes, job_id), within=60)
    (kept,) = await notes.queued()
    assert (kept.status, kept.error_type) == ("todo", "unavailable")
    assert kept.scheduled_at > datetime.now(UTC) + timedelta(minutes=55)


async def _has_error(notes, job_id):
    (row,) = await notes.rows("SELECT error_type FROM jobs.procrastinate_jobs WHERE id = :id", id=job_id)
    return row.error_type is not None


async def test_an_attempt_takes_no_longer_than_its_task_may(notes, tenant_a):
    @notes.jobs.task("slow", retry=None, seconds=0.05)
    async def slow(job: Job) -> None:
        await asyncio.Event().wait()

    job_id = await notes.defer(tenant_a, slow)
    async with notes.working():
        await eventually(lambda: _has_status(notes, job_id, "failed"), within=60)


async def test_a_job_for_later_runs_when_it_is_time(notes, tenant_a, write_note):
    async with notes.tenancy.databases.tenant_session(tenant_a) as session:
        await notes.jobs.defer_at(session, datetime.now(UTC) + timedelta(seconds=0.3), write_note, "later")
    async with notes.working():
        await notes.none_left()
    assert [row.body for row in await _notes(notes, tenant_a)] == ["later"]


async def _notes(notes, tenant):
    return await notes.rows("SELECT body FROM pool.note WHERE tenant_id = :t ORDER BY body", t=tenant.id)


SUSPENDED = {"status": TenantStatus.SUSPENDED, "suspension_reasons": ("billing",)}


@pytest.mark.parametrize("stop", [SUSPENDED, {"moving": True}, {"status": TenantStatus.OFFBOARDING}], ids=str)
async def test_jobs_of_a_tenant_that_may_not_work_wait_for_it(notes, tenant_a, tenant_b, write_note, stop):
    await notes.defer(tenant_a, write_note, "patient")
    notes.change(tenant_a, **stop)
    async with notes.working():
        await notes.defer(tenant_b, write_note, "served")
        await eventually(lambda: _only(notes, tenant_a), within=60)
        (waiting,) = await notes.queued()
        assert (waiting.status, waiting.attempts) == ("todo", 0)
        notes.change(tenant_a, status=TenantStatus.ACTIVE, suspension_reasons=(), moving=False)
        await notes.none_left()
    assert [row.body for row in await _notes(notes, tenant_a)] == ["patient"]


async def _only(notes, tenant):
    return {row.tenant_id for row in await notes.queued()} == {tenant.id}


async def test_a_job_in_progress_stops_at_its_next_session_and_waits(notes, tenant_a):
    runs, reached = [], asyncio.Event()

    @notes.jobs.task("long", retry=None)
    async def long(job: Job) -> None:
        runs.append(job.attempt)
        reached.set()
        if len(runs) == 1:
            await asyncio.wait_for(suspended.wait(), 20)
        async with job.session() as session:
            await session.execute(text("INSERT INTO note VALUES (:t, gen_random_uuid(), 'done')"), {"t": job.tenant.id})

    suspended = asyncio.Event()
    job_id = await notes.defer(tenant_a, long)
    async with notes.working():
        await asyncio.wait_for(reached.wait(), 20)
        notes.change(tenant_a, **SUSPENDED)
        suspended.set()
        await eventually(lambda: _has_status(notes, job_id, "todo"), within=60)
        assert await _notes(notes, tenant_a) == []
        notes.change(tenant_a, status=TenantStatus.ACTIVE, suspension_reasons=())
        await notes.none_left()
    assert runs == [1, 1]  # the attempt that was stopped does not count


async def test_jobs_of_a_purged_tenant_are_discarded_and_never_run(notes, tenant_a, tenant_b, write_note):
    for n in range(3):
        await notes.defer(tenant_a, write_note, f"late {n}")
    notes.change(tenant_a, status=TenantStatus.PURGING)
    async with notes.working():
        await notes.defer(tenant_b, write_note, "served")
        await notes.none_left()
    assert await _notes(notes, tenant_a) == []
    assert len(await _notes(notes, tenant_b)) == 1


async def test_jobs_of_a_tenant_that_nobody_knows_are_not_run(notes, tenant_b, write_note):
    stranger = TenantFactory()()
    await notes.defer(stranger, write_note, "whose?")
    async with notes.working():
        await notes.defer(tenant_b, write_note, "served")
        await eventually(lambda: _only(notes, stranger), within=60)
        # The directory may only be late.
        notes.source.directory.upsert(stranger)
        await notes.none_left()
    assert [row.body for row in await _notes(notes, stranger)] == ["whose?"]


async def test_a_job_that_this_code_cannot_read_waits_for_newer_code(notes, tenant_a):
    @notes.jobs.task("measure")
    async def measure(job: Job, sample: int) -> None: ...

    for args in ({"task": "unknown", "arguments": {}}, {"task": "measure", "arguments": {"sample": 1, "unit": "m"}}):
        await notes.rows(
            "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args) VALUES ('tenants', :task,"
            " jsonb_build_object('tenant_id', CAST(:tenant AS text), 'arguments', CAST(:arguments AS jsonb)))"
            " RETURNING id",
            tenant=str(tenant_a.id),
            task=args["task"],
            arguments=str(args["arguments"]).replace("'", '"'),
        )
    async with notes.working():
        await eventually(lambda: _all_noted(notes), within=60)
    assert [(row.status, row.error_type, row.attempts) for row in await notes.queued()] == [
        ("todo", "unreadable-job", 1)
    ] * 2


async def _all_noted(notes):
    return all(row.error_type for row in await notes.queued())


async def test_a_worker_that_is_stopped_gives_its_jobs_back(notes, tenant_a):
    reached = asyncio.Event()

    @notes.jobs.task("endless")
    async def endless(job: Job) -> None:
        reached.set()
        await asyncio.Event().wait()

    await notes.defer(tenant_a, endless)
    async with notes.working():
        await asyncio.wait_for(reached.wait(), 20)
    (queued,) = await notes.queued()
    assert (queued.status, queued.attempts) == ("todo", 0)
    assert await notes.rows("SELECT id FROM jobs.procrastinate_workers") == []


async def test_work_that_ends_in_time_is_waited_for(notes, tenant_a):
    reached, may_end = asyncio.Event(), asyncio.Event()

    @notes.jobs.task("ends")
    async def ends(job: Job) -> None:
        reached.set()
        await may_end.wait()

    await notes.defer(tenant_a, ends)
    async with notes.working(drain_seconds=20.0):
        await asyncio.wait_for(reached.wait(), 20)
        asyncio.get_running_loop().call_later(0.1, may_end.set)
    assert await notes.queued() == []
