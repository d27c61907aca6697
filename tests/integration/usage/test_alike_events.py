"""Raw events that are alike are judged once, with the figures that one by one they have."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenantry.testing import eventually
from usage_service.domain.meters import Aggregation
from usage_service.metering.rollups import RollupStore
from usage_service.queries import questions

START = (datetime.now(UTC) - timedelta(days=2)).replace(hour=10, minute=0, second=0, microsecond=0)
RAGGED = {
    "from": (START + timedelta(minutes=7)).isoformat(),
    "to": (START + timedelta(hours=2, minutes=41)).isoformat(),
}
# What JSON may say of a value, of a dimension with brackets of its own, and of a filter.
DATA = [
    '{"n": 1, "a": [{"b": "x"}]}',
    '{"n": 1.0, "a": [{"b": "x"}]}',
    '{"n": 1e0, "a": [{"b": "\\u0078"}]}',
    '{"n": "1.50", "a": [{"b": "é"}]}',
    '{"n": 1.5, "a": [{"b": "\\u00e9"}]}',
    '{"n": " 1", "a": [{"b": 1}]}',
    '{"n": "01", "a": [{"b": 1.0}]}',
    '{"n": "1e20", "a": [{"b": "1"}]}',
    '{"n": 1e20, "a": [{"b": true}]}',
    '{"n": -0.0, "a": [{"b": "true"}]}',
    '{"n": 0.000000000000000001, "a": [{"b": null}]}',
    '{"n": 99999999999999999999999999999999999999, "a": [{}]}',
    '{"n": "-12345678901234567890.123456789012345678", "a": []}',
    '{"n": null, "a": {"0": {"b": "x"}}}',
    '{"a": [[{"b": "x"}]]}',
    '{"n": true, "a": null}',
    '{"n": [1, 1.0], "a": [{"b": {"z": 1.0, "y": [1e1]}}]}',
    '{"n": {"m": 1}, "a": [{"b": {"y": [10], "z": 1}}]}',
    '{"n": 7, "n": 8, "a": [{"b": "x"}, {"b": "last"}]}',
    '{"n": "8", "a": [{"b": "last"}], "keep": "no"}',
    '{"n": 3, "a": [{"b": "\\"quoted\\"\\n"}], "keep": 0}',
]
QUESTIONS: list[dict[str, Any]] = [
    {},
    {"window": "minute"},
    {"window": "hour", "timezone": "Asia/Kathmandu", "group_by": ["b", "last"]},
    {"group_by": "b", "filter[last][ne]": "last"},
    {"filter[$.n][gte]": "1"},
    {"filter[$.a[0].b]": "true", "window": "hour"},
    {"filter[$.keep][exists]": "false", "group_by": ["b", "last"]},
    {"received_before": (START + timedelta(days=9)).isoformat(), "group_by": "b"},
]


@pytest.fixture
async def counted(usage, tenant_a, monkeypatch):
    """Every document six times, in minutes of three hours; two versions of meters of all aggregations."""
    monkeypatch.setattr(RollupStore.__init__, "__kwdefaults__", {"max_groups": 3})
    meters = [each for each in Aggregation if each is not Aggregation.TIME_WEIGHTED]
    for part in range(2):
        for each in meters:
            value = {} if each is Aggregation.COUNT else {"value": "$.n"}
            dimensions = {"b": "$.a[0].b", **({"last": "$['a'][-1].b"} if part else {})}
            definition = {"event_type": "x", "aggregation": each.value, "group_by": dimensions, **value}
            await usage.put_meter(each.value, {**definition, "filter": {"$.keep": {"ne": "no"}}})
        async with usage.metering():
            await usage.http.post(
                "/v1/events",
                content="[" + ",".join(_events(tenant_a, part)) + "]",
                headers={"Content-Type": "application/cloudevents-batch+json", **usage.service},
            )
            await eventually(usage.counted, within=60)
    return usage, [each.value for each in meters]


def _events(tenant, part: int) -> list[str]:
    found = []
    for number, data in enumerate(DATA * 3):
        attributes = {
            "specversion": "1.0",
            "id": f"{part}-{number}",
            "source": "tests",
            "type": "x",
            "subject": str(tenant.id),
            "time": (START + timedelta(minutes=number * 17 % 170, seconds=part)).isoformat(),
        }
        found.append(f'{json.dumps(attributes)[:-1]}, "data": {data}}}')
    return found


async def test_they_have_the_same_figures_as_one_by_one(counted, tenant_a, monkeypatch):
    usage, meters = counted
    assert (await usage.fetch("SELECT count(*) FROM pool.usage_event"))[0][0] == 2 * 3 * len(DATA)
    for asked in QUESTIONS:
        answers = [await usage.query(tenant_a, slug, **RAGGED, **asked) for slug in meters]
        with monkeypatch.context() as patched:
            patched.setattr(questions, "MAX_PLACES", -1)
            one_by_one = [await usage.query(tenant_a, slug, **RAGGED, **asked) for slug in meters]
        assert answers == one_by_one
        assert any(item["value"] not in {None, "0"} for item in answers[0]["items"])
        assert "group_by" not in asked or "__other__" in {item["group"]["b"] for item in answers[0]["items"]}


async def test_a_backfilled_meter_counts_what_was_before_it_from_its_instant_on(counted, tenant_a):
    usage, _ = counted
    since, end = START + timedelta(minutes=30), START + timedelta(minutes=58)
    await usage.put_meter("later", {"event_type": "x", "aggregation": "count", "backfill_from": since.isoformat()})
    [item] = (await usage.query(tenant_a, "later", **{**RAGGED, "to": end.isoformat()}))["items"]
    seen = "SELECT count(*) FROM pool.usage_event WHERE event_time >= $1 AND event_time < $2"
    [[before]], [[wanted]] = [await usage.fetch(seen, *span) for span in ((START, since), (since, end))]
    assert before > 0
    assert item["value"] == str(wanted)


async def test_more_raw_events_than_an_answer_takes_are_refused(counted, tenant_a, monkeypatch):
    usage, _ = counted
    params = {"tenant_id": str(tenant_a.id), **RAGGED, "window": "minute"}
    monkeypatch.setattr(questions, "MAX_READ", 60)
    for slug, status in (("count", 200), ("sum", 422), ("latest", 422)):
        response = await usage.http.get(f"/v1/meters/{slug}/query", params=params, headers=usage.operator)
        assert response.status_code == status, response.text
