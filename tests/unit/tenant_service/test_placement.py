"""Placement: the chosen store is always one that may take the tenant, and the same question has the same answer."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.placement import (
    NoStore,
    Policy,
    Refusal,
    Store,
    StoreState,
    Wish,
    choose_store,
    choose_stores,
    refusal_of,
)
from tenantry import Isolation

REGIONS = ["eu", "us", "ap"]
NAMES = ["a", "b", "c", "d", "e"]
ANY = frozenset(Isolation)

regions = st.sampled_from(REGIONS)
some_names = st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple)
stores = st.lists(
    st.builds(
        Store,
        name=st.sampled_from(NAMES),
        region=regions,
        isolations=st.frozensets(st.sampled_from(Isolation), min_size=1),
        capacity=st.none() | st.integers(0, 6),
        state=st.sampled_from(StoreState),
        tenants=st.integers(0, 6),
    ),
    unique_by=lambda store: store.name,
)
wishes = st.builds(
    Wish,
    isolation=st.sampled_from(Isolation),
    region=st.none() | regions,
    policy=st.builds(
        Policy,
        regions=st.lists(regions, unique=True, max_size=2).map(tuple),
        stores=some_names,
        preferred=some_names,
    ),
)


@given(stores, wishes)
def test_a_chosen_store_breaks_no_rule(available, wish):
    by_name = {store.name: store for store in available}
    (chosen,) = choose_stores(available, [wish])
    if isinstance(chosen, NoStore):
        assert chosen.refusals.keys() == by_name.keys()
        assert all(refusal_of(by_name[name], wish) is refusal for name, refusal in chosen.refusals.items())
        assert {fault["loc"][1] for fault in chosen.errors} == set(by_name)
        return
    store = by_name[chosen]
    assert wish.region in {None, store.region}
    assert not wish.policy.regions or store.region in wish.policy.regions
    assert not wish.policy.stores or store.name in wish.policy.stores
    assert wish.isolation in store.isolations
    assert store.state is StoreState.OPEN
    assert store.capacity is None or store.tenants < store.capacity


@given(stores, wishes, st.randoms())
def test_the_order_of_the_stores_does_not_matter(available, wish, random):
    shuffled = list(available)
    random.shuffle(shuffled)
    (one,), (other,) = choose_stores(available, [wish]), choose_stores(shuffled, [wish])
    assert str(one) == str(other)


@given(stores, st.lists(wishes, max_size=20))
def test_many_at_once_are_placed_as_one_after_the_other_and_fill_nothing_beyond_its_capacity(available, wanted):
    chosen = choose_stores(available, wanted)
    by_name = {store.name: store for store in available}
    added = Counter(name for name in chosen if isinstance(name, str))
    for name, count in added.items():
        capacity = by_name[name].capacity
        assert capacity is None or by_name[name].tenants + count <= capacity
    if wanted and isinstance(chosen[0], str):
        assert chosen[0] == choose_store(available, wanted[0])


@given(stores, wishes)
def test_no_eligible_store_of_the_same_rank_is_less_loaded(available, wish):
    eligible = [store for store in available if refusal_of(store, wish) is None]
    if not eligible:
        return
    chosen = next(store for store in eligible if store.name == choose_store(available, wish))
    load = chosen.tenants / chosen.capacity if chosen.capacity else 0.0
    preferred = wish.policy.preferred
    if chosen.name in preferred:
        before = preferred[: preferred.index(chosen.name)]
        assert not {store.name for store in eligible} & set(before)
    else:
        assert not {store.name for store in eligible} & set(preferred)
        assert all(load <= (other.tenants / other.capacity if other.capacity else 0.0) for other in eligible)


def test_the_reason_is_the_one_that_an_operator_can_act_upon():
    closed = Store("a", "us", ANY, capacity=0, state=StoreState.CLOSED)
    assert refusal_of(closed, Wish(Isolation.POOL, "eu")) is Refusal.OTHER_REGION
    assert refusal_of(closed, Wish(Isolation.POOL)) is Refusal.NOT_OPEN
    assert refusal_of(Store("a", "us", ANY, capacity=2, tenants=2), Wish(Isolation.POOL)) is Refusal.FULL


def test_equals_are_taken_by_name_and_filled_evenly():
    twins = [Store("b", "eu", ANY, capacity=4), Store("a", "eu", ANY, capacity=4)]
    wish = Wish(Isolation.POOL)
    assert choose_stores(twins, [wish] * 5) == ["a", "b", "a", "b", "a"]


def test_without_stores_there_is_no_place():
    with pytest.raises(NoStore, match="no stores"):
        choose_store([], Wish(Isolation.POOL))
