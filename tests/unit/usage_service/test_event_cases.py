"""Worked cases of OpenMeter: what a meter reads from an event."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from usage_service.domain.errors import InvalidQuantity
from usage_service.domain.meters import Aggregation, CompiledMeter, Meter, MeterDefinition
from usage_service.domain.quantities import number_text, quantity_of

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("TENANTRY_CASES", REPOSITORY.parent / "shared" / "cases"))
# These take any value that is not null, as a text; the others a number (rule 5).
OF_TEXTS = {Aggregation.UNIQUE_COUNT}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no shared cases in {FOLDER} (TENANTRY_CASES)")


def cases(*areas: str) -> list[Any]:
    file = FOLDER / "openmeter.json"
    found = json.loads(file.read_text()) if file.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in found if case["area"] in areas]


def meter_of(given: dict[str, Any]) -> CompiledMeter:
    definition = MeterDefinition(
        event_type="t",
        aggregation=Aggregation(given["aggregation"].lower()),
        value=given.get("value_property"),
        group_by=given.get("group_by", {}),
    )
    return CompiledMeter.of(Meter(id=uuid4(), slug="m", version=1, definition=definition, since=1))


def counted(meter: CompiledMeter, data: dict[str, Any]) -> str:
    aggregation = meter.meter.definition.aggregation
    if aggregation is Aggregation.COUNT:
        return "1"
    value = meter.read(data)
    if aggregation in OF_TEXTS and isinstance(value, str):
        return value
    return number_text(quantity_of(value))


@pytest.mark.parametrize("case", cases("event_parse"))
def test_what_a_meter_reads(case: dict[str, Any]) -> None:
    meter, data, expected = meter_of(case["given"]["meter"]), case["given"]["data"] or {}, case["expect"]
    if "error" in expected:
        with pytest.raises(InvalidQuantity):
            counted(meter, data)
    else:
        assert counted(meter, data) == expected["value"]
    # The group is known whatever the value is, so an invalid event is listed with it.
    assert json.loads(meter.group(data).text) == expected.get("group_by", {})
