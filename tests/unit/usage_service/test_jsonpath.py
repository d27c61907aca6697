"""Writing at a path, as reading finds it."""

from __future__ import annotations

import pytest

from usage_service.domain.errors import InvalidPath
from usage_service.domain.jsonpath import reader, with_value


@pytest.mark.parametrize(
    ("data", "path", "changed"),
    [
        ({}, "$.a", {"a": 7}),
        ({"a": "x", "b": 1}, "$.a", {"a": 7, "b": 1}),
        ({"b": 1}, "$.a.b['c d']", {"a": {"b": {"c d": 7}}, "b": 1}),
        ({"a": None}, "$.a.b", {"a": {"b": 7}}),
        ({"a": [1, {"b": 2}]}, "$.a[1].b", {"a": [1, {"b": 7}]}),
        ({"a": [1, 2]}, "$.a[-1]", {"a": [1, 7]}),
    ],
)
def test_what_is_written_at_a_path_is_read_there_and_nothing_else_changes(data, path, changed):
    before = repr(data)
    found = with_value(data, path, 7)
    assert found == changed
    assert reader(path)(found) == 7
    assert repr(data) == before


@pytest.mark.parametrize(
    ("data", "path"),
    [({"a": 1}, "$.a.b"), ({"a": []}, "$.a[0]"), ({"a": {}}, "$.a[0]"), ({"a": [1]}, "$.a.b"), ({}, "$.a[0]")],
)
def test_a_path_that_leads_elsewhere_is_refused(data, path):
    with pytest.raises(InvalidPath):
        with_value(data, path, 7)
