"""Names of values: whatever the text of a key, it names one value of one tenant."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.cache._keys import check_namespace, key_part, tenant_name, value_name

TENANTS = st.sampled_from([UUID(int=1), UUID(int=2)])
NAMESPACES = st.from_regex(r"[a-z][a-z0-9_.-]{0,10}", fullmatch=True)
EPOCHS = st.from_regex(r"[0-9a-f]{1,4}\.[0-9a-f]{1,4}\.[0-9v]{1,4}", fullmatch=True)
# Texts that try to look like parts of a name, beside any text at all.
HOSTILE = st.lists(st.sampled_from(["t:", "{", "}", ":", "#", "-", "epoch", "a", str(UUID(int=2)), "\0", "é"])).map(
    "".join
)
KEYS = st.text(st.characters(), max_size=300) | HOSTILE
PLACES = st.tuples(TENANTS, EPOCHS, NAMESPACES, KEYS)


@settings(deadline=None)
@given(PLACES, PLACES)
def test_different_places_have_different_names(one, other):
    assert (value_name(*one) == value_name(*other)) == (one == other)


@settings(deadline=None)
@given(PLACES)
def test_a_name_says_its_tenant_and_namespace_and_is_bounded(place):
    tenant, epoch, namespace, _ = place
    name = value_name(*place)
    assert name.startswith(f"t:{{{tenant}}}:{epoch}:{namespace}:")
    assert name.count(":") == 4
    assert name.isascii()
    assert len(name) <= 44 + len(epoch) + len(namespace) + 128


@settings(deadline=None)
@given(PLACES, st.lists(NAMESPACES, max_size=2))
def test_no_value_has_the_name_of_an_epoch_or_an_index(place, parts):
    assert value_name(*place) != tenant_name(place[0], *parts)


@settings(deadline=None)
@given(KEYS, KEYS)
def test_keys_that_are_hashed_never_meet_keys_that_are_not(one, other):
    assert (key_part(one) == key_part(other)) == (one == other)


@pytest.mark.parametrize("key", ["a b", "", "a" * 200])
def test_a_digest_is_never_the_key_of_somebody_who_knows_it(key):
    part = key_part(key)
    assert part not in {key_part(part), key_part(part.removeprefix("#"))}


@pytest.mark.parametrize("namespace", ["", "A", "a:b", "1a", "a b", "a" * 65, "a\n", "ä"])
def test_namespaces_are_plain(namespace):
    with pytest.raises(ValueError, match="is not a namespace"):
        check_namespace(namespace)
