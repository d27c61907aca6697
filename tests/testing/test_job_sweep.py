"""The job sweep finds nothing in the product's worker, and each worker that works for another tenant than it should."""

import contextlib
from typing import Any
from uuid import UUID

import pytest
from boards_product import count_job, run_job
from sqlalchemy import text

from tenantry import current_tenant, current_tenant_or_none
from tenantry.testing import SweepFailed, sweep_jobs


class Queue:
    """The product's jobs; `work` runs one."""

    def __init__(self, world, work=run_job):
        self.world = world
        self.work = work

    async def publish(self, number):
        tenant = str(current_tenant().id)
        return {"tenant_id": tenant, "arguments": {"owner": tenant, "number": number}}

    async def run(self, envelope):
        await self.work(self.world.tenancy, envelope)

    async def effect_of(self, tenant):
        async with self.world.databases.tenant_session(tenant, read_only=True) as session:
            return list(await session.scalars(text("SELECT name FROM tally ORDER BY name")))


async def swept(world, *work, queue=Queue):
    return await sweep_jobs(queue(world, *work), world.a, world.b, tenant_at=("tenant_id",))


async def failed(world, *work, **options):
    with pytest.raises(SweepFailed) as raised:
        await swept(world, *work, **options)
    return raised.value.report


async def test_nothing_is_found_in_the_product(world):
    report = await swept(world)
    assert {"no tenant", "tenant_id of nobody", "arguments.owner of another tenant"} <= report.tried.keys()


async def write(tenancy, tenant, number):
    async with tenancy.databases.tenant_session(tenant) as session:
        await count_job(session, tenant.id, {"number": number})


async def trust_the_argument(tenancy, envelope):
    tenant = tenancy.directory.get(UUID(envelope["arguments"]["owner"]))
    await write(tenancy, tenant, envelope["arguments"]["number"])


LAST: list[Any] = []


async def work_for_the_last(tenancy, envelope):
    with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError):
        LAST[:] = [tenancy.directory.get(UUID(envelope["tenant_id"]))]
    await write(tenancy, LAST[0], envelope["arguments"]["number"])


async def work_for_whom_it_began(tenancy, envelope):
    """One worker for the process, in a context that was copied when its first job came."""
    LAST.append(tenancy.directory.get(UUID(envelope["tenant_id"])))
    await write(tenancy, LAST[0], envelope["arguments"]["number"])


async def work_for_anybody(tenancy, envelope):
    tenant = UUID(envelope["tenant_id"])
    async with tenancy.databases.system_session() as session:
        await session.execute(text("SET LOCAL search_path = pool"))
        await count_job(session, tenant, envelope["arguments"])


@pytest.mark.parametrize(
    ("work", "position", "seen"),
    [
        (trust_the_argument, "arguments.owner of another tenant", "on B"),
        (work_for_the_last, "no tenant", "has an effect on"),
        (work_for_whom_it_began, "at the same time", "of B"),
        (work_for_anybody, "tenant_id of nobody", "on nobody"),
    ],
)
async def test_a_worker_of_the_wrong_tenant_is_found(world, work, position, seen):
    LAST.clear()
    report = await failed(world, work)
    assert any(leak.position == position and seen in leak.seen for leak in report.leaks), report


class DefaultTenant(Queue):
    """A job that nobody queued belongs to the first tenant there is."""

    async def publish(self, number):
        tenant = str(getattr(current_tenant_or_none(), "id", self.world.a.id))
        return {"tenant_id": tenant, "arguments": {"owner": tenant, "number": number}}


async def test_a_queue_with_a_default_tenant_is_found(world):
    report = await failed(world, queue=DefaultTenant)
    assert [leak.position for leak in report.leaks] == ["published without a tenant"]


async def test_a_job_without_an_effect_proves_nothing(world):
    async def nothing(tenancy, envelope):
        pass

    assert any("valid jobs of A have none" in each.seen for each in (await failed(world, nothing)).blind)
