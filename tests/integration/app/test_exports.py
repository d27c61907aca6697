"""Exports: asked for, written by a job as the tenant, counted, read, and gone when their time is up."""

import asyncio
import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text

from app_service import exports, jobs, repository
from app_service.models import DocumentFile, ExportChunk, StorageTotal
from tenantry import ManualClock, TenantStatus, Unavailable, uuid7
from tenantry.testing import eventually


async def requested(product, headers):
    """The path of a new export."""
    response = await product.client.post("/v1/exports", headers=headers)
    assert response.status_code == 202, response.text
    assert response.json()["state"] == "queued"
    return response.headers["location"]


async def becomes(product, headers, path, state):
    async def has_come():
        response = await product.client.get(path, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()["state"] == state and response.json()

    return await eventually(has_come, within=60)


async def queued(product, tenant):
    async with product.tenancy.databases.system_session() as session:
        return (
            await session.execute(
                text(
                    "SELECT id, task_name, status::text FROM jobs.procrastinate_jobs WHERE tenant_id = :t ORDER BY id"
                ),
                {"t": tenant.id},
            )
        ).all()


async def total_of(product, tenant):
    async with product.tenancy.databases.tenant_session(tenant, read_only=True) as session:
        return await session.scalar(select(StorageTotal.bytes))


async def test_everything_that_the_tenant_has_is_in_it_and_nothing_else(product, world, headers, document):
    data = bytes(range(256)) * 4000
    await product.client.put(f"{document}/files/käse.bin", content=data, headers=headers)
    before = await total_of(product, world.a)
    path = await requested(product, headers)
    async with product.working():
        ready = await becomes(product, headers, path, "ready")
    got = await product.client.get(f"{path}/content", headers=headers)
    assert (got.status_code, got.headers["content-type"]) == (200, "application/zip")
    assert (len(got.content), hashlib.sha256(got.content).hexdigest()) == (ready["size"], ready["sha256"])

    archive = zipfile.ZipFile(io.BytesIO(got.content))
    assert archive.testzip() is None
    lines = [json.loads(line) for line in archive.read("documents.ndjson").splitlines()]
    listed = (await product.client.get("/v1/documents?limit=200", headers=headers)).json()["items"]
    assert {line["id"] for line in lines} == {each["id"] for each in listed}
    assert all(line["body"] is not None for line in lines)
    document_id = document.rpartition("/")[2]
    assert archive.read(f"files/{document_id}/käse.bin") == data
    assert (ready["documents"], ready["files"]) == (len(lines), len(archive.namelist()) - 1)
    assert not world.leaks(got, of=world.b)
    assert world.canary(world.b) not in "".join(archive.namelist()) + archive.read("documents.ndjson").decode()

    # It takes room as a file does.
    assert await total_of(product, world.a) == before + ready["size"]
    assert product.spooled(world.a, "storage.bytes")[-1]["data"] == {
        "bytes": before + ready["size"],
        "delta": ready["size"],
    }


async def test_the_same_key_makes_one_export_and_its_jobs_once(product, world, headers):
    before = len(await queued(product, world.a))
    keyed = {**headers, "Idempotency-Key": "once"}
    first, again = [await product.client.post("/v1/exports", headers=keyed) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == again.headers["location"]
    assert len(await queued(product, world.a)) == before + 2  # one to write it, one to end it


async def test_an_export_that_is_not_written_yet_says_so(product, headers):
    path = await requested(product, headers)
    response = await product.client.get(f"{path}/content", headers=headers)
    assert (response.status_code, response.json()["type"]) == (409, "export-not-ready")
    document = (await product.client.get(path, headers=headers)).json()
    assert document["size"] is document["sha256"] is document["finished_at"] is None


async def test_a_failed_export_says_so_and_is_tried_again(product, headers, monkeypatch):
    async def fill(*_):
        raise Unavailable("The disk is full.", retry_after=3600)

    monkeypatch.setattr(exports, "fill", fill)
    path = await requested(product, headers)
    async with product.working():

        async def failed_once():
            document = (await product.client.get(path, headers=headers)).json()
            return (document["state"], document["error"]) == ("queued", "unavailable")

        await eventually(failed_once, within=60)


async def test_an_export_written_twice_is_kept_and_counted_once(product, world, headers):
    """As after a kill between the end of the work and its note."""
    path = await requested(product, headers)
    export_id = path.rpartition("/")[2]
    async with product.working():
        ready = await becomes(product, headers, path, "ready")
        total = await total_of(product, world.a)
        async with product.tenancy.databases.tenant_session(world.a) as session:
            job_id = await jobs.jobs.defer(session, jobs.write_export, export_id)

        async def has_ended():
            return job_id not in {row.id for row in await queued(product, world.a)}

        await eventually(has_ended, within=60)
    assert (await product.client.get(path, headers=headers)).json() == ready
    assert await total_of(product, world.a) == total


async def test_an_expired_export_is_gone_and_so_are_its_bytes(product, world, headers):
    before = await total_of(product, world.a)
    path = await requested(product, headers)
    async with product.working():
        ready = await becomes(product, headers, path, "ready")
        clock = product.tenancy.clock
        product.tenancy.clock = ManualClock(datetime.now(UTC) + timedelta(days=8))
        try:
            for gone in (path, f"{path}/content"):
                assert (await product.client.get(gone, headers=headers)).status_code == 404
        finally:
            product.tenancy.clock = clock
        async with product.tenancy.databases.system_session() as session:
            await session.execute(
                text(
                    "UPDATE jobs.procrastinate_jobs SET scheduled_at = now()"
                    " WHERE args->'arguments'->>'export_id' = :id"
                ),
                {"id": ready["id"]},
            )

        async def is_gone():
            return (await product.client.get(path, headers=headers)).status_code == 404

        await eventually(is_gone, within=60)
    async with product.tenancy.databases.tenant_session(world.a, read_only=True) as session:
        left = await session.scalar(
            select(func.count()).select_from(ExportChunk).where(ExportChunk.export_id == ready["id"])
        )
    assert (left, await total_of(product, world.a)) == (0, before)
    assert product.spooled(world.a, "storage.bytes")[-1]["data"] == {"bytes": before, "delta": -ready["size"]}


async def test_exports_of_a_suspended_tenant_wait(product, world, headers):
    path = await requested(product, headers)
    with product.changed(world.a, status=TenantStatus.SUSPENDED, suspension_reasons=("abuse",)):
        async with product.working():
            # Those of the others go on meanwhile.
            theirs = product.headers(world.b)
            await becomes(product, theirs, await requested(product, theirs), "ready")
    assert (await product.client.get(path, headers=headers)).json()["state"] == "queued"
    async with product.working():
        await becomes(product, headers, path, "ready")


async def test_a_document_that_changes_meanwhile_breaks_no_export(product, headers, document):
    await product.client.put(f"{document}/files/busy.bin", content=b"0" * 600_000, headers=headers)
    changing = True

    async def change():
        n = 0
        while changing:
            n += 1
            await product.client.put(f"{document}/files/busy.bin", content=bytes([n % 256]) * 600_000, headers=headers)

    task = asyncio.create_task(change())
    try:
        path = await requested(product, headers)
        async with product.working():
            await becomes(product, headers, path, "ready")
    finally:
        changing = False
        await task
    content = (await product.client.get(f"{path}/content", headers=headers)).content
    entry = zipfile.ZipFile(io.BytesIO(content)).read(f"files/{document.rpartition('/')[2]}/busy.bin")
    assert len(entry) == 600_000
    assert len(set(entry)) == 1  # one of its contents, whole


async def test_a_file_that_is_replaced_between_two_looks_is_looked_up_again(product, headers, document, monkeypatch):
    await product.client.put(f"{document}/files/busy.bin", content=b"present", headers=headers)
    looked, find_file = set(), repository.find_file

    async def find_another_content_first(session, tenant_id, document_id, name):
        found = await find_file(session, tenant_id, document_id, name)
        if (document_id, name) in looked:
            return found
        looked.add((document_id, name))
        values = {column.key: getattr(found, column.key) for column in DocumentFile.__table__.columns}
        return DocumentFile(**values | {"content_id": uuid7()})

    monkeypatch.setattr(repository, "find_file", find_another_content_first)
    path = await requested(product, headers)
    async with product.working():
        await becomes(product, headers, path, "ready")
    content = (await product.client.get(f"{path}/content", headers=headers)).content
    assert zipfile.ZipFile(io.BytesIO(content)).read(f"files/{document.rpartition('/')[2]}/busy.bin") == b"present"


@pytest.fixture(autouse=True)
async def _empty_queue(product, world):
    """Each test looks at its own jobs."""
    yield
    async with product.tenancy.databases.system_session() as session:
        await session.execute(text("DELETE FROM jobs.procrastinate_jobs"))
    for tenant in (world.a, world.b):
        async with product.tenancy.databases.tenant_session(tenant) as tenant_session:
            await tenant_session.execute(text("DELETE FROM export WHERE finished_at IS NULL"))
