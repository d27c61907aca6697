"""Bodies and queries that nobody sends by accident, or by none that may cost others anything."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
import tracemalloc

import pytest
from fastapi import FastAPI
from processes import free_port
from starlette.requests import Request

from tenantry import Operation, SystemClock
from tenantry.cli import serve_http
from tenantry.http import IDENTITY_KEY, install_problem_handlers
from tenantry.identity import Principal, PrincipalKind, Scope
from tenantry.testing import eventually
from usage_service.domain.intake import read_body
from usage_service.domain.splitting import Form, TooManyEvents
from usage_service.ingest.memory import IngestMemory, bytes_held
from usage_service.ingest.routes import RouteTable

from .support import event
from .test_http import NoSender, endpoint_of
from .test_ingest import BATCH, in_kafka, post

REPEATED = [
    ('"id": "e-2"', '"id": 7, "id": "e-2"'),
    ('"id": "e-2"', '"id": "other", "id": "e-2"'),
    ('"subject"', '"subject": null, "subject"'),
    ('"time"', '"time": "now", "time"'),
]


@pytest.mark.parametrize(("member", "repeated"), REPEATED)
async def test_of_a_late_event_too_the_last_of_a_repeated_member_counts(usage, tenant_a, member, repeated):
    late = json.dumps(event(tenant_a, 2, time="2001-01-01T00:00:00Z"))
    assert member in late
    late = late.replace(member, repeated)
    alone = await post(usage, f"[{late}]", BATCH)
    assert (alone.status_code, alone.json()["errors"][0]["kind"]) == (400, "too-old")
    beside = await post(usage, f"[{late}, {json.dumps(event(tenant_a, 1))}]", BATCH, partial="true")
    assert (beside.status_code, beside.json()["accepted"]) == (202, 1)
    assert [each["kind"] for each in beside.json()["rejected"]] == ["too-old"]
    [kept] = await usage.fetch("SELECT tenant_id, event_id, source, type FROM pool.dead_letter")
    assert tuple(kept.values()) == (tenant_a.id, "e-2", event(tenant_a, 2)["source"], "http.request")


HOSTILE = {
    "numbers": (b"[" + b"11," * 1_398_000 + b"1]", 413),
    "lists": (b"[" + b"[]," * 1_397_000 + b"1]", 413),
    "fractions": (b"[" + b"0.1," * 1_047_000 + b"1]", 413),
    "fractions of many events": (b"[" + b"0.1," * 100_000 + b"1]", 202),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_body_that_is_much_to_read_holds_up_nobody_and_takes_little_memory(usage, tenant_a, name):
    hostile, status = HOSTILE[name]
    one = json.dumps(event(tenant_a, 1, data={"a": "?"})).encode().replace(b'"?"', hostile)
    body = hostile if name == "numbers" else b"[%b]" % one
    if status == 202:
        body = b"[%b]" % b",".join([one] * 9)
    assert len(body) > 3_500_000
    table = RouteTable(usage.state.directory, SystemClock(), Operation.SERVICE_INGEST)
    table.at()
    began = time.perf_counter()
    with contextlib.suppress(TooManyEvents):
        read_body(body, Form.ARRAY, table.resolve, max_events=10_000)
    alone = time.perf_counter() - began
    packed, headers, longest = gzip.compress(body, 1), {"Content-Encoding": "gzip"}, 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - before)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0)
    answer = await post(usage, packed, BATCH, headers)
    await asyncio.sleep(0)
    beating.cancel()
    assert answer.status_code == status, answer.text
    # What is refused unread takes no time, and what is read is read elsewhere.
    assert alone < 2 if status == 413 else longest < alone / 2
    tracemalloc.start()
    try:
        await post(usage, packed, BATCH, headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < bytes_held(len(body)) + (40 << 20)


async def test_a_long_body_gives_what_a_short_one_does(usage, tenant_a):
    sent = [event(tenant_a, number, data={"text": "x" * 2_000}) for number in range(400)]
    sent[7]["id"] = ""
    answer = await usage.send(*sent, partial="true", echo="true")
    assert (answer.status_code, answer.json()["accepted"]) == (202, 399)
    assert [each["index"] for each in answer.json()["rejected"]] == [7]
    assert await in_kafka(usage) == 399


@pytest.mark.parametrize(
    "query", ["dry_run=true&dry_run=false", "dryrun=true", "partial=yes", "echo=true&echo=true", "Partial=true", "x"]
)
async def test_a_query_that_could_be_understood_in_two_ways_sends_nothing(usage, tenant_a, query):
    headers = {"Content-Type": BATCH, **usage.service}
    body = json.dumps([event(tenant_a, 1)])
    answer = await usage.http.post(f"/v1/events?{query}", content=body, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["loc"][0]) == (422, "query")
    assert await in_kafka(usage) == 0
    selected = await usage.http.post(f"/v1/events?tenant_id={tenant_a.id}&partial=true", content=body, headers=headers)
    assert selected.status_code == 202


async def test_a_body_that_does_not_come_is_given_up_and_gives_its_memory_back(usage):
    """Over a socket, as the server of production reads it: the head is whole, and then comes next to nothing."""
    memory = IngestMemory(1 << 20, lambda: 0)
    endpoint = endpoint_of(usage, NoSender(), memory=memory, read_seconds=0.5)
    principal = Principal(subject="s", kind=PrincipalKind.SERVICE, scopes=frozenset({Scope.SERVICE}), credential_id="c")

    async def receive(request: Request):
        request.scope[IDENTITY_KEY] = (principal, None)
        return await endpoint.receive(request)

    app = FastAPI()
    install_problem_handlers(app)
    app.add_route("/v1/events", receive, methods=["POST"])
    port = free_port()
    serving = asyncio.create_task(serve_http(app, host="127.0.0.1", port=port))

    async def connected():
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", port)

    try:
        reader, writer = await eventually(connected)
        writer.write(
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\nContent-Length: 90000\r\n\r\n" % BATCH.encode()
        )
        await eventually(lambda: memory.held == bytes_held(90_000))
        answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        while not answered.done():
            writer.write(b" ")
            await asyncio.wait([answered], timeout=0.05)
        assert (await answered).startswith(b"HTTP/1.1 408 ")
        assert memory.held == 0
        writer.close()
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
