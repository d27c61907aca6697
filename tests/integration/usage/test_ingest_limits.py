"""What a tier lets a tenant send, by its own credentials and through services; others are not touched by it."""

from __future__ import annotations

import gzip
import json

import pytest

from tenantry import Routing, Tier
from tenantry.testing import eventually

from .support import API_CALLS, end_offsets, event
from .test_http import replaced

BATCH = "application/cloudevents-batch+json"
# So slow that nothing comes back while a test lasts.
SLOW = 0.001
UNIT = 64 * 1024


@pytest.fixture
def limited(usage, tenant_a):
    """Puts tenant A into a tier with these request limits; tenant B keeps the tier without any."""

    def put(**requests: int):
        version = (getattr(usage.state.directory.tier("limited"), "version", 0)) + 1
        document = {"requests": {name: {"rate": SLOW, "burst": burst} for name, burst in requests.items()}}
        usage.state.directory.upsert_tier(Tier(name="limited", version=version, limits=document))
        usage.state.directory.upsert(
            replaced(tenant_a, tier="limited", version=usage.state.directory.get(tenant_a.id).version + 1)
        )

    return put


async def in_kafka(usage) -> int:
    return sum((await end_offsets(usage.kafka, "usage.events.v1")).values())


def large(tenant, number, size):
    """An event of about `size` bytes."""
    return event(tenant, number, data={"text": "x" * (size - 300)})


async def test_what_a_tenant_sends_is_limited_by_its_tier(usage, limited, tenant_a, tenant_b):
    limited(ingest=3)
    own = usage.tenant_key(tenant_a)
    for left in (2, 1, 0):
        answer = await usage.send(event(tenant_a, left), headers=own)
        assert answer.status_code == 202
        assert answer.headers["RateLimit-Policy"].startswith('"ingest";q=3;')
        assert answer.headers["RateLimit"].startswith(f'"ingest";r={left};')
    refused = await usage.send(event(tenant_a, 3), headers=own)
    assert (refused.status_code, refused.json()["type"]) == (429, "rate-limited")
    assert int(refused.headers["Retry-After"]) > 1
    assert refused.headers["RateLimit"].startswith('"ingest";r=0;')
    assert await in_kafka(usage) == 3
    assert (await usage.send(event(tenant_b, 1), headers=usage.tenant_key(tenant_b))).status_code == 202
    # Services send evidence: the tenant's own limits are not theirs.
    assert (await usage.send(event(tenant_a, 4))).status_code == 202
    limited(ingest=5)
    assert (await usage.send(event(tenant_a, 5), headers=own)).status_code == 202


async def test_a_request_costs_what_it_holds_however_it_is_packed(usage, limited, tenant_a):
    limited(ingest=8)
    headers = {"Content-Type": BATCH, **usage.tenant_key(tenant_a)}
    body = json.dumps([large(tenant_a, 1, 2 * UNIT + 1_000)]).encode()
    plain = await usage.http.post("/v1/events", content=body, headers=headers)
    assert (plain.status_code, plain.headers["RateLimit"].split(";")[1]) == (202, "r=5")
    packed = {"content": gzip.compress(body), "headers": headers | {"Content-Encoding": "gzip"}}
    assert (await usage.http.post("/v1/events", **packed)).status_code == 202
    assert len(packed["content"]) < UNIT
    # Two units are left: one is taken for the packed length, and two more would be due.
    refused = await usage.http.post("/v1/events", **packed)
    assert (refused.status_code, refused.json()["type"]) == (429, "rate-limited")
    too_much = json.dumps([large(tenant_a, number, 5 * UNIT) for number in range(2)]).encode()
    refused = await usage.http.post("/v1/events", content=too_much, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (413, "payload-too-large")


async def test_what_services_send_is_limited_for_each_tenant_of_a_batch(usage, limited, tenant_a, tenant_b):
    limited(service_ingest=2, default=1)
    assert (await usage.send(event(tenant_a, 1), event(tenant_b, 1))).status_code == 202
    assert (await usage.send(event(tenant_a, 2), event(tenant_a, 3))).status_code == 202
    refused = await usage.send(event(tenant_b, 2), event(tenant_a, 4), event(tenant_b, 3), event(tenant_a, 5))
    assert (refused.status_code, refused.json()["type"]) == (429, "rate-limited")
    assert [(each["index"], each["kind"]) for each in refused.json()["errors"]] == [
        (1, "rate-limited"),
        (3, "rate-limited"),
    ]
    assert int(refused.headers["Retry-After"]) > 1
    assert refused.headers["RateLimit"].startswith('"service_ingest";r=0;')
    assert await in_kafka(usage) == 4
    mixed = (event(tenant_b, 2), event(tenant_a, 4), event(tenant_b, 3, id=""), event(tenant_b, 4), event(tenant_a, 5))
    partly = await usage.send(*mixed, partial="true", echo="true")
    assert (partly.status_code, partly.json()["accepted"]) == (202, 2)
    assert [(each["index"], each["kind"]) for each in partly.json()["rejected"]] == [
        (1, "rate-limited"),
        (2, "invalid"),
        (4, "rate-limited"),
    ]
    assert [each["id"] for each in partly.json()["events"]] == ["e-2", "e-4"]
    assert int(partly.headers["Retry-After"]) > 1
    assert await in_kafka(usage) == 6
    nothing = await usage.send(event(tenant_a, 6), partial="true")
    assert (nothing.status_code, [each["index"] for each in nothing.json()["errors"]]) == (429, [0])
    # A batch that is refused for its own faults has taken nothing of anybody's rate.
    limited(service_ingest=3)
    assert (await usage.send(event(tenant_a, 7), event(tenant_a, 8, id=""))).status_code == 400
    assert (await usage.send(event(tenant_a, 7))).status_code == 202
    assert (await usage.send(event(tenant_a, 8))).status_code == 429


async def test_a_service_that_selects_a_tenant_is_limited_before_its_body_is_read(usage, limited, tenant_a, tenant_b):
    limited(service_ingest=2)
    selected = usage.service | {"X-Tenant-ID": str(tenant_a.id)}
    for left in (1, 0):
        answer = await usage.send(event(tenant_a, left), headers=selected)
        assert (answer.status_code, answer.headers["RateLimit"].split(";")[1]) == (202, f"r={left}")
        assert answer.headers["RateLimit-Policy"].startswith('"service_ingest";q=2;')
    refused = await usage.http.post("/v1/events", content=b"{", headers={"Content-Type": BATCH, **selected})
    assert (refused.status_code, refused.json()["type"]) == (429, "rate-limited")
    other = usage.service | {"X-Tenant-ID": str(tenant_b.id)}
    assert (await usage.send(event(tenant_b, 1), headers=other)).status_code == 202
    for operator in (usage.operator, usage.operator | {"X-Tenant-ID": str(tenant_a.id)}):
        assert (await usage.send(event(tenant_a, 9), headers=operator)).status_code == 202


async def test_a_services_events_cost_by_their_size(usage, limited, tenant_a, tenant_b):
    limited(service_ingest=4)
    sent = await usage.send(large(tenant_a, 1, 2 * UNIT + 1_000), event(tenant_a, 2), large(tenant_b, 1, 4 * UNIT))
    assert sent.status_code == 202
    refused = await usage.send(large(tenant_a, 3, UNIT + 1_000))
    assert (refused.status_code, refused.headers["RateLimit"].split(";")[1]) == (429, "r=1")
    assert (await usage.send(event(tenant_a, 4))).status_code == 202
    too_much = (*(large(tenant_a, number, 3 * UNIT) for number in (5, 6)), event(tenant_b, 2))
    refused = await usage.send(*too_much)
    assert (refused.status_code, refused.json()["type"]) == (413, "payload-too-large")
    partly = await usage.send(*too_much, partial="true")
    assert (partly.status_code, partly.json()["accepted"]) == (202, 1)
    assert [(each["index"], each["kind"]) for each in partly.json()["rejected"]] == [(0, "too-large"), (1, "too-large")]


async def test_a_tenant_of_many_keys_has_one_rate_and_leaves_room_in_every_partition(
    usage, limited, tenant_a, tenant_b
):
    """However loud it is, and in whichever partitions: what bounds it is its tier, before anything reaches Kafka."""
    limited(service_ingest=20)
    loud = usage.state.directory.get(tenant_a.id)
    usage.state.directory.upsert(replaced(loud, routing=Routing(buckets=12), version=loud.version + 1))
    await usage.put_meter("api-calls", API_CALLS)
    for number in range(60):
        own = [event(tenant_a, 3 * number + n) for n in range(3)]
        answer = await usage.send(*own, event(tenant_b, number), partial="true")
        assert answer.json()["accepted"] == (4 if number < 20 else 1)
    async with usage.metering():
        await eventually(usage.counted, within=60)
    rows = await usage.fetch("SELECT tenant_id, sum(count)::int FROM pool.usage_rollup GROUP BY 1")
    assert {row[0]: row[1] for row in rows} == {tenant_a.id: 60, tenant_b.id: 60}
    [[partitions]] = await usage.fetch(
        "SELECT count(DISTINCT kafka_partition) FROM pool.usage_event WHERE tenant_id = $1", tenant_a.id
    )
    assert partitions > 4
