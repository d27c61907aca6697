"""Who may send and ask what, and the answer to everything else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest
import structlog
from fastapi import FastAPI
from starlette.requests import Request

from tenantry import Operation, SystemClock, TenantClock, TenantStatus, Tier, uuid7
from tenantry.events import KafkaSettings, UsageProducer
from tenantry.http import install_problem_handlers
from tenantry.identity import Principal, PrincipalKind, Scope
from tenantry.limits import FairGate, Limiter
from tenantry.testing import eventually
from usage_service.ingest.endpoint import FOREIGN_EVENTS, IngestEndpoint, Limits
from usage_service.ingest.memory import IngestMemory
from usage_service.ingest.rates import IngestRates

from .support import API_CALLS, BANDWIDTH, end_offsets, event

BATCH = {"Content-Type": "application/cloudevents-batch+json"}


async def in_kafka(usage) -> int:
    return sum((await end_offsets(usage.kafka, "usage.events.v1")).values())


async def test_one_bad_event_refuses_the_batch_with_index_and_reason(usage, tenant_a):
    response = await usage.send(event(tenant_a, 1), event(tenant_a, 2, time="x"), event(tenant_a, 3, data=5))
    assert response.status_code == 400
    problem = response.json()
    assert problem["type"] == "invalid-events"
    assert [(error["index"], error["loc"]) for error in problem["errors"]] == [(1, [1, "time"]), (2, [2, "data"])]
    assert all(error["reason"] for error in problem["errors"])
    assert await in_kafka(usage) == 0


async def test_partial_accepts_the_good_ones(usage, tenant_a):
    response = await usage.send(event(tenant_a, 1), event(tenant_a, 2, id=""), partial="true", echo="true")
    assert response.status_code == 202
    answer = response.json()
    assert (answer["accepted"], [each["index"] for each in answer["rejected"]]) == (1, [1])
    assert answer["events"][0]["id"] == "e-1"
    assert await in_kafka(usage) == 1


@pytest.mark.parametrize(
    ("content", "content_type", "status", "kind"),
    [
        (b"{", "application/cloudevents+json", 400, "malformed-json"),
        (b"[]", "application/cloudevents-batch+json", 400, "invalid-events"),
        (b"\xff", "application/json", 400, "malformed-json"),
        (b"5", "application/cloudevents+json", 400, "invalid-events"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
        (b"{}", "application/json; charset=latin-1", 415, "unsupported-media-type"),
        (b" " * (5 << 20), "application/json", 413, "payload-too-large"),
        (b"[" + b"{}," * 10_000 + b"{}]", "application/json", 413, "payload-too-large"),
    ],
)
async def test_bodies_that_cannot_be_read(usage, content, content_type, status, kind):
    headers = {"Content-Type": content_type, **usage.service}
    response = await usage.http.post("/v1/events", content=content, headers=headers)
    assert (response.status_code, response.json()["type"]) == (status, kind)
    assert await in_kafka(usage) == 0


async def test_a_tenant_sends_for_itself_only(usage, tenant_a, tenant_b):
    own = usage.tenant_key(tenant_a)
    assert (await usage.send(event(tenant_a, 1), headers=own)).status_code == 202
    for foreign in (event(tenant_b, 1), event(tenant_a, 2, subject="nobody")):
        response = await usage.send(event(tenant_a, 2), foreign, headers=own)
        assert (response.status_code, response.json()["type"]) == (403, "tenant-mismatch")
    assert await in_kafka(usage) == 1
    partial = await usage.send(event(tenant_a, 2), event(tenant_b, 1), headers=own, partial="true")
    assert (partial.status_code, partial.json()["accepted"]) == (202, 1)


async def test_who_sends_for_another_tenant_is_noticed(usage, tenant_a, tenant_b):
    own, before = usage.tenant_key(tenant_a), FOREIGN_EVENTS._value.get()
    with structlog.testing.capture_logs() as logs:
        alone = await usage.send(event(tenant_b, 1), event(tenant_b, 2), headers=own, partial="true")
    assert (alone.status_code, alone.json()["accepted"], len(alone.json()["rejected"])) == (202, 0, 2)
    assert FOREIGN_EVENTS._value.get() == before + 2
    [line] = [line for line in logs if line["event"] == "usage_foreign_events"]
    assert (line["count"], line["tenant"]) == (2, str(tenant_a.id))
    assert str(tenant_b.id) not in str(line)
    assert (await usage.send(event(tenant_b, 1), headers=own)).status_code == 403
    assert FOREIGN_EVENTS._value.get() == before + 3


async def test_events_of_a_tenant_of_another_region_are_refused(usage, tenant_a, tenant_b):
    usage.state.directory.upsert(replaced(tenant_a, version=2, region="eu"))
    endpoint = endpoint_of(usage, NoSender(), region="us")
    refused = await through(endpoint, usage, event(tenant_a, 1))
    assert (refused.status_code, refused.json()["type"]) == (403, "residency-violation")
    assert (await through(endpoint, usage, event(tenant_b, 1))).status_code == 202
    assert (await through(endpoint_of(usage, NoSender(), region="eu"), usage, event(tenant_a, 1))).status_code == 202


class NoSender:
    """Takes everything and keeps nothing."""

    async def send(self, _events) -> None:
        return


async def test_who_may_not_send(usage, tenant_a):
    body = json.dumps([event(tenant_a, 1)])
    assert (await usage.http.post("/v1/events", content=body, headers=BATCH)).status_code == 401
    reader = usage.state.key(Scope.TENANT_READ, tenant=tenant_a)
    assert (await usage.send(event(tenant_a, 1), headers=reader)).status_code == 403
    unknown = await usage.send(event(tenant_a, 1, subject="nobody"))
    assert (unknown.status_code, unknown.json()["errors"][0]["kind"]) == (400, "unknown-tenant")


async def test_a_suspended_tenant_is_refused_where_its_document_says_so(usage, tenant_a):
    own = usage.tenant_key(tenant_a)
    suspended = {"status": TenantStatus.SUSPENDED, "suspension_reasons": ("billing",), "version": 2}
    usage.state.directory.upsert(replaced(tenant_a, **suspended, blocked=(Operation.INGEST,)))
    refused = await usage.send(event(tenant_a, 1), headers=own)
    assert (refused.status_code, refused.json()["type"]) == (403, "tenant-suspended")
    assert (await usage.send(event(tenant_a, 1))).status_code == 202
    suspended["version"] = 3
    both = (Operation.INGEST, Operation.SERVICE_INGEST)
    usage.state.directory.upsert(replaced(tenant_a, **suspended, blocked=both))
    refused = await usage.send(event(tenant_a, 2))
    assert (refused.status_code, refused.json()["type"]) == (403, "tenant-suspended")


async def test_a_suspended_tenants_usage_is_seen_by_operators_and_services(usage, tenant_a):
    await usage.put_meter("api-calls", API_CALLS)
    own = usage.state.key(Scope.TENANT_READ, tenant=tenant_a)
    blocked = (Operation.READ, Operation.WRITE, Operation.INGEST)
    for version, status in enumerate((TenantStatus.SUSPENDED, TenantStatus.OFFBOARDING), start=2):
        usage.state.directory.upsert(replaced(tenant_a, version=version, status=status, blocked=blocked))
        for path in ("meters/api-calls/query", "events"):
            range_ = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
            ask = f"/v1/{path}"
            for caller in (usage.operator, usage.service):
                headers = caller | {"X-Tenant-ID": str(tenant_a.id)}
                assert (await usage.http.get(ask, params=range_, headers=headers)).status_code == 200
            assert (await usage.http.get(ask, params=range_, headers=own)).status_code == 403


async def test_a_service_sends_for_a_selected_tenant_until_it_may_not(usage, tenant_a):
    selected = usage.service | {"X-Tenant-ID": str(tenant_a.id)}
    usage.state.directory.upsert(
        replaced(tenant_a, version=2, status=TenantStatus.SUSPENDED, blocked=(Operation.INGEST, Operation.READ))
    )
    assert (await usage.send(event(tenant_a, 1), headers=selected)).status_code == 202
    usage.state.directory.upsert(
        replaced(tenant_a, version=3, status=TenantStatus.PURGING, blocked=(Operation.SERVICE_INGEST,))
    )
    assert (await usage.send(event(tenant_a, 2), headers=selected)).status_code == 404


async def test_age_is_measured_by_the_tenants_clock_and_tier(usage, tenant_a):
    old = event(tenant_a, 1, time="2015-05-17T10:05:03Z")
    assert (await usage.send(old)).json()["errors"][0]["kind"] == "too-old"
    usage.state.directory.upsert_tier(Tier(name="sample", version=1, max_event_age_seconds=None))
    clock = TenantClock(id=uuid7(), now=datetime(2015, 5, 21, tzinfo=UTC))
    usage.state.directory.upsert(replaced(tenant_a, version=2, tier="sample", clock=clock))
    assert (await usage.send(old)).status_code == 202
    assert (await usage.send(event(tenant_a, 2))).json()["errors"][0]["kind"] == "future"
    [echoed] = (await usage.send({**old, "time": None}, echo="true")).json()["events"]
    assert echoed["time"] == "2015-05-21T00:00:00Z"


async def test_kafka_away_acknowledges_nothing(usage, tenant_a):
    away = UsageProducer(KafkaSettings(kafka_bootstrap="127.0.0.1:1"), delivery_seconds=0.2)
    await away.start()
    try:
        endpoint = endpoint_of(usage, away)
        response = await through(endpoint, usage, event(tenant_a, 1))
    finally:
        await away.stop()
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1


async def test_meters_are_put_by_operators_and_versioned(usage, tenant_a):
    tenant = usage.tenant_key(tenant_a)
    assert (await usage.http.put("/v1/meters/m", json=API_CALLS, headers=tenant)).status_code == 403
    first = await usage.put_meter("m", API_CALLS)
    assert (await usage.put_meter("m", API_CALLS))["version"] == first["version"] == 1
    assert (await usage.put_meter("m", {**API_CALLS, "group_by": {}}))["version"] == 2
    fixed = await usage.http.put("/v1/meters/m", json=BANDWIDTH, headers=usage.operator)
    assert (fixed.status_code, fixed.json()["type"]) == (409, "meter-fixed")
    stale = await usage.http.put("/v1/meters/m", json=API_CALLS, headers={**usage.operator, "If-Match": '"1"'})
    assert stale.status_code == 412
    for wrong in ({**API_CALLS, "value": "$.a"}, {**API_CALLS, "extra": 1}, {**BANDWIDTH, "value": "bytes"}):
        assert (await usage.http.put("/v1/meters/w", json=wrong, headers=usage.operator)).status_code == 422
    assert [each["slug"] for each in (await usage.http.get("/v1/meters", headers=tenant)).json()["items"]] == ["m"]
    assert (await usage.http.get("/v1/meters/none", headers=tenant)).status_code == 404


async def test_a_filter_has_one_form_however_it_is_written(usage):
    plain = {**API_CALLS, "group_by": {"method": "$.method", "path": "$.path"}}
    first = await usage.put_meter("m", {**plain, "filter": {"$.path": {"eq": 1, "ne": "/b"}}})
    assert first["filter"] == {"$.path": {"eq": 1, "ne": "/b"}}
    for written in (
        {"path": {"ne": "/b", "eq": 1}},
        {"path": {"op": "eq", "value": 1}, "$.path": {"ne": "/b"}},
    ):
        assert (await usage.put_meter("m", {**plain, "filter": written}))["version"] == 1
    changed = await usage.put_meter(
        "m", {**plain, "filter": {"path": {"op": "eq", "value": True}, "$.path": {"ne": "/b"}}}
    )
    assert (changed["version"], changed["filter"]) == (2, {"$.path": {"eq": True, "ne": "/b"}})
    for wrong in (
        {"colour": {"eq": "red"}},
        {"path": {"op": "near", "value": 1}},
        {"path": {"op": "eq", "value": 1}, "$.path": {"eq": 2}},
        {"path": {"op": "eq"}},
    ):
        refused = await usage.http.put("/v1/meters/m", json={**plain, "filter": wrong}, headers=usage.operator)
        assert refused.status_code == 422, refused.text
    numbered = await usage.http.put("/v1/meters/m", json={**plain, "backfill_from": 0}, headers=usage.operator)
    assert numbered.status_code == 422


async def test_a_tenant_reads_its_own_usage_only(usage, tenant_a, tenant_b):
    await usage.put_meter("api-calls", API_CALLS)
    now = datetime.now(UTC)
    span = {"from": (now - timedelta(hours=2)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
    own = usage.tenant_key(tenant_b)
    async with usage.metering():
        await usage.send(event(tenant_a, 1, data={"bytes": "x"}), event(tenant_a, 2, type="other"))
        await eventually(usage.counted, within=60)
    for path in ("/v1/events", "/v1/dead-letters", "/v1/unmatched-types", "/v1/meters/api-calls/query"):
        windows = {"window": "hour"} if path.endswith("/query") else {}  # without one an empty total is 0, and an item
        response = await usage.http.get(path, params={**span, **windows}, headers=own)
        assert (response.status_code, response.json()["items"]) == (200, [])
        foreign = await usage.http.get(path, params={**span, "tenant_id": str(tenant_a.id)}, headers=own)
        assert (foreign.status_code, foreign.json()["type"]) == (403, "tenant-mismatch")
    assert (await usage.http.post("/v1/cuts", headers=own)).status_code == 403
    nobody = await usage.http.get("/v1/events", headers=usage.operator)
    assert (nobody.status_code, nobody.json()["type"]) == (400, "tenant-missing")


@pytest.mark.parametrize(
    "params",
    [
        {"timezone": "Mars/Olympus"},
        {"window": "fortnight"},
        {"group_by": "planet"},
        {"filter[planet]": "mars"},
        {"from": "2026-01-01T00:00:00"},
        {"from": "2030-01-01T00:00:00Z"},
        {"window": "minute", "from": "2026-01-01T00:00:00Z"},
        {"fill": "one"},
        {"from": "0001-01-01T00:00:00+14:00"},
        {"to": "9999-12-31T23:59:59-14:00"},
    ],
)
async def test_questions_that_make_no_sense(usage, tenant_a, params):
    await usage.put_meter("api-calls", API_CALLS)
    asked = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-21T00:00:00Z", **params}
    response = await usage.http.get("/v1/meters/api-calls/query", params=asked, headers=usage.tenant_key(tenant_a))
    assert response.status_code == 422, response.text
    assert response.json()["errors"]


def replaced(tenant, **changes):
    return msgspec.structs.replace(tenant, **changes)


def endpoint_of(usage, sender, *, memory: IngestMemory | None = None, **options):
    """An endpoint on a sender of the test's own, with room for anything."""
    directory = usage.state.directory
    return IngestEndpoint(
        directory=directory,
        clock=SystemClock(),
        sender=sender,
        limits=Limits(max_events=100, max_body_bytes=1 << 20),
        memory=memory or IngestMemory(64 << 20, lambda: 0),
        rates=IngestRates(
            Limiter("usage", directory, gate=FairGate(10, max_waiting=10, wait=1.0)), directory, lambda _: 1
        ),
        keep_late=keep_none,
        refuse_billed=refuse_none,
        **options,
    )


async def keep_none(_refused, _resolve):
    """Late events are another test's."""


async def refuse_none(intake):
    """So is history."""
    return intake


async def through(endpoint, usage, sent):
    """A response of the endpoint alone, behind the problem handlers, as an operator's service would get it."""
    app = FastAPI()
    install_problem_handlers(app)
    principal = Principal(subject="s", kind=PrincipalKind.SERVICE, scopes=frozenset({Scope.SERVICE}), credential_id="c")

    async def receive(request: Request):
        request.scope["tenantry.identity"] = (principal, None)
        return await endpoint.receive(request)

    app.add_route("/v1/events", receive, methods=["POST"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://usage.test") as client:
        return await client.post("/v1/events", content=json.dumps([sent]), headers=BATCH)
