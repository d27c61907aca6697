"""The plans that tenants are on, as the billing service publishes them on `billing.state.v1`."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from tenantry._clock import Clock
from tenantry._directory import TenantDirectory
from tenantry._tenant import Tenant
from tenantry.entitlements._terms import Terms, TermsOf, effective, readable_entitlements


class PlanHeld(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a plan, which never changes, from `starts_at` up to `ends_at`; None is without end."""

    plan: str
    plan_version: int
    entitlements: dict[str, Any] = msgspec.field(default_factory=dict)
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def holds_at(self, moment: datetime) -> bool:
        return (self.starts_at is None or self.starts_at <= moment) and (self.ends_at is None or moment < self.ends_at)


class BillingState(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record, key tenant. `subscriptions` are those that are not over, the newest last: it is the
    strongest. Without them the plan of the document itself holds.
    """

    tenant_id: str
    plan: str | None = None
    plan_version: int | None = None
    entitlements: dict[str, Any] = msgspec.field(default_factory=dict)
    subscriptions: tuple[PlanHeld, ...] | None = None
    version: int = 0

    @property
    def held(self) -> tuple[PlanHeld, ...]:
        if self.subscriptions is not None:
            return self.subscriptions
        if self.plan is None:
            return ()
        return (PlanHeld(plan=self.plan, plan_version=self.plan_version or 0, entitlements=self.entitlements),)


class PlanStore:
    """The plans of tenants. Not thread-safe: one event loop feeds and reads it."""

    def __init__(self) -> None:
        self._held: dict[UUID, tuple[tuple[PlanHeld, TermsOf], ...]] = {}
        self._versions: dict[UUID, int] = {}
        # A hundred thousand tenants are on a dozen versions of plans.
        self._terms: dict[tuple[str, int, bytes], TermsOf] = {}

    def apply(self, tenant_id: UUID, state: BillingState | None, version: int) -> bool:
        """Takes in what is published of a tenant, or its end, unless its version is known already."""
        if version <= self._versions.get(tenant_id, -1):
            return False
        self._versions[tenant_id] = version
        if state is None or not state.held:
            self._held.pop(tenant_id, None)
        else:
            self._held[tenant_id] = tuple((each, self._terms_of(each)) for each in state.held)
        return True

    def terms_at(self, tenant_id: UUID, moment: datetime) -> Iterator[TermsOf]:
        """What the tenant's plans say at an instant, the strongest last."""
        return (terms for plan, terms in self._held.get(tenant_id, ()) if plan.holds_at(moment))

    def _terms_of(self, held: PlanHeld) -> TermsOf:
        key = (held.plan, held.plan_version, msgspec.json.encode(held.entitlements, order="sorted"))
        if key not in self._terms:
            self._terms[key] = readable_entitlements(held.entitlements, of="plan")
        return self._terms[key]


class EntitledTenants:
    """What tenants have by their tier and their plans, worked out when it is asked for."""

    def __init__(self, directory: TenantDirectory, plans: PlanStore, clock: Clock) -> None:
        self._directory = directory
        self._plans = plans
        self._clock = clock
        self._tiers: dict[str, tuple[int, TermsOf]] = {}

    def terms(self, tenant: Tenant, feature: str) -> Terms | None:
        """None where neither says anything of the feature."""
        found = effective(
            feature, tier=self._tier(tenant.tier), plans=self._plans.terms_at(tenant.id, tenant.now(self._clock))
        )
        return None if found is None else found[1]

    def _tier(self, name: str) -> TermsOf:
        tier = self._directory.tier(name)
        if tier is None:
            return {}
        version, terms = self._tiers.get(name, (None, {}))
        if version != tier.version:
            terms = readable_entitlements(tier.entitlements, of="tier")
            self._tiers[name] = (tier.version, terms)
        return terms
