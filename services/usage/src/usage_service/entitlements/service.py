"""Use cases of features, quotas, grants and the values that follow. The caller opens the transaction and commits it.

Whatever may change a balance also queues it, in the same transaction, for the keeper of balances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Conflict, InvalidRequest, NotFound, StaleVersion, uuid7
from usage_service.domain.entitlement_periods import Cycle, Interval
from usage_service.domain.entitlements import (
    MAX_GRANTS,
    FeatureKind,
    Limit,
    Quota,
    Value,
    check_aggregation,
    check_feature,
    check_quota,
    course_of,
    follow,
    period_at,
    value_of,
)
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import Grant, check_grant
from usage_service.entitlements.measuring import Asked, hour_down, hour_up, measure
from usage_service.entitlements.queue import queue_change
from usage_service.entitlements.repository import (
    Access,
    Feature,
    StoredQuota,
    add_feature,
    add_grant,
    delete_quota,
    find_accesses,
    find_feature,
    find_quotas,
    put_access,
    put_limit,
    put_quota,
    void_grant,
)
from usage_service.meters.repository import versions_of
from usage_service.meters.service import get_versions

# A Monday, the first of a month and of a year: periods counted from it are those of the calendar.
_CALENDAR: Final = datetime(2001, 1, 1)  # noqa: DTZ001 (local midnight, in whichever zone)


class FeatureFixed(Conflict):
    """What a feature is cannot change under its name: tenants hold entitlements of that kind."""

    type = "feature-fixed"
    title = "The kind and the meter of a feature are fixed"


class PeriodFixed(Conflict):
    """A grant that is still active was granted for the periods as they are."""

    type = "quota-period-fixed"
    title = "The period of a quota cannot change while grants are active"


class TooManyGrants(Conflict):
    type = "too-many-grants"
    title = "The quota has as many grants as it can have"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTerms:
    """What a caller puts. `time_zone` is where the periods of the calendar, or those from `anchor` on, are counted."""

    limit: Decimal | None
    period: Interval
    hard: bool
    alerts: tuple[Decimal, ...]
    time_zone: ZoneInfo
    anchor: datetime | None = None
    pays_overage: bool = True
    preserve_overage: bool = False

    @property
    def cycle(self) -> Cycle:
        anchor = self.anchor or _CALENDAR.replace(tzinfo=self.time_zone)
        return Cycle(self.period, anchor.astimezone(UTC), self.time_zone)


async def put_feature(session: AsyncSession, feature: Feature) -> Feature:
    """The feature, made where there is none of its name. May be repeated. Raises InvalidRequest, FeatureFixed."""
    try:
        check_feature(feature.slug, feature.kind, feature.meter)
    except InvalidGrant as error:
        raise _invalid(error) from error
    if feature.meter is not None:
        await _check_meter(session, feature.meter, loc="meter")
    await add_feature(session, feature)
    known = await find_feature(session, feature.slug)
    if known != feature:
        raise FeatureFixed("Make another feature, or put it as it is.")
    return feature


async def put_tenant_quota(
    session: AsyncSession, tenant_id: UUID, feature: str, terms: QuotaTerms, now: datetime, *, expected: int | None
) -> StoredQuota:
    """The quota of a tenant on a metered feature, or on a meter under its own name, as put.

    It holds for the whole of the period that runs, the usage in it included; the limits of periods that are over stay
    as they were. May be repeated. Raises NotFound, InvalidRequest, StaleVersion, PeriodFixed.
    """
    meter = await _meter_of(session, feature)
    cycle = terms.cycle
    try:
        check_quota(terms.limit, terms.alerts)
        _check_whole_hours(cycle, now)
    except InvalidGrant as error:
        raise _invalid(error) from error
    known = (await find_quotas(session, [(tenant_id, feature)], lock=True)).get((tenant_id, feature))
    if expected is not None and expected != (known.version if known else 0):
        raise StaleVersion(f"The quota is at version {known.version if known else 0}, not {expected}.")
    since = cycle.period_at(now).start
    limits = () if known is None else known.quota.limits
    if known is not None:
        if known.quota.cycle == cycle:
            since = known.quota.since
        elif any(grant.ends_at > now for grant in known.quota.grants):
            raise PeriodFixed("Void its grants first, or keep the period.")
    quota = Quota(
        cycle=cycle,
        since=since,
        hard=terms.hard,
        pays_overage=terms.pays_overage,
        preserve_overage=terms.preserve_overage,
        alerts=terms.alerts,
    )
    version = await put_quota(session, tenant_id, StoredQuota(feature, meter, quota, 0))
    limit = Limit(now if limits else since, terms.limit)
    if not limits or limits[-1].amount != terms.limit:
        await put_limit(session, tenant_id, feature, limit)
    await queue_change(session, tenant_id, feature)
    return StoredQuota(feature, meter, replace(quota, limits=(*limits, limit)), version)


async def get_quota(session: AsyncSession, tenant_id: UUID, feature: str, *, lock: bool = False) -> StoredQuota:
    """A quota with its limits and grants. Raises NotFound."""
    found = (await find_quotas(session, [(tenant_id, feature)], lock=lock)).get((tenant_id, feature))
    if found is None:
        raise NotFound("The tenant has no such quota.")
    return found


async def delete_tenant_quota(session: AsyncSession, tenant_id: UUID, feature: str) -> None:
    """Takes a quota away, with its grants. Raises NotFound."""
    await get_quota(session, tenant_id, feature, lock=True)
    await delete_quota(session, tenant_id, feature)
    await queue_change(session, tenant_id, feature)


async def create_grant(session: AsyncSession, tenant_id: UUID, feature: str, grant: Grant, now: datetime) -> Grant:
    """Adds a grant to a tenant's quota, on whole hours: from the start of its hour, to the end of that of its expiry.

    `grant.id` and `created_at` are given here. Raises NotFound, InvalidRequest, TooManyGrants.
    """
    held = await get_quota(session, tenant_id, feature, lock=True)
    if len(held.quota.grants) >= MAX_GRANTS:
        raise TooManyGrants(f"A quota has at most {MAX_GRANTS} grants, those that are over included.")
    expires_at = None if grant.expires_at is None else hour_up(grant.expires_at)
    added = replace(
        grant, id=str(uuid7()), created_at=now, effective_at=hour_down(grant.effective_at), expires_at=expires_at
    )
    try:
        check_grant(added)
        if added.recurrence is not None:
            _check_whole_hours(added.recurrence, now)
        if added.effective_at < period_at(held.quota, now).start:
            raise InvalidGrant("effective_at", "not before the period that runs: those before it are over")  # noqa: TRY301
    except InvalidGrant as error:
        raise _invalid(error) from error
    await add_grant(session, tenant_id, feature, added)
    await queue_change(session, tenant_id, feature)
    return added


async def void_tenant_grant(
    session: AsyncSession, tenant_id: UUID, feature: str, grant_id: UUID, now: datetime
) -> Grant:
    """Ends a grant at the start of the hour that runs; one that was voided stays as it is. Raises NotFound."""
    held = await get_quota(session, tenant_id, feature, lock=True)
    known = next((grant for grant in held.quota.grants if grant.id == str(grant_id)), None)
    if known is None:
        raise NotFound("There is no such grant.")
    at = hour_down(now)
    await void_grant(session, tenant_id, feature, grant_id, at)
    await queue_change(session, tenant_id, feature)
    return replace(known, voided_at=known.voided_at or at)


async def put_tenant_access(session: AsyncSession, tenant_id: UUID, slug: str, *, enabled: bool, config: Any) -> Access:
    """What a tenant has of a boolean or static feature. May be repeated. Raises NotFound, InvalidRequest."""
    feature = await find_feature(session, slug)
    if feature is None:
        raise NotFound("There is no such feature.")
    if feature.kind is FeatureKind.METERED:
        raise _invalid(InvalidGrant("feature", "a metered feature has a quota"))
    if (feature.kind is FeatureKind.STATIC and enabled) != (config is not None):
        raise _invalid(InvalidGrant("config", "a static feature that is enabled has one, no other has"))
    access = Access(slug, enabled, config, 0)
    version = await put_access(session, tenant_id, access)
    await queue_change(session, tenant_id, slug)
    return replace(access, version=version)


async def get_entitlements(
    session: AsyncSession, tenant_id: UUID, features: Sequence[str], now: datetime
) -> dict[str, tuple[Quota, Value] | Access]:
    """What a tenant has of these features at `now`, worked out from committed rollups; nothing of what it has not."""
    wanted = [(tenant_id, feature) for feature in features]
    quotas = await find_quotas(session, wanted)
    found: dict[str, tuple[Quota, Value] | Access] = {
        feature: access for (_, feature), access in (await find_accesses(session, wanted)).items()
    }
    asked = [
        Asked(tenant_id, await get_versions(session, stored.meter), stored.quota, course_of(stored.quota, now))
        for stored in quotas.values()
    ]
    for stored, each, usage in zip(quotas.values(), asked, await measure(session, asked), strict=True):
        burnt = follow(each.course, usage)
        found[stored.feature] = (stored.quota, value_of(stored.quota, burnt.carried, period_at(stored.quota, now)))
    return found


async def _meter_of(session: AsyncSession, slug: str) -> str:
    """The meter that a feature is metered by; a meter is a feature under its own name."""
    feature = await find_feature(session, slug)
    if feature is not None and feature.meter is None:
        raise _invalid(InvalidGrant("meter", "the feature is not metered"))
    meter = slug if feature is None or feature.meter is None else feature.meter
    await _check_meter(session, meter, loc=None)
    return meter


async def _check_meter(session: AsyncSession, slug: str, *, loc: str | None) -> None:
    versions = await versions_of(session, slug)
    if not versions:
        if loc is None:
            raise NotFound("There is no such meter.")
        raise _invalid(InvalidGrant(loc, "there is no such meter"))
    try:
        check_aggregation(versions[-1].definition.aggregation)
    except InvalidGrant as error:
        raise _invalid(error) from error


def _check_whole_hours(cycle: Cycle, now: datetime) -> None:
    """Raises InvalidGrant where a period begins within an hour, for which no rollup is kept."""
    year = timedelta(days=183)
    for moment in (cycle.anchor, cycle.period_at(now).start, cycle.period_at(now + year).start):
        if hour_down(moment) != moment:
            raise InvalidGrant("anchor", "a period begins on a whole hour in UTC, as usage is kept")


def _invalid(error: InvalidGrant) -> InvalidRequest:
    return InvalidRequest(f"{error.loc}: {error.reason}", errors=[{"loc": ["body", error.loc], "msg": error.reason}])
