"""Worked cases of OpenMeter: what a meter reads from an event."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from worked_cases import cases, needs_cases, only

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.meters import Aggregation, CompiledMeter, Meter, MeterDefinition
from usage_service.domain.rollups import At, empty_state

pytestmark = needs_cases


def meter_of(given: dict[str, Any]) -> CompiledMeter:
    only(given, "aggregation", "value_property", "group_by")
    definition = MeterDefinition(
        event_type="t",
        aggregation=Aggregation(given["aggregation"].lower()),
        value=given.get("value_property"),
        group_by=given.get("group_by", {}),
    )
    return CompiledMeter.of(Meter(id=uuid4(), slug="m", version=1, definition=definition, since=1))


def counted(meter: CompiledMeter, data: dict[str, Any]) -> str | None:
    """The figure of this event alone."""
    aggregation = meter.meter.definition.aggregation
    state = empty_state(aggregation)
    state.observe(meter, data, At(0, 0, 0, 0))
    return state.figure(aggregation)


@pytest.mark.parametrize("case", cases("openmeter", "event_parse"))
def test_what_a_meter_reads(case: dict[str, Any]) -> None:
    given, expected = case["given"], case["expect"]
    only(given, "meter", "data")
    only(expected, "value", "error", "group_by", "note")
    meter, data = meter_of(given["meter"]), given["data"] or {}
    if "error" in expected:
        with pytest.raises(InvalidQuantity):
            counted(meter, data)
    elif meter.meter.definition.aggregation is Aggregation.UNIQUE_COUNT:
        # They say which value it is; it is one value, and no other one.
        assert counted(meter, data) == "1"
        assert str(meter.read(data)) == expected["value"]
    else:
        assert counted(meter, data) == expected["value"]
    # The group is known whatever the value is, so an invalid event is listed with it.
    assert json.loads(meter.group(data).text) == expected.get("group_by", {})
