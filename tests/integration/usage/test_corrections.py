"""Corrections from HTTP to figures and topics: what they cancel, what counts instead, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
from broker import read_topic

from tenantry.testing import eventually
from usage_service.metering.rollups import RollupStore

from .corrections import AGGREGATIONS, cancels, correct, figures, listed, total
from .support import API_CALLS, BANDWIDTH, event


async def test_an_event_is_cancelled_and_another_counts_instead(usage, tenant_a, tenant_b):
    await usage.put_meter("api-calls", API_CALLS)
    await usage.put_meter("bandwidth", BANDWIDTH)

    async def published() -> set[tuple[str, str, str]]:
        records = await read_topic(usage.kafka, "usage.rollups.v1")
        last = {record.key: msgspec.json.decode(record.value) for record in records}
        return {
            (each["tenant_id"], each["sum"], each["count"]) for each in last.values() if each["meter"] == "bandwidth"
        }

    async def is_published(total: str, count: str) -> bool:
        return await published() == {(str(tenant_a.id), total, count), (str(tenant_b.id), "30", "3")}

    async with usage.metering(), usage.relaying():
        await usage.send(*[event(tenant, number) for tenant in (tenant_a, tenant_b) for number in range(3)])
        await eventually(partial(is_published, "30", "3"), within=60, interval=0.3)
        answer = await correct(usage, cancels(tenant_a, 0))
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        await eventually(partial(is_published, "20", "2"), within=60, interval=0.3)
        other = event(tenant_a, 10, data={"method": "GET", "bytes": 1})
        await correct(usage, cancels(tenant_a, 1, other, time=event(tenant_a, 1)["time"]))
        await eventually(partial(is_published, "11", "2"), within=60, interval=0.3)
    assert await total(usage, tenant_a, "api-calls") == "2"
    assert await total(usage, tenant_a, "bandwidth") == "11"
    assert await total(usage, tenant_b, "bandwidth") == "30"


async def test_both_events_stay_visible(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    async with usage.metering():
        await usage.send(event(tenant_a, 0), event(tenant_a, 1))
        answer = await correct(
            usage, cancels(tenant_a, 0, event(tenant_a, 2), reason="sent twice"), tenant_id=str(tenant_a.id)
        )
        assert answer.status_code == 400, answer.text
        answer = await correct(usage, {**cancels(tenant_a, 0, event(tenant_a, 2)), "reason": "sent twice"})
        [correction] = answer.json()["ids"]
        await eventually(usage.counted, within=60)
    key = usage.tenant_key(tenant_a)
    shown = (await usage.http.get("/v1/events", headers=key)).json()["items"]
    assert {each["id"]: each["cancelled_by"] for each in shown} == {"e-0": correction, "e-1": None, "e-2": None}
    behind = (await usage.http.get("/v1/events", params={"meter": "bandwidth"}, headers=key)).json()["items"]
    assert {each["id"] for each in behind} == {"e-1", "e-2"}
    [row] = await listed(usage, tenant_a)
    assert row["id"] == correction
    assert (row["state"], row["reason"]) == ("applied", "sent twice")
    assert (row["cancels"], row["replacement"]) == ({"source": "tests", "id": "e-0"}, {"source": "tests", "id": "e-2"})


async def test_every_aggregation_forgets_what_is_cancelled(usage, tenant_a):
    """As if it had never come, in rollups and in raw events, by hour, by minute and by group."""
    for aggregation in AGGREGATIONS:
        value = {} if aggregation == "count" else {"value": "$.bytes"}
        definition = {**API_CALLS, "aggregation": aggregation, **value, "group_by": {"path": "$.path"}}
        await usage.put_meter(aggregation.replace("_", "-"), definition)
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
    values = [5, 9, 1, 9, 7, 1, 3, 5, 2, 8, 8, 4]
    events = [
        event(
            tenant_a,
            number,
            time=(start + timedelta(minutes=17 * number)).isoformat(),
            data={"bytes": value, "path": f"/{number % 2}"},
        )
        for number, value in enumerate(values)
    ]
    gone = {1, 2, 5, 6, 8, 11}
    span = {"from": start.isoformat(), "to": (start + timedelta(hours=5, minutes=20)).isoformat()}

    async def answers() -> dict[tuple[str, ...], Any]:
        return {
            (slug, window, group): await figures(
                usage, tenant_a, slug, window=window, **span, **({"group_by": group} if group else {})
            )
            for slug in (each.replace("_", "-") for each in AGGREGATIONS)
            for window in ("minute", "hour", "none")
            for group in ("", "path")
        }

    async with usage.metering():
        await usage.send(*[each for number, each in enumerate(events) if number not in gone])
        await eventually(usage.counted, within=60)
        without = await answers()
        await usage.send(*[events[number] for number in sorted(gone)])
        await eventually(usage.counted, within=60)
        assert await answers() != without
        answer = await correct(usage, *[cancels(tenant_a, number) for number in sorted(gone)])
        assert answer.status_code == 202, answer.text
        await eventually(usage.counted, within=60)
    assert await answers() == without


async def test_an_event_is_taken_out_of_the_rollup_that_counted_it(usage, tenant_a, monkeypatch):
    """Its own group's, or that of all groups past the bound."""
    monkeypatch.setattr(RollupStore.__init__, "__kwdefaults__", {"max_groups": 2})
    for slug, aggregation in (("calls", "count"), ("largest", "max")):
        value = {} if aggregation == "count" else {"value": "$.bytes"}
        await usage.put_meter(slug, {**API_CALLS, "aggregation": aggregation, **value, "group_by": {"path": "$.path"}})
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0).isoformat()
    async with usage.metering():
        for number in range(5):
            data = {"path": f"/{number}", "bytes": number}
            await usage.send(event(tenant_a, number, time=now, data=data))
            await eventually(usage.counted, within=60)
        await correct(usage, cancels(tenant_a, 1), cancels(tenant_a, 4))
        await eventually(usage.counted, within=60)
    rows = await usage.fetch(
        "SELECT groups, count, maximum FROM pool.usage_rollup AS rollup JOIN system.meter ON meter.id = meter_id"
    )
    found = {(json.loads(row["groups"])["path"], row["maximum"]): row["count"] for row in rows if row["count"]}
    assert found == {("/0", None): 1, ("__other__", None): 2, ("/0", 0): 1, ("__other__", 3): 2}


async def test_a_repeated_correction_is_a_copy_and_another_one_a_conflict(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    first = cancels(tenant_a, 0, event(tenant_a, 1, data={"bytes": 3}))
    async with usage.metering():
        await usage.send(event(tenant_a, 0))
        ids = [(await correct(usage, first)).json()["ids"] for _ in range(3)]
        await correct(usage, cancels(tenant_a, 0, event(tenant_a, 2, data={"bytes": 4})))
        await eventually(usage.counted, within=60)
        assert await total(usage, tenant_a, "bandwidth") == "3"
        # What counts instead is corrected in turn.
        await correct(usage, cancels(tenant_a, 1, event(tenant_a, 3, data={"bytes": 4})))
        await eventually(usage.counted, within=60)
    assert ids[0] == ids[1] == ids[2]
    assert await total(usage, tenant_a, "bandwidth") == "4"
    letters = await usage.fetch("SELECT kind, reason, type FROM pool.dead_letter")
    assert [(row["kind"], row["type"]) for row in letters] == [("conflict", "tenantry.correction")]
    assert "corrected already" in letters[0]["reason"]


async def test_ids_that_return_are_told_apart_by_time(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    now = datetime.now(UTC)
    old, new = ((now - timedelta(days=days)).isoformat() for days in (20, 10))
    async with usage.metering():
        await usage.send(event(tenant_a, 0, time=old, data={"bytes": 1}))
        await usage.send(event(tenant_a, 0, time=new, data={"bytes": 10}))
        await eventually(usage.counted, within=60)
        await correct(usage, cancels(tenant_a, 0, time=old))
        await eventually(usage.counted, within=60)
        span = {"from": (now - timedelta(days=30)).isoformat(), "to": now.isoformat(), "window": "none"}
        assert [value for _, value in await figures(usage, tenant_a, "bandwidth", **span)] == ["10"]
        await correct(usage, cancels(tenant_a, 0))
        await eventually(usage.counted, within=60)
    assert [value for _, value in await figures(usage, tenant_a, "bandwidth", **span)] == [None]


async def test_what_no_meter_counted_is_no_longer_listed_as_unmatched(usage, tenant_a):
    async with usage.metering():
        await usage.send(event(tenant_a, 0), event(tenant_a, 1))
        await correct(usage, cancels(tenant_a, 0))
        await eventually(usage.counted, within=60)
    [row] = await usage.fetch("SELECT count FROM pool.unmatched_type")
    assert row["count"] == 1


WRONG: list[tuple[Any, int, str]] = [
    ([], 400, "no correction"),
    ("text", 400, "object"),
    ({"cancels": {"source": "tests", "id": "e-0"}}, 400, "tenant"),
    ({"cancels": {"source": "tests", "id": "e-0", "subject": "nobody"}}, 400, "names no tenant"),
    ({"cancels": {"source": "tests", "subject": "A"}}, 400, "required"),
    ({"cancels": {"source": "", "id": "e-0", "subject": "A"}}, 400, "not empty"),
    ({"cancels": {"source": "tests", "id": "e\u0000", "subject": "A"}}, 400, "NUL"),
    ({"cancels": {"source": "tests", "id": "e-0", "subject": "A", "time": "yesterday"}}, 400, "RFC 3339"),
    ({"cancels": {"source": "tests", "id": "e-0", "subject": "A"}, "replacment": {}}, 400, "not known"),
    ({"cancels": {"source": "tests", "id": "e-0", "subject": "A"}, "replacement": {"id": "x"}}, 400, "specversion"),
    ({"cancels": {"source": "tests", "id": "e-0", "subject": "A"}, "replacement": []}, 400, "event"),
    ({"cancels": {"source": "tests", "id": "e-0", "subject": "A"}, "reason": "x" * 501}, 400, "500"),
]


@pytest.mark.parametrize(("asked", "status", "reason"), WRONG)
async def test_what_is_not_valid_is_refused_whole(usage, tenant_a, asked, status, reason):
    text = json.dumps(asked).replace('"A"', f'"{tenant_a.id}"')
    headers = {"Content-Type": "application/json", **usage.service}
    for content in (text, f"[{text}, {json.dumps(cancels(tenant_a, 1))}]" if isinstance(asked, dict) else text):
        answer = await usage.http.post("/v1/events/correct", content=content, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
        assert reason in answer.text


async def test_an_event_is_not_replaced_under_its_own_id(usage, tenant_a):
    answer = await correct(usage, cancels(tenant_a, 0, event(tenant_a, 0, data={"bytes": 5})))
    assert answer.status_code == 400
    assert "replacement.id" in answer.text


async def test_a_correction_is_of_the_selected_tenant_and_never_of_a_tenants_own_key(usage, tenant_a, tenant_b):
    foreign = await correct(usage, cancels(tenant_b, 0), tenant_id=str(tenant_a.id))
    mixed = await correct(usage, cancels(tenant_a, 0, event(tenant_b, 1)))
    own = await correct(usage, cancels(tenant_a, 0), headers=usage.tenant_key(tenant_a))
    assert [answer.status_code for answer in (foreign, mixed, own)] == [403, 403, 403]
    assert foreign.json()["type"].endswith("tenant-mismatch")
    selected = await correct(usage, {"cancels": {"source": "tests", "id": "e-0"}}, tenant_id=str(tenant_a.id))
    assert selected.status_code == 202, selected.text


@pytest.mark.parametrize("careful", [False, True])
async def test_no_event_may_pass_for_a_correction(usage, tenant_a, careful):
    attributes = {"dataschema": "x", "note": "y"} if careful else {}
    answer = await usage.send(event(tenant_a, 0, type="tenantry.correction", **attributes))
    assert answer.status_code == 400
    assert "corrections" in answer.text


async def test_exact_numbers_of_replacements_stay_exact(usage, tenant_a):
    await usage.put_meter("bandwidth", BANDWIDTH)
    async with usage.metering():
        await usage.send(event(tenant_a, 0))
        text = json.dumps(cancels(tenant_a, 0, event(tenant_a, 1, data={"bytes": "@"})))
        content = text.replace('"@"', "12345678901234567890.123456789012345678")
        headers = {"Content-Type": "application/json", **usage.service}
        answer = await usage.http.post("/v1/events/correct", content=content, headers=headers)
        assert answer.status_code == 202, answer.text
        await eventually(usage.counted, within=60)
    assert await total(usage, tenant_a, "bandwidth") == "12345678901234567890.123456789012345678"
