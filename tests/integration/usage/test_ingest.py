"""Every form in which events come in, and every way in which a body can be wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
import zstandard
from aiokafka import AIOKafkaProducer
from broker import read_topic
from starlette.requests import Request

from tenantry import Operation, RateLimited, TenantStatus, Tier, Unavailable
from tenantry.events import KafkaSettings, UsageProducer
from tenantry.http import IDENTITY_KEY, MalformedJson
from tenantry.identity import Principal, PrincipalKind, Scope
from tenantry.testing import eventually
from usage_service.ingest.bodies import BodyTooSlow
from usage_service.ingest.memory import IngestMemory, bytes_held

from .support import API_CALLS, end_offsets, event
from .test_http import endpoint_of, replaced

BATCH = "application/cloudevents-batch+json"
SINGLE = "application/cloudevents+json"
PACK = {"gzip": gzip.compress, "zstd": zstandard.compress}


async def post(usage, content, content_type, headers=None, **params):
    sent = {**({"Content-Type": content_type} if content_type else {}), **usage.service, **(headers or {})}
    return await usage.http.post("/v1/events", content=content, headers=sent, params=params)


async def in_kafka(usage) -> int:
    return sum((await end_offsets(usage.kafka, "usage.events.v1")).values())


def in_binary_mode(tenant, number, **changes):
    attributes = {name: value for name, value in (event(tenant, number) | changes).items() if name != "data"}
    return {f"ce-{name}": value for name, value in attributes.items() if value is not None}


async def chunks(content: bytes, size: int):
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def test_the_same_events_in_every_form_count_once(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    sent = [event(tenant_a, number) for number in range(3)]
    batch, single, lines = json.dumps(sent), json.dumps(sent[0]), "\n".join(map(json.dumps, sent)) + "\r\n"
    accepted = [
        await post(usage, batch, BATCH),
        await post(usage, single, SINGLE),
        await post(usage, batch, "application/json"),
        await post(usage, single, "application/json; charset=UTF-8"),
        await post(usage, lines, "application/x-ndjson"),
        await post(usage, gzip.compress(batch.encode()), BATCH, {"Content-Encoding": "gzip"}),
        await post(usage, gzip.compress(batch.encode()) * 1, BATCH, {"Content-Encoding": "x-gzip"}),
        await post(usage, zstandard.compress(lines.encode()), "application/x-ndjson", {"Content-Encoding": "zstd"}),
        await post(
            usage,
            gzip.compress(b"[" + single.encode()) + gzip.compress(b"]"),
            "application/json",
            {"Content-Encoding": "identity, gzip"},
        ),
        await post(usage, chunks(batch.encode(), 100), BATCH),
        await post(usage, chunks(zstandard.compress(batch.encode()), 7), BATCH, {"Content-Encoding": "zstd"}),
        await post(usage, json.dumps(sent[0]["data"]), "application/json", in_binary_mode(tenant_a, 0)),
        await post(
            usage,
            zstandard.compress(json.dumps(sent[1]["data"]).encode()),
            "application/json; charset=utf-8",
            in_binary_mode(tenant_a, 1) | {"Content-Encoding": "zstd"},
        ),
    ]
    assert [(answer.status_code, answer.json()["accepted"]) for answer in accepted] == [
        (202, count) for count in (3, 1, 3, 1, 3, 3, 3, 3, 1, 3, 3, 1, 1)
    ]
    async with usage.metering():
        await eventually(usage.counted, within=60)
    [[stored]] = [(row["count"],) for row in await usage.fetch("SELECT count(*) FROM pool.usage_event")]
    assert stored == 3
    assert await usage.fetch("SELECT * FROM pool.dead_letter") == []


async def test_an_event_in_binary_mode(usage, tenant_a):
    headers = in_binary_mode(
        tenant_a, 1, id="Euro%20%E2%82%AC", time="2026-11-21T00:00:00.5%2B01:00", traceparent="00-ab"
    )
    usage.state.directory.upsert_tier(Tier(name="standard", version=2, max_event_age_seconds=None))
    answer = await post(usage, b'{"bytes": 10}', "application/json", headers, echo="true")
    assert answer.status_code == 202, answer.text
    assert answer.json()["events"] == [{"id": "Euro \u20ac", "time": "2026-11-20T23:00:00.500000Z"}]
    without_data = await post(usage, b"", None, in_binary_mode(tenant_a, 2))
    assert (without_data.status_code, without_data.json()) == (202, {"accepted": 1})


WRONG_IN_BINARY_MODE: list[tuple[bytes, str | None, dict[str, Any], int, str]] = [
    (b'{"a": 1}', "application/json", {"id": None}, 400, "invalid-events"),
    (b'{"a": 1}', "application/json", {"specversion": "0.3"}, 400, "invalid-events"),
    (b'{"a": 1}', "application/json", {"id": "%C0%A0"}, 400, "malformed-request"),
    (b'{"a": 1}', "application/json", {"id": "%00"}, 400, "invalid-events"),
    (b'{"a": 1}', "application/json", {"datacontenttype": "application/json"}, 400, "malformed-request"),
    (b'{"a": 1}', "application/json", {"ext-ra": "x"}, 400, "invalid-events"),
    (b'{"a": 1}', "application/json", {"": "x"}, 400, "invalid-events"),
    (b'{}, "subject": "nobody"', "application/json", {}, 400, "malformed-json"),
    (b'{}}, {"a": {}', "application/json", {}, 400, "malformed-json"),
    (b"[1]", "application/json", {}, 400, "invalid-events"),
    (b'"text"', "application/json", {}, 400, "invalid-events"),
    (b'{"a": "\xff"}', "application/json", {}, 400, "invalid-events"),
    (b'{"a": "\\u0000"}', "application/json", {}, 400, "invalid-events"),
    (b"<a/>", "application/xml", {}, 415, "unsupported-media-type"),
    (b'{"a": 1}', None, {"subject": "nobody"}, 400, "invalid-events"),
]


async def test_events_in_binary_mode_that_are_wrong(usage, tenant_a):
    for content, content_type, changes, status, kind in WRONG_IN_BINARY_MODE:
        answer = await post(usage, content, content_type, in_binary_mode(tenant_a, 1, **changes))
        assert (answer.status_code, answer.json()["type"]) == (status, kind), (content, changes, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert await in_kafka(usage) == 0


WRONGLY_PACKED = {
    "bomb": (lambda pack: pack(bytes(5 << 20)), 413, "payload-too-large"),
    "cut": (lambda pack: pack(b"[]")[:-1], 400, "malformed-request"),
    "garbage": (lambda pack: pack(b"[]") + b"?", 400, "malformed-request"),
    "empty": (lambda _: b"", 400, "malformed-request"),
    "plain": (lambda _: b"[]", 400, "malformed-request"),
    "deflate": (lambda _: zlib.compress(b"[]"), 400, "malformed-request"),
    "no event": (lambda pack: pack(b"[]"), 400, "invalid-events"),
    "nothing": (lambda pack: pack(b""), 400, "malformed-json"),
    "twice": (lambda pack: pack(pack(b"[]")), 400, "malformed-json"),
    "too long": (lambda _: bytes(5 << 20), 413, "payload-too-large"),
}


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_packed_bodies_that_are_wrong(usage, coding):
    for name, (make, status, kind) in WRONGLY_PACKED.items():
        answer = await post(usage, make(PACK[coding]), BATCH, {"Content-Encoding": coding})
        assert (answer.status_code, answer.json()["type"]) == (status, kind), (name, answer.text)


async def test_other_encodings_are_told_ours(usage):
    for encoding in ("br", "deflate", "gzip, zstd", "gzip, gzip", "aes128gcm"):
        answer = await post(usage, b"[]", BATCH, {"Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["type"]) == (415, "unsupported-media-type")
        assert answer.headers["Accept-Encoding"] == "gzip, zstd"


async def test_a_body_without_a_length_is_cut_off_at_the_limit(usage):
    answer = await post(usage, chunks(b" " * (5 << 20), 1 << 16), BATCH)
    assert (answer.status_code, answer.json()["type"]) == (413, "payload-too-large")


@pytest.mark.parametrize(
    ("changes", "loc"),
    [
        ({"datacontenttype": ["application/json"]}, "datacontenttype"),
        ({"datacontenttype": {}}, "datacontenttype"),
        ({"data": {"a": "DEEP"}}, ""),
        ({"data": {"a": "DEEP\\\\u0000"}}, ""),
    ],
)
async def test_what_once_was_an_error_of_ours(usage, tenant_a, changes, loc):
    text = json.dumps([event(tenant_a, 0), event(tenant_a, 1, **changes)])
    text = text.replace('"DEEP', "[" * 400 + '"').replace("}}]", "]" * 400 + "}}]") if "DEEP" in text else text
    answer = await post(usage, text, BATCH)
    assert answer.status_code == 400, answer.text
    assert [(each["index"], each["loc"][1:]) for each in answer.json()["errors"]] == [(1, [loc] if loc else [])]


def request_of(usage, receive, *, selected=None, **headers):
    """A request of a service, or of `selected` for itself, as the middleware hands it on."""
    principal = Principal(
        subject="s",
        kind=PrincipalKind.SERVICE,
        scopes=frozenset({Scope.SERVICE if selected is None else Scope.TENANT_WRITE}),
        credential_id="c",
        tenant_id=None if selected is None else selected.id,
    )
    named = {"content-type": BATCH, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/events",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        IDENTITY_KEY: (principal, selected),
    }
    return Request(scope, receive)


def whole(body: bytes):
    async def receive():
        return {"type": "http.request", "body": body}

    return receive


async def unread():
    raise AssertionError("the body was read")


class SilentSender:
    """Kafka that does not acknowledge until it is told to."""

    def __init__(self) -> None:
        self.acknowledge = asyncio.Event()

    async def send(self, _events) -> None:
        await self.acknowledge.wait()


async def test_a_service_bound_to_a_tenant_sends_for_it_until_it_may_not(usage, tenant_a, tenant_b):
    """Usage of a tenant that is suspended is evidence: services send it, whether they act for one tenant or for all."""

    class Kafka:
        async def send(self, events) -> None:
            assert events

    endpoint = endpoint_of(usage, Kafka())

    async def sent(tenant) -> int:
        body = json.dumps([event(tenant, 1)]).encode()
        return (await endpoint.receive(request_of(usage, whole(body), selected=tenant_a))).status_code

    suspended = {"status": TenantStatus.SUSPENDED, "version": 2}
    usage.state.directory.upsert(replaced(tenant_a, **suspended, blocked=(Operation.INGEST,)))
    assert (await usage.send(event(tenant_a, 1), headers=usage.tenant_key(tenant_a))).status_code == 403
    assert await sent(tenant_a) == 202
    assert await sent(tenant_b) == 403
    suspended["version"] = 3
    usage.state.directory.upsert(replaced(tenant_a, **suspended, blocked=(Operation.SERVICE_INGEST,)))
    assert await sent(tenant_a) == 403


async def test_requests_are_turned_away_unread_while_others_hold_the_memory(usage, tenant_a):
    body = json.dumps([event(tenant_a, 1)]).encode()
    memory = IngestMemory(3 * bytes_held(len(body)), lambda: 0)
    sender = SilentSender()
    endpoint = endpoint_of(usage, sender, memory=memory)
    length = str(len(body))
    waiting = [
        asyncio.create_task(endpoint.receive(request_of(usage, whole(body), content_length=length))) for _ in range(2)
    ]
    await eventually(lambda: memory.held == 2 * bytes_held(len(body)))
    with pytest.raises(RateLimited) as refused:
        await endpoint.receive(request_of(usage, unread, content_length=length))
    assert refused.value.headers["Retry-After"]
    with pytest.raises(Unavailable) as full:
        await endpoint.receive(request_of(usage, unread, content_length=str(8 * len(body))))
    assert full.value.headers["Retry-After"]
    sender.acknowledge.set()
    assert [(await each).status_code for each in waiting] == [202, 202]
    assert memory.held == 0
    assert (await endpoint.receive(request_of(usage, whole(body), content_length=length))).status_code == 202


async def test_memory_comes_back_however_a_request_ends(usage, tenant_a):
    memory = IngestMemory(1 << 20, lambda: 0)
    endpoint = endpoint_of(usage, SilentSender(), memory=memory)
    with pytest.raises(MalformedJson):
        await endpoint.receive(request_of(usage, whole(b"{")))
    refused = await endpoint.receive(request_of(usage, whole(json.dumps([event(tenant_a, 1, id="")]).encode())))
    assert (refused.status_code, memory.held) == (400, 0)
    cancelled = asyncio.create_task(
        endpoint.receive(request_of(usage, whole(json.dumps([event(tenant_a, 1)]).encode())))
    )
    await eventually(lambda: memory.held > bytes_held(100))
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert memory.held == 0
    endpoint = endpoint_of(usage, SilentSender(), memory=memory, read_seconds=0.05)
    with pytest.raises(BodyTooSlow):
        await endpoint.receive(request_of(usage, asyncio.Event().wait, content_length="100000"))
    assert memory.held == 0


async def test_a_body_that_unpacks_to_more_than_there_is_room_for(usage, tenant_a):
    text = json.dumps([event(tenant_a, number) for number in range(100)]).encode()
    packed = gzip.compress(text)
    memory = IngestMemory(bytes_held(len(text)) - 1, lambda: 0)
    endpoint = endpoint_of(usage, SilentSender(), memory=memory)
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await endpoint.receive(
                request_of(usage, whole(packed), content_encoding="gzip", content_length=str(len(packed)))
            )
    assert memory.held == 0


async def test_kafka_that_is_away_is_told_at_once_and_takes_no_memory(usage, tenant_a):
    away = UsageProducer(KafkaSettings(kafka_bootstrap="127.0.0.1:1"), delivery_seconds=0.2)
    await away.start()
    try:
        memory = IngestMemory(1 << 20, lambda: away.pending_bytes)
        endpoint = endpoint_of(usage, away, memory=memory)
        for number in range(200):
            body = json.dumps([event(tenant_a, number)]).encode()
            with pytest.raises(Unavailable):
                await endpoint.receive(request_of(usage, whole(body)))
        assert (memory.held, away.pending_bytes) == (0, 0)
    finally:
        await away.stop()


async def test_slow_kafka_takes_no_more_memory_than_there_is(usage, tenant_a, tenant_b, monkeypatch):
    moves = asyncio.Event()
    send_batch = AIOKafkaProducer.send_batch

    async def slow(self, *args, **options):
        await moves.wait()
        return await send_batch(self, *args, **options)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", slow)
    capacity = 1 << 20
    producer = UsageProducer(usage.kafka, max_pending_bytes=capacity)
    await producer.start()
    memory = IngestMemory(capacity, lambda: producer.pending_bytes)
    endpoint = endpoint_of(usage, producer, memory=memory)
    most = 0

    async def send(number: int) -> int:
        nonlocal most
        tenant = tenant_a if number % 4 else tenant_b
        body = json.dumps([event(tenant, number * 100 + each) for each in range(100)]).encode()
        try:
            request = request_of(usage, whole(body), selected=tenant, content_length=str(len(body)))
            return (await endpoint.receive(request)).status_code
        except (RateLimited, Unavailable) as refused:
            return refused.status if "Retry-After" in refused.headers else 0
        finally:
            most = max(most, memory.held + producer.pending_bytes)

    try:
        first = [asyncio.create_task(send(number)) for number in range(200)]
        await eventually(lambda: sum(each.done() for each in first) > 150)
        assert {each.result() for each in first if each.done()} <= {429, 503}
        assert memory.held + producer.pending_bytes > capacity // 2
        moves.set()
        answers = [await each for each in first]
        assert set(answers) <= {202, 429, 503}
        assert answers.count(202) > 2
        assert (memory.held, producer.pending_bytes) == (0, 0)
        assert await send(1_000) == 202
    finally:
        await producer.stop()
    assert most <= capacity
    assert await in_kafka(usage) == 100 * (answers.count(202) + 1)


async def test_fields_that_nobody_may_read_reach_neither_kafka_nor_the_dead_letters(usage, tenant_a):
    fields = {"*": {"$.email": "drop", "$.client.ip": "hash"}}
    data = {"email": "person@example.test", "client": {"ip": "192.0.2.77"}, "bytes": 1}
    async with usage.running(fields=fields, fields_key="only-for-tests-" * 3):
        now = event(tenant_a, 1, data=data)
        late = event(tenant_a, 2, data=data, time="2020-01-01T00:00:00Z")
        answer = await usage.send(now, late, partial="true")
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        headers = in_binary_mode(tenant_a, 3)
        assert (await post(usage, json.dumps(data), "application/json", headers)).status_code == 202
    records = await read_topic(usage.kafka, "usage.events.v1")
    letters = await usage.fetch("SELECT payload FROM pool.dead_letter")
    texts = [*(record.value for record in records), *(letter["payload"] for letter in letters)]
    assert len(texts) == 3
    for text in texts:
        kept = json.loads(text)["data"]
        assert set(kept) == {"client", "bytes"}
        assert kept["client"]["ip"].startswith("hash:")
    assert len({json.loads(text)["data"]["client"]["ip"] for text in texts}) == 1
