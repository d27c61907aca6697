"""What tenants have by their tier and plans, and which of that, or of what was put for them by hand, is in force.

What was put for a tenant overrides its plans, a newer plan an older one, and a plan the tier; what the tier forbids
stays forbidden. A quota that a tier or a plan gives is stored from its first use on, under its source, so that a period
that is over keeps its limit; until then it is worked out as if it had been put at the start of the period.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.entitlements import PlanHeld, Source, Terms, effective, readable_entitlements
from tenantry.entitlements import QuotaTerms as GivenQuota
from usage_service.domain.entitlement_periods import Interval
from usage_service.domain.entitlements import ADDITIVE, CUMULATIVE
from usage_service.domain.meters import Meter
from usage_service.domain.quotas import QuotaTerms, renew
from usage_service.domain.windows import hour_down, zone
from usage_service.entitlements.features import Access, find_accesses, find_features_named
from usage_service.entitlements.repository import Held, StoredQuota, find_quotas
from usage_service.meters.repository import versions_of

_ENTITLED: Final = text(
    """
    SELECT entitled.tenant_id, CAST(entitled.plans AS text) AS plans, CAST(tier.entitlements AS text) AS tier
      FROM entitled_tenant AS entitled LEFT JOIN system.entitlement_tier AS tier ON tier.name = entitled.tier
     WHERE entitled.tenant_id = ANY(CAST(:tenants AS uuid[]))
    """
)

_decode_plans: Final = msgspec.json.Decoder(list[PlanHeld]).decode


@dataclass(frozen=True, slots=True)
class Given:
    """What the tier, or a plan, says of a feature."""

    source: Source
    terms: Terms
    starts_at: datetime | None = None
    """When the subscription to the plan began."""

    def quota_terms(self, given: GivenQuota) -> QuotaTerms:
        anchor = given.anchor
        if given.anniversary and self.starts_at is not None:
            anchor = hour_down(self.starts_at)
        return QuotaTerms(
            limit=given.limit,
            period=Interval(given.period),
            hard=given.hard,
            alerts=given.alerts,
            time_zone=zone(given.time_zone),
            anchor=anchor,
            pays_overage=given.pays_overage,
            preserve_overage=given.preserve_overage,
            rollover_max=given.rollover_max,
            refill=None if given.refill is None else Interval(given.refill),
        )


@dataclass(frozen=True, slots=True)
class Entitled:
    """A tenant's tier and plans, the strongest plan last."""

    tier: Mapping[str, Terms]
    plans: Sequence[tuple[PlanHeld, Mapping[str, Terms]]] = ()

    def given(self, feature: str, now: datetime) -> Given | None:
        held = [(plan, terms) for plan, terms in self.plans if plan.holds_at(now)]
        found = effective(feature, tier=self.tier, plans=[terms for _, terms in held])
        if found is None:
            return None
        source, terms = found
        if source is not Source.PLAN:
            return Given(source, terms)
        return Given(source, terms, next(plan.starts_at for plan, said in reversed(held) if feature in said))

    def features(self, now: datetime) -> set[str]:
        return set(self.tier).union(*(terms for plan, terms in self.plans if plan.holds_at(now)))

    def next_turn(self, now: datetime) -> datetime | None:
        """When a plan begins or ends next."""
        turns = (moment for plan, _ in self.plans for moment in (plan.starts_at, plan.ends_at) if moment is not None)
        return min((moment for moment in turns if moment > now), default=None)


@dataclass(frozen=True, slots=True)
class InForce:
    """What a tenant has of a feature: a quota, or access to what is not metered."""

    source: Source
    quota: StoredQuota | None = None
    access: Access | None = None
    forbidden: bool = False
    config: Any = None
    """That of a quota whose terms are a bare number."""
    changed: bool = False
    """Whether the quota is stored otherwise, or not at all."""


@dataclass(frozen=True, slots=True)
class Entitlements:
    """What was found of some tenants and features."""

    in_force: Mapping[Held, InForce]
    entitled: Mapping[UUID, Entitled]
    meters: Mapping[str, Sequence[Meter]]
    """The versions of every meter that a quota in force has."""


NOTHING: Final = Entitled({})


async def find_entitled_tenants(session: AsyncSession, tenants: Collection[UUID]) -> dict[UUID, Entitled]:
    """The tiers and plans of those tenants that are known."""
    found = {}
    for row in await session.execute(_ENTITLED, {"tenants": list(tenants)}):
        plans = [(plan, _terms(msgspec.json.encode(plan.entitlements), "plan")) for plan in _decode_plans(row.plans)]
        found[row.tenant_id] = Entitled(_terms((row.tier or "{}").encode(), "tier"), plans)
    return found


# Thousands of tenants are on the same tier and the same few plans.
@lru_cache(maxsize=1024)
def _terms(document: bytes, of: Literal["tier", "plan"]) -> Mapping[str, Terms]:
    return readable_entitlements(msgspec.json.decode(document), of=of)


async def find_in_force(session: AsyncSession, wanted: Mapping[Held, datetime], *, lock: bool = False) -> Entitlements:
    """What is in force of each tenant and feature at an instant; nothing of what a tenant has not.

    `lock` keeps stored quotas as they are until the end of the transaction. Takes as many statements for many as for
    one, and one for each meter.
    """
    entitled = await find_entitled_tenants(session, {tenant_id for tenant_id, _ in wanted})
    given = {held: entitled.get(held[0], NOTHING).given(held[1], now) for held, now in wanted.items()}
    quotas = await find_quotas(session, list(wanted), lock=lock)
    accesses = await find_accesses(session, list(wanted))
    named = {feature for (_, feature), each in given.items() if each is not None and each.terms.quota is not None}
    features = await find_features_named(session, named)
    meter_of = {name: features[name].meter if name in features else name for name in named}
    slugs = {stored.meter for stored in quotas.values()} | {meter for meter in meter_of.values() if meter is not None}
    meters = {slug: await versions_of(session, slug) for slug in sorted(slugs)}
    usable = {slug for slug, versions in meters.items() if versions and _can_be_used_up(versions)}
    found = {}
    for held, now in wanted.items():
        meter = meter_of.get(held[1])
        choice = _choose(
            held[1], given[held], quotas.get(held), accesses.get(held), meter if meter in usable else None, now
        )
        if choice is not None:
            found[held] = choice
    return Entitlements(found, entitled, meters)


def _choose(
    feature: str,
    given: Given | None,
    stored: StoredQuota | None,
    access: Access | None,
    meter: str | None,
    now: datetime,
) -> InForce | None:
    if given is not None and given.terms.forbidden:
        denied = Access(feature, enabled=False, config=None, version=0)
        return InForce(given.source, access=denied, forbidden=True)
    if stored is not None and stored.source is Source.OVERRIDE:
        return InForce(Source.OVERRIDE, quota=stored)
    if access is not None:
        return InForce(Source.OVERRIDE, access=access)
    if given is None:
        return None
    terms = given.terms
    # What nothing meters cannot be used up: a number is then a config, and a quota stays whole.
    if terms.quota is None or (meter is None and terms.config is not None):
        return InForce(given.source, access=Access(feature, terms.has_access, terms.config, version=0))
    # What was not used since the subscription began rolls over, although nothing was stored then.
    first = now if stored is not None or not terms.quota.rollover_max else min(now, given.starts_at or now)
    quota = renew(None if stored is None else stored.quota, given.quota_terms(terms.quota), first)
    renewed = StoredQuota(feature, meter or "", quota, 0 if stored is None else stored.version, given.source)
    changed = meter is not None and renewed != stored
    return InForce(given.source, quota=renewed, config=terms.config, changed=changed)


def _can_be_used_up(versions: Sequence[Meter]) -> bool:
    return versions[-1].definition.aggregation in ADDITIVE | CUMULATIVE
