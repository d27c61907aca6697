"""Worked cases of OpenMeter and Lago over HTTP: what is taken in, what is counted of it, what is said of the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from worked_cases import cases, needs_cases, only

from tenantry.testing import eventually

from .support import event

DURATION = {"event_type": "http.request", "aggregation": "sum", "value": "$.duration_ms", "unit": "millisecond"}

pytestmark = needs_cases


def events_of(given: dict[str, Any], tenant) -> list[dict[str, Any]]:
    """The events of a case; a value is null, there or, by the name "missing", not."""
    only(given, "data", "datacontenttype", "stored_values")
    if "stored_values" not in given:
        changes = {name: given[name] for name in ("data", "datacontenttype") if name in given}
        return [event(tenant, 0, **{"data": None, **changes})]
    data = [{} if value == "missing" else {"duration_ms": value} for value in given["stored_values"]]
    return [event(tenant, number, data=each) for number, each in enumerate(data)]


@pytest.mark.parametrize("case", cases("openmeter", "ingest_http"))
async def test_what_is_taken_in_and_counted(usage, tenant_a, case):
    await usage.put_meter("duration", DURATION)
    sent, expected = events_of(case["given"], tenant_a), case["expect"]
    only(expected, "status", "read_validation_error", "sum", "listed_events")
    answer = await usage.send(*sent)
    if expected["status"] >= 400:
        assert answer.status_code == expected["status"]
        return
    # 202 where they say 204: it is said after Kafka has the events, and how many (rule 1).
    assert (answer.status_code, answer.json()["accepted"]) == (202, len(sent))
    now = datetime.now(UTC)
    span = {"from": (now - timedelta(hours=2)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
    own = usage.tenant_key(tenant_a)
    async with usage.metering():
        await eventually(usage.counted, within=60)
    listed = (await usage.http.get("/v1/events", params=span, headers=own)).json()["items"]
    assert len(listed) == expected.get("listed_events", len(sent))
    letters = await usage.fetch("SELECT kind, reason FROM pool.dead_letter")
    if "read_validation_error" in expected:
        assert [letter["kind"] for letter in letters] == ["invalid-value"]
        assert all(letter["reason"] for letter in letters)
    if "sum" in expected:
        [item] = (await usage.query(tenant_a, "duration", **span))["items"]
        assert item["value"] == expected["sum"]
        assert len(letters) == len(sent) - 1


@pytest.mark.parametrize("case", cases("lago", "events.batch"))
async def test_batches(usage, tenant_a, case):
    given, expected = case["given"], case["expect"]
    only(given, "events", "same_transaction_id")
    only(expected, "error", "errors", "persisted")
    same = set(given.get("same_transaction_id", ()))
    sent = [event(tenant_a, min(same) if number in same else number) for number in range(given["events"])]
    answer = await usage.send(*sent)
    if same:
        # Rule 1 overrules the case: a copy is a success, so the batch stands and the event counts once.
        assert "value_already_exist" in expected["errors"].values()
        assert (answer.status_code, answer.json()["accepted"]) == (202, len(sent))
        async with usage.metering():
            await eventually(usage.counted, within=60)
        [stored] = await usage.fetch("SELECT count(*) FROM pool.usage_event")
        assert stored["count"] == len(sent) - len(same) + 1
    else:
        assert ("error" in expected or "errors" in expected) is (answer.status_code == 400)
