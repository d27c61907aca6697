import pytest
from jobs_product import MIGRATIONS, notes_of
from sqlalchemy import text

from tenantry.jobs import Job
from tenantry.testing import TenantFactory


@pytest.fixture(scope="module")
def database(service_database):
    return service_database("notes", MIGRATIONS)


@pytest.fixture
def tenant_a():
    return TenantFactory()(slug="tenant-a")


@pytest.fixture
def tenant_b():
    return TenantFactory()(slug="tenant-b")


@pytest.fixture
async def notes(database, tenant_a, tenant_b, tmp_path):
    async with notes_of(database, [tenant_a, tenant_b], tmp_path) as notes:
        yield notes
        # The next test has tenants that are not these, and looks at every job.
        await notes.rows("DELETE FROM jobs.procrastinate_jobs RETURNING id")


@pytest.fixture
def write_note(notes):
    """A task that leaves a note."""

    @notes.jobs.task("write_note", retry=None)
    async def write_note(job: Job, body: str) -> None:
        async with job.session() as session:
            await session.execute(
                text("INSERT INTO note VALUES (:tenant_id, gen_random_uuid(), :body)"),
                {"tenant_id": job.tenant.id, "body": body},
            )

    return write_note
