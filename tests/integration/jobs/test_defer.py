"""A job is queued with the rows of the transaction that wants it, or not at all."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from tenantry import NoTenant, TenantAlreadyBound, tenant_scope, uuid7
from tenantry.jobs import Job, JobTooLarge


class Unhappy(Exception):
    pass


async def test_a_job_is_committed_with_the_rows(notes, tenant_a, write_note):
    async with notes.tenancy.databases.tenant_session(tenant_a) as session:
        await session.execute(text("INSERT INTO note VALUES (:t, gen_random_uuid(), 'x')"), {"t": tenant_a.id})
        job_id = await notes.jobs.defer(session, write_note, "later")
        assert await notes.queued() == []  # others see it when it is committed
    (queued,) = await notes.queued(tenant_a)
    assert (queued.id, queued.task_name, queued.status) == (job_id, "write_note", "todo")
    assert queued.args == {"tenant_id": str(tenant_a.id), "arguments": {"body": "later"}}


async def test_a_rolled_back_transaction_leaves_no_job(notes, tenant_a, write_note):
    async def queue_and_fail():
        async with notes.tenancy.databases.tenant_session(tenant_a) as session:
            await notes.jobs.defer(session, write_note, "never")
            raise Unhappy

    with pytest.raises(Unhappy):
        await queue_and_fail()
    assert await notes.queued() == []


async def test_a_savepoint_takes_its_job_along(notes, tenant_a, write_note):
    async def queue_and_fail(session):
        async with session.begin_nested():
            await notes.jobs.defer(session, write_note, "never")
            raise Unhappy

    async with notes.tenancy.databases.tenant_session(tenant_a) as session:
        with pytest.raises(Unhappy):
            await queue_and_fail(session)
        await notes.jobs.defer(session, write_note, "kept")
    assert [row.args["arguments"]["body"] for row in await notes.queued()] == ["kept"]


async def test_nobodys_session_queues_nothing(notes, write_note):
    async with notes.tenancy.databases.system_session() as session:
        with pytest.raises(NoTenant, match="queued in that tenant's session"):
            await notes.jobs.defer(session, write_note, "x")
    assert await notes.queued() == []


async def test_the_session_decides_whose_job_it_is(notes, tenant_a, tenant_b, write_note):
    """In the scope of another tenant it is refused, as every other use of the session is."""
    async with notes.tenancy.databases.tenant_session(tenant_a) as session:
        with tenant_scope(tenant_b), pytest.raises(TenantAlreadyBound):
            await notes.jobs.defer(session, write_note, "x")
    assert await notes.queued() == []


async def test_code_that_is_not_async_queues_too(notes, tenant_a, write_note):
    with notes.tenancy.databases.sync.tenant_session(tenant_a) as session:
        notes.jobs.defer_sync(session, write_note, "sync")
    assert [row.args["arguments"]["body"] for row in await notes.queued(tenant_a)] == ["sync"]


async def test_a_job_for_later_is_not_ready(notes, tenant_a, write_note):
    at = datetime.now(UTC) + timedelta(hours=1)
    async with notes.tenancy.databases.tenant_session(tenant_a) as session:
        await notes.jobs.defer_at(session, at, write_note, "later")
    (queued,) = await notes.queued()
    assert queued.scheduled_at == at


async def test_arguments_are_what_the_task_takes(notes, tenant_a):
    @notes.jobs.task("measure")
    async def measure(job: Job, sample: UUID, *, at: datetime, factor: int = 1) -> None: ...

    now = datetime.now(UTC)
    await notes.defer(tenant_a, measure, uuid7(), at=now)
    (queued,) = await notes.queued()
    assert measure.unpack(queued.args["arguments"]) == {
        "sample": UUID(queued.args["arguments"]["sample"]),
        "at": now,
        "factor": 1,
    }
    for wrong in ({"sample": "canary-7"}, {"sample": uuid7(), "factor": "x"}, {"nobody": 1}):
        with pytest.raises(TypeError) as refused:
            await notes.defer(tenant_a, measure, **{"at": now, **wrong})
        assert "canary" not in str(refused.value)
    assert len(await notes.queued()) == 1


async def test_arguments_name_data_and_are_not_data(notes, tenant_a, write_note):
    with pytest.raises(JobTooLarge):
        await notes.defer(tenant_a, write_note, "x" * 20_000)
    assert await notes.queued() == []
