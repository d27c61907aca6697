"""Where messages and envelopes name their tenant."""

import pytest

from tenantry.testing import TenantFactory
from tenantry.testing._documents import (
    REMOVED,
    names_of,
    neutral,
    nobody_like,
    places_of,
    renamed,
    value_at,
    with_value,
)

MAKE = TenantFactory()
A = MAKE(slug="tenant-a", external_id="51")
B = MAKE(slug="tenant-b", external_id="52")
DOCUMENT = {"key": str(A.id), "value": {"org": 51, "list": ["x", str(A.id)], "count": 510}, "headers": {}}


def test_every_place_is_found_and_nothing_else():
    assert list(places_of(DOCUMENT, names_of(A))) == [("key",), ("value", "org"), ("value", "list", 1)]


@pytest.mark.parametrize("place", list(places_of(DOCUMENT, names_of(A))))
def test_one_place_is_changed_in_a_copy(place):
    changed = with_value(DOCUMENT, place, renamed(value_at(DOCUMENT, place), A, B))
    assert str(value_at(changed, place)) in names_of(B)
    assert type(value_at(changed, place)) is type(value_at(DOCUMENT, place))
    assert len(list(places_of(changed, names_of(A)))) == 2
    assert len(list(places_of(DOCUMENT, names_of(A)))) == 3
    assert len(list(places_of(with_value(DOCUMENT, place, REMOVED), names_of(A)))) == 2


def test_nobody_has_names_like_a_tenants():
    nobody = nobody_like(A)
    assert not set(names_of(nobody)) & {*names_of(A), *names_of(B)}
    assert len(names_of(nobody)) == len(names_of(A))


def test_effects_are_alike_but_for_the_tenant():
    assert neutral([str(A.id), "tenant-a", 3], A) == neutral([str(B.id), "tenant-b", 3], B)
    assert neutral([3], A) != neutral([4], B)
