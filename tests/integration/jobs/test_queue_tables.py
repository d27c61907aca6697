"""What a tenant's session may do with the queue by SQL: queue jobs in its own name, and see how they stand."""

import json

import pytest
from jobs_product import CATALOGUE
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

PROCRASTINATE = """
    SELECT jobs.procrastinate_defer_jobs_v1(ARRAY[
        ROW('tenants', 'write_note', 0, NULL, NULL, CAST(:args AS jsonb), NULL)::jobs.procrastinate_job_to_defer_v1])
"""
BY_HAND = (
    "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args) VALUES ('tenants', 'x', CAST(:args AS jsonb))"
)


async def test_the_database_is_what_the_catalogue_says(notes):
    async with notes.tenancy.databases.system_session() as session:
        assert await CATALOGUE.audit(await session.connection()) == []


@pytest.mark.parametrize("statement", [PROCRASTINATE, BY_HAND])
async def test_a_session_of_a_queues_nothing_for_b(notes, tenant_a, tenant_b, statement):
    args = {"args": json.dumps({"tenant_id": str(tenant_b.id), "arguments": {}})}
    with pytest.raises(DBAPIError, match="row-level security"):
        async with notes.tenancy.databases.tenant_session(tenant_a) as session:
            await session.execute(text(statement), args)
    async with notes.tenancy.databases.tenant_session(tenant_b) as session:
        await session.execute(text(statement), args)
    assert [row.tenant_id for row in await notes.queued()] == [tenant_b.id]


@pytest.mark.parametrize("statement", [PROCRASTINATE, BY_HAND])
@pytest.mark.parametrize("args", [{}, {"tenant_id": None}, {"arguments": {"tenant_id": "x"}}])
async def test_a_job_without_a_tenant_cannot_be_written_not_even_by_the_system_role(notes, statement, args):
    with pytest.raises(DBAPIError, match='null value in column "tenant_id"'):
        await notes.rows(statement + (" RETURNING id" if statement is BY_HAND else ""), args=json.dumps(args))
    assert await notes.queued() == []


async def test_a_session_of_a_sees_no_job_of_b(notes, tenant_a, tenant_b, write_note):
    for_b = await notes.defer(tenant_b, write_note, "for b")
    for_a = await notes.defer(tenant_a, write_note, "for a")
    async with notes.tenancy.databases.tenant_session(tenant_a) as session:
        assert (await session.scalars(text("SELECT id FROM jobs.procrastinate_jobs"))).all() == [for_a]
        assert await notes.jobs.state(session, for_b) is None
        assert (await notes.jobs.state(session, for_a)).status == "todo"


async def test_a_lock_of_a_is_no_lock_of_b(notes, tenant_a, tenant_b):
    """A unique key asks no policy: it would tell A which names B has."""
    statement = text(
        "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)"
        " VALUES ('tenants', 'x', 'nightly', 'nightly', CAST(:args AS jsonb))"
    )
    for tenant in (tenant_a, tenant_b):
        async with notes.tenancy.databases.tenant_session(tenant) as session:
            await session.execute(statement, {"args": json.dumps({"tenant_id": str(tenant.id), "arguments": {}})})
    await notes.rows("UPDATE jobs.procrastinate_jobs SET status = 'doing' RETURNING id")
    assert len(await notes.queued()) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs.procrastinate_jobs SET priority = 9",
        "DELETE FROM jobs.procrastinate_jobs",
        "SELECT * FROM jobs.procrastinate_events",
        "INSERT INTO jobs.procrastinate_events (job_id, type) SELECT id, 'failed' FROM jobs.procrastinate_jobs",
        "INSERT INTO jobs.procrastinate_jobs (queue_name, task_name, args, status) VALUES ('t', 'x', '{}', 'doing')",
        "SELECT jobs.procrastinate_fetch_job_v2(NULL, 1)",
        "SELECT jobs.procrastinate_finish_job_v1(id, 'failed', false) FROM jobs.procrastinate_jobs",
        "SELECT jobs.procrastinate_register_worker_v1()",
    ],
)
async def test_a_session_of_a_changes_no_job(notes, tenant_a, write_note, statement):
    await notes.defer(tenant_a, write_note, "for a")
    with pytest.raises(DBAPIError, match="permission denied"):
        async with notes.tenancy.databases.tenant_session(tenant_a) as session:
            await session.execute(text(statement))


async def test_an_unbound_connection_of_the_service_queues_and_sees_nothing(notes, tenant_a, write_note):
    await notes.defer(tenant_a, write_note, "for a")
    args = json.dumps({"tenant_id": str(tenant_a.id), "arguments": {}})
    async with notes.database.connect("service") as connection:
        assert await connection.fetch("SELECT * FROM jobs.procrastinate_jobs") == []
        with pytest.raises(Exception, match="row-level security"):
            await connection.execute(BY_HAND.replace(":args", "$1"), args)
