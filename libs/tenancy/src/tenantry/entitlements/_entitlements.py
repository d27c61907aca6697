"""Whether the current tenant may use something, as a service asks for it."""

import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Final, Literal

import msgspec
from prometheus_client import Counter

from tenantry._context import current_tenant
from tenantry._errors import QuotaExceeded, Unavailable
from tenantry._tenant import Tenant
from tenantry.entitlements._balance import Balance
from tenantry.entitlements._store import BalanceStore, Key
from tenantry.entitlements._taken import EXACT, Taken
from tenantry.entitlements._terms import Terms
from tenantry.features import FeatureOff

REFUSED = Counter("tenantry_quota_refused_total", "Uses that a hard quota did not allow", ["feature"])

WhenUnsure = Literal["refuse", "allow"]

_SWEEP: Final = 10_000  # takers, at least, after which those that hold nothing are forgotten


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """That a use is allowed, and what is left after it as far as this process knows; None where nothing limits it."""

    feature: str
    limit: Decimal | None = None
    balance: Decimal | None = None
    resets_at: datetime | None = None


class Entitlements:
    """Answers from local memory; nothing here waits for another service.

    A process knows what all of them had used when the balance was published, and what it has itself let pass until the
    watermark is `hold_seconds` behind it: while nothing is counted, nothing that was taken is forgotten. What it cannot
    know is what the others let pass meanwhile: a hard limit is overshot by at most (processes - 1) x delay x rate of a
    process, where the delay is that from a use to its balance, and a use is received within the hold.
    """

    def __init__(
        self,
        store: BalanceStore,
        *,
        lag_seconds: Callable[[], float],
        max_staleness_seconds: float = 60.0,
        hold_seconds: float = 10.0,
        unknown: WhenUnsure = "refuse",
        stale: WhenUnsure = "refuse",
        monotonic: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
        given: Callable[[Tenant, str], Terms | None] = lambda _tenant, _feature: None,
    ) -> None:
        """`given` is what a tenant's tier and plan say, as of `EntitledTenants`: it holds while there is no balance.

        `unknown` is what happens without either, `stale` what happens when all are older than they may be: nothing is
        read, or, for what is used up, nothing is counted. `monotonic` and `epoch` tell the time in seconds.
        """
        self.store = store
        self._given = given
        self._lag_seconds = lag_seconds
        self._max_staleness = max_staleness_seconds
        self._hold = hold_seconds
        self._unknown = unknown
        self._stale = stale
        self._monotonic = monotonic
        self._epoch = epoch
        self._taken: dict[Key, Taken] = {}
        self._sweep_at = _SWEEP

    @property
    def ready(self) -> bool:
        """Whether all that was published has been read once; never becomes false again."""
        return isfinite(self._lag_seconds())

    def check(self, feature: str, amount: Decimal | int = 1, *, tenant: Tenant | None = None) -> Allowance:
        """Takes an amount of the current tenant's (or `tenant`'s) quota, here, until its usage is counted.

        Raises `QuotaExceeded` (402 `quota-exceeded`, with `limit`, `balance` and `resets_at`) where a hard quota has
        less left, `Unavailable` where the balances are too old to tell, `NoTenant` without a tenant, and ValueError
        for an amount that is not more than zero.
        """
        wanted = Decimal(amount)
        if not wanted.is_finite() or wanted <= 0:
            raise ValueError(f"{amount} of {feature}: an amount is more than zero")
        tenant = tenant or current_tenant()
        known = self._known(tenant, feature)
        if known is None:
            if self._unknown == "refuse":
                raise self._refusal(feature, f"The tenant has no {feature}.")
            return Allowance(feature=feature)
        if known.balance is None or not known.hard:
            if not known.has_access:
                raise self._refusal(feature, f"The tenant has no {feature}.", known)
            return Allowance(feature=feature, limit=known.limit, balance=known.balance, resets_at=known.resets_at)
        age = self.store.age_seconds(self._epoch())
        self._check_age(age)
        key, now = (tenant.id, feature), self._monotonic()
        taken = self._taken.get(key)
        left = known.balance if taken is None else EXACT.subtract(known.balance, taken.total(now - age))
        if wanted > left:
            raise self._refusal(feature, f"The quota of {feature} is used up.", known, max(left, Decimal(0)))
        if taken is None:
            taken = self._taker(key, now - age)
        taken.add(wanted, now)
        return Allowance(
            feature=feature, limit=known.limit, balance=EXACT.subtract(left, wanted), resets_at=known.resets_at
        )

    def require(self, feature: str, *, tenant: Tenant | None = None) -> Any:
        """The `config` of a feature that the tenant has. Raises `FeatureOff` (403 `entitlement-missing`)."""
        known = self._known(tenant or current_tenant(), feature)
        if known is None:
            if self._unknown == "refuse":
                raise FeatureOff(f"The tenant does not have {feature}.")
            return None
        if not known.has_access:
            raise FeatureOff(f"The tenant does not have {feature}.")
        return known.config

    def _known(self, tenant: Tenant, feature: str) -> Balance | None:
        self._check_age(self._lag_seconds())
        known = self.store.get(tenant.id, feature)
        terms = self._given(tenant, feature)
        # What a tier forbids ends at once, for tenants with a balance too.
        if terms is not None and (known is None or terms.forbidden):
            return _unused(tenant, feature, terms)
        return known

    def _check_age(self, seconds: float) -> None:
        if self._stale == "refuse" and seconds > self._max_staleness:
            raise Unavailable("What the tenant may use is not known at the moment; try again.", retry_after=5)

    def _taker(self, key: Key, reached: float) -> Taken:
        if len(self._taken) >= self._sweep_at:
            self._taken = {each: taken for each, taken in self._taken.items() if taken.total(reached)}
            self._sweep_at = max(_SWEEP, 2 * len(self._taken))
        taken = self._taken[key] = Taken(self._hold)
        return taken

    def _refusal(
        self, feature: str, detail: str, known: Balance | None = None, left: Decimal | None = None
    ) -> QuotaExceeded:
        REFUSED.labels(feature).inc()
        members: dict[str, Any] = {"feature": feature, "limit": None, "balance": None, "resets_at": None}
        if known is not None:
            members |= {"limit": known.limit, "balance": left, "resets_at": known.resets_at}
        return QuotaExceeded(detail, members=members)


def _unused(tenant: Tenant, feature: str, terms: Terms) -> Balance:
    """The balance of a feature that was never used: nothing is published of it."""
    if terms.quota is None:
        return Balance(tenant_id=str(tenant.id), feature=feature, has_access=terms.has_access, config=terms.config)
    limit = terms.quota.limit or Decimal(0)
    return Balance(
        tenant_id=str(tenant.id),
        feature=feature,
        has_access=not terms.quota.hard or limit > 0,
        hard=terms.quota.hard,
        balance=limit,
        usage=Decimal(0),
        overage=Decimal(0),
        limit=limit,
        config=terms.config,
    )
