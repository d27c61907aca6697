"""Attachments: streamed, whole or not at all, and counted to the byte."""

import asyncio
import hashlib
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from app_service.models import ExportChunk, FileChunk, StorageTotal
from app_service.streams import CHUNK_BYTES
from tenantry import TenantClock, TenantStatus, uuid7
from tenantry.testing import eventually

LIMIT = 3_000_000


def content(size, salt=7):
    return (bytes((n * salt) % 251 for n in range(4099)) * (size // 4099 + 1))[:size]


async def stored(product, tenant):
    """Bytes in chunks, of files and of the export that the world has planted, and what the total says."""
    async with product.tenancy.databases.tenant_session(tenant) as session:
        chunks = 0
        for data in (FileChunk.data, ExportChunk.data):
            chunks += await session.scalar(select(func.coalesce(func.sum(func.length(data)), 0)))
        total = await session.scalar(select(StorageTotal.bytes))
    return chunks, total


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2_500_000])
async def test_a_file_comes_back_as_it_went(product, headers, document, size):
    data = content(size)
    put = await product.client.put(
        f"{document}/files/report.pdf", content=data, headers={**headers, "Content-Type": "application/pdf; a=b"}
    )
    assert put.status_code == 201, put.text
    assert (put.json()["size"], put.json()["sha256"]) == (size, hashlib.sha256(data).hexdigest())
    got = await product.client.get(f"{document}/files/report.pdf", headers=headers)
    assert got.content == data
    assert got.headers["content-type"] == "application/pdf"
    assert got.headers["content-length"] == str(size)
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''report.pdf"
    assert got.headers["x-content-type-options"] == "nosniff"


async def test_replacing_and_deleting_count_the_difference(product, world, headers, document):
    before, total = await stored(product, world.a)
    path = f"{document}/files/f.bin"
    versions = []
    for size, status in ((1000, 201), (300_000, 200), (300_000, 200), (0, 200)):
        response = await product.client.put(path, content=content(size), headers=headers)
        assert response.status_code == status
        versions.append(response.json()["version"])
        assert await stored(product, world.a) == (before + size, total + size)
    assert versions == [1, 2, 3, 4]
    await product.client.put(path, content=content(77), headers=headers)
    await product.client.put(f"{document}/files/g.bin", content=content(23), headers=headers)
    assert (await product.client.delete(f"{document}/files/g.bin", headers=headers)).status_code == 204
    assert (await product.client.delete(document, headers=headers)).status_code == 204
    assert await stored(product, world.a) == (before, total)
    events = [event["data"] for event in product.spooled(world.a, "storage.bytes")]
    assert [event["delta"] for event in events] == [1000, 299_000, -300_000, 77, 23, -23, -77]
    running = total
    for event in events:
        running += event["delta"]
        assert event["bytes"] == running


async def test_a_stale_upload_changes_nothing(product, headers, document):
    path = f"{document}/files/f.bin"
    await product.client.put(path, content=b"one", headers=headers)
    await product.client.put(path, content=b"two", headers={**headers, "If-Match": '"1"'})
    stale = await product.client.put(path, content=b"three", headers={**headers, "If-Match": '"1"'})
    assert (stale.status_code, stale.json()["type"]) == (412, "stale-version")
    assert (await product.client.get(path, headers=headers)).content == b"two"
    new = await product.client.put(f"{document}/files/new", content=b"x", headers={**headers, "If-Match": '"1"'})
    assert new.status_code == 412


@pytest.mark.parametrize("declared", [True, False], ids=["declared length", "streamed"])
async def test_a_file_that_is_too_large_leaves_nothing(product, world, headers, document, declared):
    before = await world.fingerprint(world.a)

    async def pieces():
        for _ in range(LIMIT // 100_000 + 2):
            yield content(100_000)

    body = content(LIMIT + 1) if declared else pieces()
    response = await product.client.put(f"{document}/files/huge", content=body, headers=headers)
    assert (response.status_code, response.json()["type"]) == (413, "payload-too-large")
    assert await world.fingerprint(world.a) == before
    assert product.spooled(world.a, "storage.bytes") == []


async def send_by_hand(product, path, headers, messages):
    """Drive the application without a client, with the messages of a body; returns what it sent."""
    sent = []

    async def receive():
        return await anext(messages)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "server": ("app.test", 80),
    }
    await product.app(scope, receive, send)
    return sent


async def test_an_upload_whose_client_leaves_stores_nothing(product, world, headers, document):
    before = await world.fingerprint(world.a)

    async def messages():
        yield {"type": "http.request", "body": content(600_000), "more_body": True}
        yield {"type": "http.disconnect"}

    sent = await send_by_hand(product, f"{document}/files/half", headers, messages())
    assert [message["status"] for message in sent if "status" in message] == [499]
    assert await world.fingerprint(world.a) == before
    assert product.spooled(world.a, "storage.bytes") == []


async def test_a_cancelled_upload_stores_nothing(product, world, headers, document):
    before = await world.fingerprint(world.a)
    waiting = asyncio.Event()

    async def slow():
        yield content(600_000)
        waiting.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(product.client.put(f"{document}/files/half", content=slow(), headers=headers))
    await waiting.wait()
    await connections_in_transaction(world, 0)
    request.cancel()
    await asyncio.wait([request])
    assert await world.fingerprint(world.a) == before


async def connections_in_transaction(world, expected):
    async def count():
        async with world.database.connect() as connection:
            return expected == await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename = 'app_service'"
                " AND state LIKE 'idle in transaction%'",
                world.database.name,
            )

    await eventually(count)


async def test_a_slow_download_holds_no_transaction(product, world, headers, document):
    """Between two reads of a client that takes its time, every connection is free."""
    path = f"{document}/files/slow"
    await product.client.put(path, content=content(2_900_000), headers=headers)
    release, started = asyncio.Event(), asyncio.Event()
    received = 0

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        nonlocal received
        received += len(message.get("body", b""))
        if received and not started.is_set():
            started.set()
            await release.wait()

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("app.test", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    download = asyncio.create_task(product.app(scope, receive, send))
    await started.wait()
    await connections_in_transaction(world, 0)
    release.set()
    await download
    assert received == 2_900_000


async def test_a_download_of_a_replaced_file_breaks_off(product, headers, document):
    """What was announced is not completed with other content."""
    path = f"{document}/files/changing"
    await product.client.put(path, content=content(2_900_000), headers=headers)
    sent, replaced = [], False

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        nonlocal replaced
        sent.append(message)
        if message.get("body") and not replaced:
            replaced = True
            await product.client.put(path, content=content(2_900_000, salt=11), headers=headers)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("app.test", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    with pytest.raises(BaseException):  # noqa: B017, PT011 (the server cuts the connection on any)
        await product.app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    assert 0 < len(body) < 2_900_000
    assert content(2_900_000).startswith(body)


async def test_a_tenant_that_is_suspended_during_an_upload_stores_nothing(product, world, headers, document):
    before = await world.fingerprint(world.a)
    suspended = product.changed(world.a, status=TenantStatus.SUSPENDED, suspension_reasons=("abuse",))
    with ExitStack() as until_answered:

        async def slow():
            yield content(10)
            until_answered.enter_context(suspended)
            yield content(10)

        response = await product.client.put(f"{document}/files/f", content=slow(), headers=headers)
    assert (response.status_code, response.json()["type"]) == (403, "tenant-suspended")
    assert await world.fingerprint(world.a) == before


async def test_uploads_at_once_count_every_byte_in_one_order(product, world, document):
    """Under a clock that stands still: the times of the events still order the totals."""
    noon = datetime(2027, 3, 1, 12, tzinfo=UTC)
    before, total = await stored(product, world.a)
    with product.changed(world.a, clock=TenantClock(uuid7(), noon)):
        headers = product.headers(world.a)
        answers = await asyncio.gather(
            *(
                product.client.put(f"{document}/files/f{n % 7}", content=content(1000 + n), headers=headers)
                for n in range(24)
            )
        )
    assert {answer.status_code for answer in answers} <= {200, 201}
    chunks, new_total = await stored(product, world.a)
    assert chunks - before == new_total - total
    events = sorted(product.spooled(world.a, "storage.bytes"), key=lambda event: datetime.fromisoformat(event["time"]))
    assert len({event["time"] for event in events}) == len(events)
    assert all(event["time"].startswith("2027-03-01T12:00:00") for event in events)
    running = total
    for event in events:
        running += event["data"]["delta"]
        assert event["data"]["bytes"] == running
    assert running == new_total


async def test_the_files_of_a_document_are_listed_by_name(product, headers, document):
    for name in ("b", "c", "a"):
        await product.client.put(f"{document}/files/{name}", content=b"x", headers=headers)
    first = (await product.client.get(f"{document}/files?limit=2", headers=headers)).json()
    rest = (
        await product.client.get(
            f"{document}/files", params={"limit": 2, "cursor": first["next_cursor"]}, headers=headers
        )
    ).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None
