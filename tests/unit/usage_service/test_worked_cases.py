"""No worked case of what this service does is left out."""

from __future__ import annotations

from worked_cases import REPOSITORY, areas_of, needs_cases

OURS = ("event_parse", "ingest_http", "query_validation", "meter_", "agg.", "grant_", "entitlement_")


@needs_cases
def test_every_area_is_read_by_some_test():
    adapters = "".join(file.read_text() for file in REPOSITORY.glob("tests/*/*/test_*_cases.py"))
    areas = {area for area in areas_of("openmeter", "lago") if area.startswith(OURS)}
    assert areas
    assert sorted(area for area in areas if f'"{area}"' not in adapters) == []
