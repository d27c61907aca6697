"""What this service does for its tenants later. Each may run more than once."""

from datetime import datetime
from uuid import UUID

from app_service import exports
from app_service.archive import new_archive
from app_service.dependencies import announce
from app_service.models import Export
from tenantry import Tenant, uuid7
from tenantry.database import WriteSession
from tenantry.jobs import Job, Jobs

jobs = Jobs()


@jobs.task("write_export", seconds=3600)
async def write_export(job: Job, export_id: UUID) -> None:
    """Writes an archive of everything that the tenant has; one that is there already stays."""
    async with new_archive() as archive:
        packed = await exports.fill(archive, job.tenant, lambda: job.session(read_only=True), job.clock.now())
        async with job.session() as session:
            change = await exports.store(session, job.tenant, job.clock, export_id, archive, packed)
    await announce(job.tenancy, change)


@jobs.task("expire_export")
async def expire_export(job: Job, export_id: UUID) -> None:
    async with job.session() as session:
        change = await exports.expire(session, job.tenant, job.clock, export_id)
    await announce(job.tenancy, change)


async def request_export(session: WriteSession, tenant: Tenant, *, now: datetime, expires_at: datetime) -> Export:
    """The new export, with the jobs that write it and, in the end, delete it. The caller commits all of it at once."""
    export_id = uuid7()
    export = Export(
        tenant_id=tenant.id,
        id=export_id,
        job_id=await jobs.defer(session, write_export, export_id),
        created_at=now,
        expires_at=expires_at,
        documents=0,
        files=0,
        size=0,
    )
    session.add(export)
    await jobs.defer_at(session, expires_at, expire_export, export_id)
    await session.flush()
    return export
