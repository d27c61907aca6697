"""What a tier may say of limits."""

import pytest

from tenantry import Operation
from tenantry.limits import InvalidLimits, Rate, TenantLimits, parse_limits


def test_nothing_said_is_no_limit():
    assert parse_limits({}) == TenantLimits(requests={}, concurrency=None, connections=None, weight=1.0)


def test_a_whole_document():
    limits = parse_limits(
        {
            "requests": {"default": {"rate": 100, "burst": 200}, "write": {"rate": 0.5}},
            "concurrency": 50,
            "connections": 4,
            "weight": 2,
        }
    )
    assert limits.requests == {"default": Rate(100, 200), "write": Rate(0.5)}
    assert (limits.concurrency, limits.connections, limits.weight) == (50, 4, 2)


@pytest.mark.parametrize("name", [Operation.READ, Operation.WRITE, Operation.INGEST, Operation.PORTAL])
def test_classes_are_operations(name):
    assert parse_limits({"requests": {name: {"rate": 1}}}).requests == {name.value: Rate(1)}


@pytest.mark.parametrize(
    ("document", "loc"),
    [
        ({"seats": 3}, ["seats"]),
        ({"requests": {"raed": {"rate": 1}}}, ["requests", "raed"]),
        ({"requests": {"read": {"rate": 1, "bust": 2}}}, ["requests", "read", "bust"]),
        ({"requests": {"read": {"rate": 0}}}, ["requests", "*", "rate"]),
        ({"requests": {"read": {"rate": -1}}}, ["requests", "*", "rate"]),
        ({"requests": {"read": {"rate": float("nan")}}}, ["requests", "*", "rate"]),
        ({"requests": {"read": {"rate": float("inf")}}}, ["requests", "*", "rate"]),
        ({"requests": {"read": {"rate": "10"}}}, ["requests", "*", "rate"]),
        ({"requests": {"read": {"rate": True}}}, ["requests", "*", "rate"]),
        ({"requests": {"read": {"burst": 10}}}, ["requests", "*"]),
        ({"requests": {"read": {"rate": 1, "burst": 0}}}, ["requests", "*", "burst"]),
        ({"requests": {"read": {"rate": 1, "burst": 1.5}}}, ["requests", "*", "burst"]),
        ({"requests": {"read": 10}}, ["requests", "*"]),
        ({"requests": [1]}, ["requests"]),
        ({"concurrency": 0}, ["concurrency"]),
        ({"connections": -1}, ["connections"]),
        ({"weight": 0}, ["weight"]),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_place(document, loc):
    with pytest.raises(InvalidLimits) as refused:
        parse_limits(document)
    assert refused.value.status == 422
    assert [error["loc"] for error in refused.value.errors] == [loc]


def test_all_unknown_names_are_told_at_once():
    with pytest.raises(InvalidLimits) as refused:
        parse_limits({"a": 1, "requests": {"b": {"rate": 1, "c": 2}}})
    assert [error["loc"] for error in refused.value.errors] == [["a"], ["requests", "b"], ["requests", "b", "c"]]
