"""Which store a new tenant goes to: a pure decision from the stores as they are and what is asked for.

A store is eligible where nothing refuses it. Among the eligible ones the tier's preferred stores come first, in the
tier's order, then the one with the smallest part of its capacity in use. A store without a capacity counts as empty;
of equals, the one with fewer tenants is taken, then the first by name, so that the same question has one answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from tenantry import InvalidRequest, Isolation


class StoreState(StrEnum):
    """`draining` takes no new tenants and keeps those that it has until they are moved; `closed` has none."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Refusal(StrEnum):
    """Why a store cannot take a tenant."""

    NOT_OPEN = "not-open"
    OTHER_REGION = "other-region"
    REGION_NOT_ALLOWED = "region-not-allowed-by-tier"
    STORE_NOT_ALLOWED = "store-not-allowed-by-tier"
    ISOLATION_NOT_OFFERED = "isolation-not-offered"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Store:
    """What placement knows of a store; without a `capacity` it is never full."""

    name: str
    region: str
    isolations: frozenset[Isolation]
    capacity: int | None = None
    state: StoreState = StoreState.OPEN
    tenants: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What a tier says of where its tenants may be; an empty tuple allows every one."""

    regions: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    preferred: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a tenant needs. A tenant without a region may be in any that its tier allows."""

    isolation: Isolation
    region: str | None = None
    policy: Policy = Policy()


class NoStore(InvalidRequest):
    """No store may take the tenant. Nothing was written."""

    type = "no-store"
    title = "No store can take the tenant"

    def __init__(self, refusals: Mapping[str, Refusal]) -> None:
        reasons = [f"{store}: {refusal}" for store, refusal in sorted(refusals.items())]
        super().__init__(
            "; ".join(reasons) or "There are no stores",
            errors=[{"loc": ["stores", store], "msg": refusal.value} for store, refusal in sorted(refusals.items())],
        )
        self.refusals = dict(refusals)


def refusal_of(store: Store, wish: Wish) -> Refusal | None:
    """Why the store cannot take the tenant, or None. What no operator would change for a tenant is said first."""
    policy = wish.policy
    refused = {
        Refusal.OTHER_REGION: wish.region is not None and store.region != wish.region,
        Refusal.REGION_NOT_ALLOWED: bool(policy.regions) and store.region not in policy.regions,
        Refusal.STORE_NOT_ALLOWED: bool(policy.stores) and store.name not in policy.stores,
        Refusal.ISOLATION_NOT_OFFERED: wish.isolation not in store.isolations,
        Refusal.NOT_OPEN: store.state is not StoreState.OPEN,
        Refusal.FULL: store.capacity is not None and store.tenants >= store.capacity,
    }
    return next((refusal for refusal, holds in refused.items() if holds), None)


def choose_store(stores: Iterable[Store], wish: Wish) -> str:
    """The name of the store that the tenant goes to. Raises `NoStore`."""
    refusals: dict[str, Refusal] = {}
    eligible: list[Store] = []
    for store in stores:
        refusal = refusal_of(store, wish)
        if refusal is None:
            eligible.append(store)
        else:
            refusals[store.name] = refusal
    if not eligible:
        raise NoStore(refusals)
    return min(eligible, key=lambda store: (_rank(store, wish.policy), _load(store), store.tenants, store.name)).name


def choose_stores(stores: Iterable[Store], wishes: Sequence[Wish]) -> list[str | NoStore]:
    """A store, or why there is none, for each wish in its order; each counts the tenants that went before it."""
    by_name = {store.name: store for store in stores}
    chosen: list[str | NoStore] = []
    for wish in wishes:
        try:
            name = choose_store(by_name.values(), wish)
        except NoStore as error:
            chosen.append(error)
        else:
            by_name[name] = replace(by_name[name], tenants=by_name[name].tenants + 1)
            chosen.append(name)
    return chosen


def _rank(store: Store, policy: Policy) -> int:
    return policy.preferred.index(store.name) if store.name in policy.preferred else len(policy.preferred)


def _load(store: Store) -> Fraction:
    return Fraction(0) if not store.capacity else Fraction(store.tenants, store.capacity)
