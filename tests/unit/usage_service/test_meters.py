from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.corrections import CORRECTION
from usage_service.domain.errors import InvalidDefinition, InvalidPath, InvalidQuantity
from usage_service.domain.filters import predicate
from usage_service.domain.jsonpath import reader
from usage_service.domain.meters import (
    MAX_GROUP_VALUE,
    OVERFLOW,
    Aggregation,
    Catalogue,
    CompiledMeter,
    Meter,
    MeterDefinition,
    check_definition,
    eras,
)
from usage_service.domain.quantities import canonical_number, number_text, quantity_of
from usage_service.domain.rollups import At, RollupState, empty_state, observe


def compiled(**definition) -> CompiledMeter:
    values = {"event_type": "t", "aggregation": Aggregation.SUM, "value": "$.v"} | definition
    return CompiledMeter.of(Meter(id=uuid4(), slug="m", version=1, definition=MeterDefinition(**values), since=1))


def figure(values, aggregation) -> str | None:
    value = None if aggregation is Aggregation.COUNT else "$.v"
    meter, state = compiled(aggregation=aggregation, value=value), empty_state(aggregation)
    for place, each in enumerate(values):
        with suppress(InvalidQuantity):
            state.observe(meter, {"v": each}, At(0, 0, 0, place))
    return state.figure(aggregation)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.a", 1),
        ("$.b.c", 2),
        ("$['b']['c']", 2),
        ('$["b c"]', 3),
        ("$.list[0]", 4),
        ("$.list[-1].x", 5),
        ("$.none", None),
        ("$.a.b", None),
        ("$.list[9]", None),
        ("$.b[0]", None),
    ],
)
def test_paths_name_one_value(path, value):
    assert reader(path)({"a": 1, "b": {"c": 2}, "b c": 3, "list": [4, {"x": 5}]}) == value


@pytest.mark.parametrize(
    "path", ["a", "$", "$.", "$.*", "$..a", "$[?(@.a)]", "$[1:2]", "$[01]", "$.a b", "$['a'", "$[*]"]
)
def test_paths_of_more_than_names_and_indices_are_refused(path):
    with pytest.raises(InvalidPath):
        reader(path)


@pytest.mark.parametrize("text", ["9" * 38 + "e20", "-" + "1" * 38 + "E1", "9" * 38 + "e0", "1e20", "1.50", "0e20"])
def test_a_number_counts_as_its_text_does(text):
    assert quantity_of(canonical_number(text)) == quantity_of(text)
    assert figure([canonical_number(text)] * 2, Aggregation.SUM) == figure([text] * 2, Aggregation.SUM)


@pytest.mark.parametrize("number", [2**53 + 1, -(10**38) + 1, 0, 10, Decimal("1.50"), Decimal("1E+3")])
def test_a_figure_is_said_digit_for_digit(number):
    assert Decimal(number_text(number)) == number


@pytest.mark.parametrize(("value", "quantity"), [(1, 1), ("100", 100), ("-1.50", Decimal("-1.50")), ("1e2", 100)])
def test_numbers_and_numeric_texts_count(value, quantity):
    assert quantity_of(value) == quantity


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "",
        " 1",
        "1 ",
        "NaN",
        "Inf",
        "Infinity",
        "0x10",
        "1_000",
        "+1",
        "01",
        "\u0661",
        [],
        {},
        "1e99",
        10**38,
    ],
)
def test_everything_else_is_invalid(value):
    with pytest.raises(InvalidQuantity):
        quantity_of(value)


@pytest.mark.parametrize(
    ("aggregation", "values", "expected"),
    [
        (Aggregation.COUNT, [1, None, "x"], "3"),
        (Aggregation.COUNT, [], "0"),
        (Aggregation.SUM, [1, "2.5", Decimal("0.1"), None, "NaN"], "3.6"),
        (Aggregation.SUM, [], None),
        (Aggregation.SUM, [None], None),
        (Aggregation.MIN, [3, "-1.50", 2], "-1.5"),
        (Aggregation.MAX, [3, "-1.50", "3.0"], "3"),
        (Aggregation.AVG, [1, 2], "1.5"),
        (Aggregation.AVG, [1, 0, 0], "0.333333333333333333"),
        (Aggregation.AVG, [-2, 0, 0], "-0.666666666666666667"),
        (Aggregation.LATEST, [1, "2.50", None, "x"], "2.5"),
        (Aggregation.LATEST, [None], None),
        (Aggregation.UNIQUE_COUNT, [1, "1", "01", True, "true", None, [1], {}], "3"),
        (Aggregation.UNIQUE_COUNT, [], "0"),
    ],
)
def test_figures(aggregation, values, expected):
    assert figure(values, aggregation) == expected


QUANTITIES = st.integers(-(10**37), 10**37) | st.decimals(
    allow_nan=False, allow_infinity=False, places=18, min_value=-(10**15), max_value=10**15
)


@given(st.lists(QUANTITIES, max_size=30), st.integers(0, 30))
def test_states_merge_into_the_state_of_all(values, cut):
    for aggregation in (Aggregation.SUM, Aggregation.MIN, Aggregation.MAX, Aggregation.AVG):
        meter = compiled(aggregation=aggregation)
        whole, left, right = RollupState(), RollupState(), RollupState()
        for place, value in enumerate(values):
            observe(meter, {"v": value}, whole)
            observe(meter, {"v": value}, left if place < cut else right)
        right.merge(left)
        assert right.figure(aggregation) == whole.figure(aggregation)


def test_plain_digits():
    assert [number_text(Decimal(text)) for text in ("1E+3", "0.10", "-0", "0E-18")] == ["1000", "0.1", "0", "0"]


def test_groups_are_texts_and_bounded():
    meter = compiled(group_by={"a": "$.a", "b": "$.b.c"})
    texts = [meter.group(data).text for data in ({"a": 1}, {"a": True}, {"a": "1"}, {"a": [1]}, {"b": {"c": "x"}})]
    assert texts == [
        '{"a":"1","b":""}',
        '{"a":"true","b":""}',
        '{"a":"1","b":""}',
        '{"a":"[1]","b":""}',
        '{"a":"","b":"x"}',
    ]
    assert meter.group({"a": 1}) == meter.group({"a": "1"})
    assert meter.group({"a": True}) != meter.group({"a": 1})
    assert OVERFLOW in meter.group({"a": "x" * (MAX_GROUP_VALUE + 1)}).text
    # However large the values are, what is remembered of them is not.
    assert all(len(str(value)) <= MAX_GROUP_VALUE for values in meter._groups for value in values)


@pytest.mark.parametrize(
    ("condition", "value", "passes"),
    [
        (("eq", "a"), "a", True),
        (("eq", "1"), 1, True),
        (("eq", 1), True, False),
        (("ne", "a"), None, True),
        (("in", ["a", 2]), Decimal("2.0"), True),
        (("exists", True), None, False),
        (("exists", False), None, True),
        (("gt", "1.5"), 2, True),
        (("gte", 2), 2, True),
        (("lt", 2), "x", False),
        (("lte", 2), Decimal(2), True),
        (("eq", 0.1), Decimal("0.1"), True),
        (("ne", 0.1), Decimal("0.1"), False),
        (("in", [0.1, 0.2]), Decimal("0.20"), True),
        (("eq", [0.1]), [Decimal("0.1")], True),
        (("gt", 1.5), Decimal("1.50"), False),
        (("gte", 1.5), Decimal("1.50"), True),
        (("gt", 1e-7), Decimal("1e-7"), False),
        (("like", "/a%"), "/a/b", True),
        (("like", "/_"), "/ab", False),
        (("like", "a.c"), "abc", False),
    ],
)
def test_filters(condition, value, passes):
    assert predicate(*condition, loc="filter")(value) is passes


@pytest.mark.parametrize(
    ("changes", "loc"),
    [
        ({"aggregation": Aggregation.COUNT}, "value"),
        ({"value": None}, "value"),
        ({"value": "bytes"}, "value"),
        ({"aggregation": Aggregation.UNIQUE_COUNT, "value": None}, "value"),
        ({"aggregation": Aggregation.TIME_WEIGHTED, "unit": "byte-months"}, "unit"),
        ({"event_type": CORRECTION}, "event_type"),
        ({"group_by": {"a b": "$.a"}}, "group_by"),
        ({"group_by": {f"d{n}": "$.a" for n in range(11)}}, "group_by"),
        ({"filter": {"$.a": {"between": 1}}}, "filter"),
        ({"filter": {"a": {"eq": 1}}}, "filter"),
        ({"filter": {"$.a": 1}}, "filter"),
        ({"filter": {"$.a": {"eq": "a\0"}}}, "filter"),
        ({"filter": {"$.a": {"in": [["\ud800"]]}}}, "filter"),
        ({"filter": {"$.a": {"eq": float("nan")}}}, "filter"),
        ({"filter": {"$.a": {"lt": float("inf")}}}, "filter"),
        ({"filter": {"$.a": {"eq": 0.1234567890123456}}}, "filter"),
        ({"unit": "a\0"}, "unit"),
        ({"event_type": "a\0"}, "event_type"),
    ],
)
def test_definitions_that_cannot_count(changes, loc):
    values = {"event_type": "t", "aggregation": Aggregation.SUM, "value": "$.v"} | changes
    with pytest.raises(InvalidDefinition) as refused:
        check_definition("m", MeterDefinition(**values))
    assert refused.value.loc == loc


def test_a_catalogue_holds_one_version_of_a_meter():
    definition = MeterDefinition(event_type="t", aggregation=Aggregation.COUNT)
    old = Meter(id=uuid4(), slug="m", version=1, definition=definition, since=1, until=5)
    new = Meter(id=uuid4(), slug="m", version=2, definition=definition, since=5)
    for version, expected in ((0, []), (1, [1]), (4, [1]), (5, [2]), (9, [2])):
        found = Catalogue.of(version, [old, new]).by_type.get("t", ())
        assert [each.meter.version for each in found] == expected


def test_every_event_is_counted_by_one_version_of_a_meter_or_by_none():
    definition = MeterDefinition(event_type="t", aggregation=Aggregation.COUNT)
    first = Meter(id=uuid4(), slug="m", version=1, definition=definition, since=3, until=5, backfill_from=100)
    second = Meter(id=uuid4(), slug="m", version=2, definition=definition, since=5)
    for catalogue_version, time, expected in (
        (0, 99, []),
        (0, 100, [1]),
        (2, 10_000, [1]),
        (3, 99, [1]),
        (4, 0, [1]),
        (5, 10_000, [2]),
        (9, 0, [2]),
    ):
        counting = [each.version for each in (first, second) if each.counts(catalogue_version, time)]
        assert counting == expected, (catalogue_version, time)


def test_what_a_meter_counts_retroactively_is_not_counted_by_a_worker_that_is_behind():
    definition = MeterDefinition(event_type="t", aggregation=Aggregation.COUNT)
    meter = Meter(id=uuid4(), slug="m", version=1, definition=definition, since=3, backfill_from=0)
    assert Catalogue.of(2, [meter]).by_type == {}


def test_an_era_has_the_versions_with_the_same_dimensions_and_ends_where_others_begin():
    def version(number: int, dimensions: dict[str, str], unit: str = "") -> Meter:
        definition = MeterDefinition(
            event_type="t", aggregation=Aggregation.TIME_WEIGHTED, value="$.v", group_by=dimensions, unit=unit
        )
        return Meter(id=uuid4(), slug="m", version=number, definition=definition, since=number, created_at=100 * number)

    a, b = {"disk": "$.disk"}, {"disk": "$.volume"}
    versions = [version(1, a), version(2, a, unit="byte"), version(3, b), version(4, a)]
    found = [([each.version for each in era.versions], era.end) for era in eras(versions)]
    assert found == [([1, 2], 300), ([3], 400), ([4], None)]
