"""The worked numbers of others for meters, windows and queries: equal to ours unless a rule says otherwise."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from usage_service.domain.errors import InvalidQuantity, InvalidWindow
from usage_service.domain.instants import microseconds
from usage_service.domain.meters import Aggregation, CompiledMeter, Meter, MeterDefinition, check_definition
from usage_service.domain.rollups import At, Sample, empty_state
from usage_service.domain.series import integrate, run_of
from usage_service.domain.windows import Granularity, check_range, windows, zone

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("TENANTRY_CASES", REPOSITORY.parent / "shared" / "cases"))
START = datetime(2024, 1, 1, tzinfo=UTC)
Timed = tuple[datetime, dict[str, Any]]

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no shared cases in {FOLDER} (TENANTRY_CASES)")


def cases(name: str, *areas: str) -> list[Any]:
    file = FOLDER / f"{name}.json"
    found = json.loads(file.read_text()) if file.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in found if case["area"] in areas]


def moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def figure(aggregation: str, events: list[Timed], *, value: str = "$.value") -> str | None:
    """The figure of these events, by the states that the worker and the queries use."""
    definition = MeterDefinition(
        event_type="t",
        aggregation=Aggregation(aggregation.lower()),
        value=None if aggregation.upper() == "COUNT" else value,
    )
    check_definition("m", definition)
    meter = CompiledMeter.of(Meter(id=UUID(int=0), slug="m", version=1, definition=definition, since=0))
    state = empty_state(definition.aggregation)
    for place, (time, data) in enumerate(events):
        with suppress(InvalidQuantity):
            state.observe(meter, data, At(microseconds(time), 0, 0, place))
    return state.figure(definition.aggregation)


def rows(
    aggregation: str, events: list[Timed], first: datetime, last: datetime, granularity: str, tz: str
) -> list[Any]:
    """(start, end, figure) of every window with events, each of its events inside the range (rule 9)."""
    found = []
    for window in windows(first, last, Granularity(granularity.lower()), zone(tz)):
        inside = [each for each in events if window.first <= each[0] < window.last]
        if inside:
            found.append((window.start, window.end, figure(aggregation, inside)))
    return found


@pytest.mark.parametrize("case", cases("openmeter", "meter_aggregation"))
def test_aggregations(case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    events = [(START + timedelta(seconds=each["offset_s"]), each["data"]) for each in given["events"]]
    events = [(time, json.loads(json.dumps(data), parse_float=Decimal)) for time, data in events]
    if "after" in given["range"]:
        events = []
    found = figure(given["aggregation"], events, value=given.get("value_property", "$.value"))
    if "value" not in expect:
        # Rule 9: an empty range is a row that says null, where others leave the row out.
        assert (expect["rows"], found) == ([], None)
    elif given["aggregation"] == "UNIQUE_COUNT" and events:
        # Rule 5: what is null is no value, and is listed as invalid instead of being a value of its own.
        assert found == str(len({str(each[1]["name"]) for each in events if each[1]["name"] is not None}))
    else:
        # Rule 8: exact decimals; theirs are binary floats, which ours round to.
        assert found is not None
        assert float(found) == float(expect["value"])


@pytest.mark.parametrize("case", cases("openmeter", "meter_window"))
def test_windows(case: dict[str, Any]) -> None:
    given = case["given"]
    expected = case["expect"]["rows"]
    if "query" not in given:
        spread = [START + _duration(offset) for offset in given["event_offsets_from_midnight_utc"]]
        events = [(time, {"value": given["value_each"]}) for time in spread for _ in range(given["subjects"])]
        found = rows(given["aggregation"], events, START, max(spread) + timedelta(minutes=1), given["window"], "UTC")
        assert found == [
            (START + _duration(row["from_offset"]), START + _duration(row["to_offset"]), row["value"])
            for row in expected
        ]
        return
    query = given["query"]
    first, last = moment(query["from"]), moment(query["to"])
    events = [(moment(each["time"]), each) for each in given["events"]]
    found = rows(given["aggregation"], events, first, last, query["window"], query["tz"])
    if all(first <= time < last for time, _ in events):
        assert found == [(moment(row["from"]), moment(row["to"]), row["value"]) for row in expected]
        return
    # Rule 9: a range that cuts a window gives it only the events inside the range; theirs gives the whole window.
    inside = {
        start: [each for each in events if start <= each[0] < end and first <= each[0] < last]
        for start, end in ((moment(row["from"]), moment(row["to"])) for row in expected)
    }
    assert [(start, value) for start, _, value in found] == [
        (start, figure(given["aggregation"], those)) for start, those in inside.items() if those
    ]


@pytest.mark.parametrize("case", cases("openmeter", "meter_window_tz"))
def test_windows_in_a_zone(case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    tz = zone(given["tz"])
    first, last = moment(given["from"]), moment(given["to"])
    events: list[Timed] = [
        (datetime.fromisoformat(local).replace(tzinfo=tz).astimezone(UTC), {"value": given["value_each"]})
        for local in given["events_local"]
    ]
    found = rows("SUM", events, first, last, given["window"], given["tz"])
    assert len(found) == expect["row_count"]
    assert {value for _, _, value in found} == {given["value_each"]}
    assert all(one[1] == other[0] for one, other in pairwise(found)) == expect["contiguous"]
    for name, row in expect.items():
        if name.startswith("row_") and name != "row_count":
            start, end, _ = found[int(name.removeprefix("row_"))]
            assert (start, end) == (moment(row["from"]), moment(row["to"]))
            assert (end - start) / timedelta(hours=1) == float(row["length_hours"])


@pytest.mark.parametrize("case", cases("openmeter", "meter_stored_at"))
def test_what_was_received_before_an_instant(case: dict[str, Any]) -> None:
    given = case["given"]
    query, limits = given["query"], given["query"]["stored_at"]
    known = [
        (moment(each["time"]), each)
        for each in given["events"]
        if moment(each["stored_at"]) < moment(limits["lt"]) and moment(query["from"]) <= moment(each["time"])
    ]
    [row] = case["expect"]["rows"]
    inside = [each for each in known if each[0] < moment(query["to"])]
    assert figure(given["aggregation"], inside) == row["value"]


@pytest.mark.parametrize("case", cases("openmeter", "query_validation"))
def test_ranges_that_are_refused(case: dict[str, Any]) -> None:
    given = case["given"]
    first, last = moment(given["from"]), moment(given["to"])
    if first <= last:
        # Rule 9: a range may be empty, and may cut its windows.
        check_range(first, last)
        return
    with pytest.raises(InvalidWindow):
        check_range(first, last)


@pytest.mark.parametrize("case", cases("lago", "agg.weighted_sum"))
def test_a_weighted_sum_of_changes_is_the_integral_of_their_total_over_the_period(case: dict[str, Any]) -> None:
    given = case["given"]
    unknown = given.keys() - {"period_from", "period_to_inclusive", "period_seconds", "events"}
    if unknown:
        pytest.skip(f"not the integral of a total: {sorted(unknown)}")
    changes = [(moment(each["timestamp"]), Decimal(each["delta"])) for each in given["events"]]
    start = moment(given["period_from"])
    mean = _mean(start, start + timedelta(seconds=int(given["period_seconds"])), changes)
    assert mean.quantize(Decimal("1e-5"), ROUND_HALF_UP) == Decimal(case["expect"]["aggregation_5dp"])


@pytest.mark.parametrize("case", cases("lago", "agg.prorated_sum"))
def test_a_sum_prorated_by_days_is_an_integral_from_the_day_of_each_change(case: dict[str, Any]) -> None:
    given = case["given"]
    start = moment(given["period_from"])
    changes = [(start - timedelta(days=1), Decimal(delta)) for delta in given["persisted"]]
    changes += [(moment(each["date"]), Decimal(each["delta"])) for each in given["events"]]
    mean = _mean(start, start + timedelta(days=int(given["period_days"])), changes)
    assert mean.quantize(Decimal("1e-5"), ROUND_CEILING) == Decimal(case["expect"]["aggregation"])
    assert len(changes) == case["expect"]["count"]


@pytest.mark.parametrize("case", cases("lago", "agg.unique_count"))
def test_unique_values_of_a_range(case: dict[str, Any]) -> None:
    given = case["given"]
    # What their recurring metric persists are values from before the period: our range begins where they began.
    values = [*given.get("persisted", []), *given.get("added", given.get("values", []))]
    if given.get("removed"):
        pytest.skip("rule 8: a unique count has no removals")
    assert figure("UNIQUE_COUNT", [(START, {"value": value}) for value in values]) == case["expect"]["aggregation"]


@pytest.mark.parametrize("case", cases("lago", "agg.latest", "agg.max"))
def test_of_single_values(case: dict[str, Any]) -> None:
    values = [each for text in case["given"]["values"] for each in _listed(str(text))]
    found = figure(case["area"].partition(".")[2], [(START, {"value": value}) for value in values])
    assert len(values) == case["expect"]["count"]
    # Rule 9: of no events these are null, and not 0.
    assert found == (case["expect"]["aggregation"] if values else None)


@pytest.mark.parametrize("case", cases("lago", "agg.rounding"))
def test_rounding(case: dict[str, Any]) -> None:
    pytest.skip(f"rule 12: a quantity is exact; its rounding ({case['name']}) is a line's, and billing's")


@pytest.mark.parametrize("case", cases("lago", "agg.prorated_unique_count"))
def test_prorated_unique_counts(case: dict[str, Any]) -> None:
    pytest.skip(f"rule 19: usage is not prorated ({case['given']['scenario']})")


@pytest.mark.parametrize("case", cases("lago", "fx.bucketed"))
def test_the_greatest_of_each_bucket(case: dict[str, Any]) -> None:
    """The figures that are priced; the prices by bucket are no model of billing, which refuses a meter of maxima."""
    events: list[Timed] = []
    for hour, greatest in enumerate(case["given"]["bucket_max"]):
        time = START + timedelta(hours=hour)
        events += [(time, {"value": "1"}), (time + timedelta(minutes=59), {"value": greatest})]
    found = rows("MAX", events, START, START + timedelta(days=1), "HOUR", "UTC")
    assert [value for _, _, value in found] == case["given"]["bucket_max"]


def _mean(first: datetime, last: datetime, changes: list[tuple[datetime, Decimal]]) -> Decimal:
    """The integral of the running total of changes over [first, last), divided by its length."""
    total, samples = Decimal(0), []
    for place, (time, delta) in enumerate(sorted(changes)):
        total += delta
        samples.append(Sample(At(microseconds(time), 0, 0, place), total))
    opening, closing = microseconds(first), microseconds(last)
    inside = [sample for sample in samples if opening <= sample.at.time < closing]
    before = [sample for sample in samples if sample.at.time < opening]
    carried = max(before, key=lambda sample: sample.at, default=None)
    [integral] = integrate([(opening, closing)], [[run_of(inside)] if inside else []], carried)
    assert integral is not None
    return Decimal(integral) / (closing - opening)


def _duration(text: str) -> timedelta:
    days, hours, minutes, seconds = re.fullmatch(  # type: ignore[union-attr]
        r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", text
    ).groups("0")
    return timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=int(seconds))


def _listed(text: str) -> list[str]:
    """`<10 x4` is four values below ten."""
    several = re.fullmatch(r"<(\d+) x(\d+)", text)
    return [text] if several is None else [str(int(several[1]) - 1)] * int(several[2])
