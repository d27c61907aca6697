"""The worked numbers of others for meters: equal to ours unless a rule says otherwise. Windows are asked for over HTTP,
in the tests of queries.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from worked_cases import cases, needs_cases, only

from usage_service.domain.errors import InvalidQuantity, InvalidWindow
from usage_service.domain.instants import microseconds
from usage_service.domain.meters import Aggregation, CompiledMeter, Meter, MeterDefinition, check_definition
from usage_service.domain.rollups import At, empty_state
from usage_service.domain.windows import check_range

START = datetime(2024, 1, 1, tzinfo=UTC)
Timed = tuple[datetime, dict[str, Any]]

pytestmark = needs_cases


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


@pytest.mark.parametrize("case", cases("openmeter", "meter_aggregation"))
def test_aggregations(case: dict[str, Any]) -> None:
    given, expect = case["given"], case["expect"]
    only(given, "events", "aggregation", "value_property", "range")
    only(expect, "value", "rows")
    events = [(START + timedelta(seconds=each["offset_s"]), each["data"]) for each in given["events"]]
    events = [(time, json.loads(json.dumps(data), parse_float=Decimal)) for time, data in events]
    match given["range"].split()[0]:
        case "after":
            events = []
        case "covers":
            pass
        case other:
            pytest.fail(f"nobody has said which range {other!r} is")
    found = figure(given["aggregation"], events, value=given.get("value_property", "$.value"))
    if "value" not in expect:
        # Rule 9: an empty range is a row that says null, where others leave the row out.
        assert (expect["rows"], found) == ([], None)
        return
    assert found is not None
    if given["aggregation"] == "UNIQUE_COUNT" and any(data["name"] is None for _, data in events):
        # Rule 5: what is null is no value, and is listed as invalid instead of being a value of its own.
        assert found == str(len({str(data["name"]) for _, data in events if data["name"] is not None}))
        assert int(expect["value"]) - int(found) in {0, 1}
    else:
        # Rule 8: exact decimals; theirs are binary floats, which ours round to.
        assert float(found) == float(expect["value"])


@pytest.mark.parametrize("case", cases("openmeter", "query_validation"))
def test_ranges_that_are_refused(case: dict[str, Any]) -> None:
    given = case["given"]
    only(given, "from", "to", "window")
    first, last = (datetime.fromisoformat(given[name]) for name in ("from", "to"))
    if first <= last:
        # Rule 9: a range may be empty, and may cut its windows.
        check_range(first, last)
        return
    with pytest.raises(InvalidWindow):
        check_range(first, last)


@pytest.mark.parametrize("case", cases("lago", "agg.weighted_sum", "agg.prorated_sum"))
def test_sums_of_changes(case: dict[str, Any]) -> None:
    pytest.skip(
        f"rule 8: time_weighted takes values and not their changes, and says value-hours and no mean ({case['name']})"
    )


@pytest.mark.parametrize("case", cases("lago", "agg.unique_count"))
def test_unique_values_of_a_range(case: dict[str, Any]) -> None:
    given = case["given"]
    if given.get("removed"):
        pytest.skip("rule 8: a unique count has no removals")
    only(given, "values", "persisted", "added", "removed", "recurring", "period_from", "period_to")
    # What their recurring metric persists are values from before the period: our range begins where they began.
    values = [*given.get("persisted", []), *given.get("added", given.get("values", []))]
    assert figure("UNIQUE_COUNT", [(START, {"value": value}) for value in values]) == case["expect"]["aggregation"]


@pytest.mark.parametrize("case", cases("lago", "agg.latest", "agg.max"))
def test_of_single_values(case: dict[str, Any]) -> None:
    only(case["given"], "values")
    only(case["expect"], "aggregation", "count")
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


def _listed(text: str) -> list[str]:
    """`<10 x4` is four values below ten."""
    several = re.fullmatch(r"<(\d+) x(\d+)", text)
    return [text] if several is None else [str(int(several[1]) - 1)] * int(several[2])
