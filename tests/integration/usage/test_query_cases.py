"""Worked cases of OpenMeter and Lago over HTTP: what is answered of events that were sent and counted."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from worked_cases import cases, needs_cases, only

from tenantry import Tenant, Tier
from tenantry.testing import eventually

from .support import Usage, event

START = datetime(2024, 1, 1, tzinfo=UTC)
# Of the values of a window that a range cuts (rule 9).
OF_VALUES: dict[str, Callable[[list[Decimal]], Decimal]] = {
    "SUM": lambda values: sum(values, Decimal(0)),
    "COUNT": lambda values: Decimal(len(values)),
    "MIN": min,
    "MAX": max,
    "AVG": lambda values: sum(values, Decimal(0)) / len(values),
    "LATEST": lambda values: values[-1],
    "UNIQUE_COUNT": lambda values: Decimal(len(set(values))),
}

Timed = tuple[datetime, Any]
Row = tuple[datetime, datetime, Decimal]
Counted = Callable[[str, list[Timed]], Awaitable[None]]
Ask = Callable[..., Awaitable[list[Row]]]

pytestmark = needs_cases


@pytest.fixture
def counted(usage: Usage, tenant_a: Tenant) -> Counted:
    """Has a meter count values of some instants, which may lie years back."""

    async def counted(aggregation: str, values: list[Timed]) -> None:
        tier = Tier(name="standard", version=2, max_event_age_seconds=None)
        usage.state.directory.upsert_tier(tier)
        reads = {} if aggregation.upper() == "COUNT" else {"value": "$.value"}
        await usage.put_meter("case", {"event_type": "case", "aggregation": aggregation.lower(), **reads})
        sent = [
            event(tenant_a, number, type="case", time=time.isoformat(), data={"value": value})
            for number, (time, value) in enumerate(values)
        ]
        answer = await usage.send(*sent)
        assert answer.status_code == 202, answer.text
        async with usage.metering():
            await eventually(usage.counted, within=60)

    return counted


@pytest.fixture
def ask(usage: Usage, tenant_a: Tenant) -> Ask:
    """The answer of the meter that counts."""

    async def ask(first: datetime, last: datetime, **parameters: str) -> list[Row]:
        span = {"from": first.isoformat(), "to": last.isoformat()}
        items = (await usage.query(tenant_a, "case", **span, **parameters))["items"]
        return [
            (moment(each["window_start"]), moment(each["window_end"]), Decimal(each["value"]))
            for each in items
            if each["value"] is not None
        ]

    return ask


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize("case", cases("openmeter", "meter_window"))
async def test_windows(counted: Counted, ask: Ask, case: dict[str, Any]) -> None:
    given, rows = case["given"], case["expect"]["rows"]
    if "query" not in given:
        only(given, "aggregation", "window", "subjects", "value_each", "event_offsets_from_midnight_utc")
        times = [START + duration(offset) for offset in given["event_offsets_from_midnight_utc"]]
        await counted(given["aggregation"], [(time, given["value_each"]) for time in times] * given["subjects"])
        found = await ask(START, max(times) + timedelta(minutes=1), window=given["window"].lower())
        assert found == [
            (START + duration(row["from_offset"]), START + duration(row["to_offset"]), Decimal(row["value"]))
            for row in rows
        ]
        return
    only(given, "aggregation", "query", "events")
    query = given["query"]
    only(query, "from", "to", "window", "tz")
    events = [(moment(each["time"]), each["value"]) for each in given["events"]]
    await counted(given["aggregation"], events)
    first, last = moment(query["from"]), moment(query["to"])
    found = await ask(first, last, window=query["window"].lower(), timezone=query["tz"])
    expected = [(moment(row["from"]), moment(row["to"]), Decimal(row["value"])) for row in rows]
    if not all(first <= time < last for time, _ in events):
        # Rule 9: a range that cuts a window gives it only the events inside the range; theirs gives the whole window.
        inside = [
            (start, end, [Decimal(value) for time, value in events if start <= time < end and first <= time < last])
            for start, end, _ in expected
        ]
        figure = OF_VALUES[given["aggregation"]]
        expected = [(start, end, figure(values)) for start, end, values in inside if values]
    assert found == expected


@pytest.mark.parametrize("case", cases("openmeter", "meter_window_tz"))
async def test_windows_in_a_zone(counted: Counted, ask: Ask, case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    only(given, "tz", "window", "from", "to", "events_local", "value_each")
    zone = ZoneInfo(given["tz"])
    times = [datetime.fromisoformat(local).replace(tzinfo=zone) for local in given["events_local"]]
    await counted("SUM", [(time, given["value_each"]) for time in times])
    found = await ask(moment(given["from"]), moment(given["to"]), window=given["window"].lower(), timezone=given["tz"])
    assert len(found) == expect["row_count"]
    assert {value for _, _, value in found} == {Decimal(given["value_each"])}
    assert all(one[1] == other[0] for one, other in pairwise(found)) == expect["contiguous"]
    named = {name: row for name, row in expect.items() if re.fullmatch(r"row_\d+", name)}
    only(expect, "row_count", "contiguous", "note", *named)
    for name, row in named.items():
        start, end, _ = found[int(name.removeprefix("row_"))]
        assert (start, end) == (moment(row["from"]), moment(row["to"]))
        assert (end - start) / timedelta(hours=1) == float(row["length_hours"])


@pytest.mark.parametrize("case", cases("openmeter", "meter_stored_at"))
async def test_what_was_received_before_an_instant(
    usage: Usage, counted: Counted, ask: Ask, case: dict[str, Any]
) -> None:
    given, query = case["given"], case["given"]["query"]
    only(given, "aggregation", "query", "events")
    only(query, "from", "to", "stored_at")
    only(query["stored_at"], "lt")
    await counted(given["aggregation"], [(moment(each["time"]), each["value"]) for each in given["events"]])
    for number, each in enumerate(given["events"]):
        changed = "UPDATE pool.usage_event SET received_at = $1 WHERE event_id = $2"
        await usage.fetch(changed, moment(each["stored_at"]), f"e-{number}")
    first, last = moment(query["from"]), moment(query["to"])
    found = await ask(first, last, received_before=query["stored_at"]["lt"])
    assert found == [(moment(row["from"]), moment(row["to"]), Decimal(row["value"])) for row in case["expect"]["rows"]]


@pytest.mark.parametrize("case", cases("lago", "agg.latest", "agg.max", "agg.unique_count"))
async def test_of_values_in_their_order(counted: Counted, ask: Ask, case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    if given.get("removed"):
        pytest.skip("rule 8: a unique count has no removals")
    listed = given.get("values", [*given.get("persisted", []), *given.get("added", [])])
    values = [each for text in listed for each in several(str(text))]
    timed = [(START + timedelta(seconds=number), value) for number, value in enumerate(values)]
    if not timed:
        timed = [(START + timedelta(days=1), "1")]  # outside of the range
    await counted(case["area"].partition(".")[2], timed)
    found = [value for _, _, value in await ask(START, START + timedelta(hours=1))]
    # Rule 9: of no events latest and max are null, and not 0.
    nothing = not values and case["area"] != "agg.unique_count"
    assert found == ([] if nothing else [Decimal(expect["aggregation"])])


@pytest.mark.parametrize("case", cases("lago", "fx.bucketed"))
async def test_the_greatest_of_each_bucket(counted: Counted, ask: Ask, case: dict[str, Any]) -> None:
    """The figures that are priced; the prices by bucket are no model of billing, which refuses a meter of maxima."""
    greatest = case["given"]["bucket_max"]
    events = []
    for hour, value in enumerate(greatest):
        time = START + timedelta(hours=hour)
        events += [(time, "1"), (time + timedelta(minutes=59), value)]
    await counted("MAX", events)
    found = await ask(START, START + timedelta(days=1), window="hour")
    assert [value for _, _, value in found] == [Decimal(value) for value in greatest]


def duration(text: str) -> timedelta:
    """As in `P1DT1H`."""
    parts = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", text)
    assert parts is not None, text
    days, hours, minutes, seconds = map(int, parts.groups("0"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def several(text: str) -> list[str]:
    """`<10 x4` is four values below ten."""
    parts = re.fullmatch(r"<(\d+) x(\d+)", text)
    return [text] if parts is None else [str(int(parts[1]) - 1)] * int(parts[2])
