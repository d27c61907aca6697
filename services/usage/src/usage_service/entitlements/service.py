"""Use cases of features, quotas, grants and the values that follow. The caller opens the transaction and commits it.

Whatever may change a balance also queues it, in the same transaction, for the keeper of balances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Conflict, InvalidRequest, NotFound, StaleVersion, uuid7
from tenantry.entitlements import Source
from usage_service.archive.reading import ArchiveReader
from usage_service.domain.entitlement_periods import Cycle
from usage_service.domain.entitlements import (
    MAX_GRANTS,
    FeatureKind,
    Value,
    check_aggregation,
    check_feature,
    course_of,
    follow,
    values_of,
)
from usage_service.domain.errors import InvalidGrant
from usage_service.domain.grants import Grant, check_grant
from usage_service.domain.quotas import QuotaTerms, check_quota, period_at, renew, restart
from usage_service.domain.windows import hour_down
from usage_service.entitlements.features import Access, Feature, add_feature, delete_access, find_feature, put_access
from usage_service.entitlements.following import queue_feature
from usage_service.entitlements.given import InForce, find_entitled_tenants, find_in_force
from usage_service.entitlements.measuring import Asked, UsageUnknown, hour_after, hour_up, measure
from usage_service.entitlements.queue import queue_change
from usage_service.entitlements.repository import (
    StoredQuota,
    add_grant,
    delete_quota,
    find_entitled,
    find_grants,
    find_quotas,
    put_quotas,
    void_grant,
)
from usage_service.meters.repository import versions_of


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


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a tenant has of a feature: `value` is that of a quota, `access` of what is not metered."""

    feature: str
    in_force: InForce
    value: Value | None = None


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
    if feature.meter is not None:
        await queue_feature(session, feature.slug)
    return feature


async def put_tenant_quota(
    session: AsyncSession, tenant_id: UUID, feature: str, terms: QuotaTerms, now: datetime, *, expected: int | None
) -> StoredQuota:
    """The quota of a tenant on a metered feature, or on a meter under its own name, as put.

    It holds for the whole of the period that runs, the usage in it included; periods that are over stay as they were.
    May be repeated. Raises NotFound, InvalidRequest, StaleVersion, PeriodFixed.
    """
    meter = await _meter_of(session, feature)
    cycle = terms.cycle
    try:
        check_quota(terms)
        _check_whole_hours(cycle, now)
    except InvalidGrant as error:
        raise _invalid(error) from error
    known = (await find_quotas(session, [(tenant_id, feature)], lock=True)).get((tenant_id, feature))
    version = known.version if known is not None and known.source is Source.OVERRIDE else 0
    if expected is not None and expected != version:
        raise StaleVersion(f"The quota is at version {version}, not {expected}.")
    if known is not None and known.quota.cycle != cycle and any(grant.ends_at > now for grant in known.quota.grants):
        raise PeriodFixed("Void its grants first, or keep the period.")
    stored = StoredQuota(feature, meter, renew(None if known is None else known.quota, terms, now), 0)
    versions = await put_quotas(session, {(tenant_id, feature): stored})
    await queue_change(session, tenant_id, feature)
    return replace(stored, version=versions[tenant_id, feature])


async def get_quota(session: AsyncSession, tenant_id: UUID, feature: str, *, lock: bool = False) -> StoredQuota:
    """The quota that was put for a tenant, with its limits and grants. Raises NotFound."""
    found = (await find_quotas(session, [(tenant_id, feature)], lock=lock)).get((tenant_id, feature))
    if found is None or found.source is not Source.OVERRIDE:
        raise NotFound("The tenant has no such quota of its own.")
    return found


async def get_granted(
    session: AsyncSession, tenant_id: UUID, feature: str, now: datetime, *, lock: bool = False
) -> StoredQuota:
    """The quota in force, whoever gives it. With `lock` it is stored, and stays as it is. Raises NotFound."""
    held = (tenant_id, feature)
    found = (await find_in_force(session, {held: now}, lock=lock)).in_force.get(held)
    if found is None or found.quota is None or not found.quota.meter:
        raise NotFound("The tenant has no such quota.")
    if lock and found.changed:
        await put_quotas(session, {held: found.quota})
    return found.quota


async def delete_tenant_quota(session: AsyncSession, tenant_id: UUID, feature: str) -> None:
    """Takes a quota away, with its grants; what the tier or the plan gives holds again. Raises NotFound."""
    await get_quota(session, tenant_id, feature, lock=True)
    await delete_quota(session, tenant_id, feature)
    await queue_change(session, tenant_id, feature)


async def reset_usage(
    session: AsyncSession, tenant_id: UUID, feature: str, at: datetime | None, now: datetime, *, retain_anchor: bool
) -> None:
    """Ends the usage period that runs and begins the next one, on a whole hour: the one that runs by default.

    Grants roll over and overage is dropped or preserved as at any end of a period. May be repeated. Raises NotFound,
    InvalidRequest.
    """
    held = await get_granted(session, tenant_id, feature, now, lock=True)
    try:
        at = hour_down(now) if at is None else at
        if at != hour_down(at):
            raise InvalidGrant("at", "a period begins on a whole hour in UTC, as usage is kept")  # noqa: TRY301
        quota = restart(held.quota, at, now, retain_anchor=retain_anchor)
        _check_whole_hours(quota.limit.cycle, now)
    except InvalidGrant as error:
        raise _invalid(error) from error
    if quota != held.quota:
        await put_quotas(session, {(tenant_id, feature): replace(held, quota=quota)})
        await queue_change(session, tenant_id, feature)


async def grants_of(
    session: AsyncSession, tenant_id: UUID, feature: str, now: datetime, *, after: UUID, limit: int
) -> list[Grant]:
    """A page of the grants of a quota that is in force or has ended, the oldest first. Raises NotFound."""
    found = await find_grants(session, tenant_id, feature, after=after, limit=limit)
    if not found:
        await get_granted(session, tenant_id, feature, now)
    return found


async def create_grant(session: AsyncSession, tenant_id: UUID, feature: str, grant: Grant, now: datetime) -> Grant:
    """Adds a grant to a tenant's quota, on whole hours: from the start of its hour, to the end of that of its expiry.

    `grant.id` and `created_at` are given here. Raises NotFound, InvalidRequest, TooManyGrants.
    """
    held = await get_granted(session, tenant_id, feature, now, lock=True)
    if sum(each.ends_at > now for each in held.quota.grants) >= MAX_GRANTS:
        raise TooManyGrants(f"A quota has at most {MAX_GRANTS} grants that are not over.")
    expires_at = None if grant.expires_at is None else hour_up(grant.expires_at)
    added = replace(
        grant, id=str(uuid7()), created_at=now, effective_at=hour_down(grant.effective_at), expires_at=expires_at
    )
    try:
        # As it was said: one that ends as it begins would have the whole of its hour.
        check_grant(grant)
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
    """Ends a grant at the start of the hour that runs; one that was voided stays as it is. Raises NotFound.

    Nobody needs to give the quota any more: what was bought under a plan that has ended can be voided, too.
    """
    stored = (await find_quotas(session, [(tenant_id, feature)], lock=True)).get((tenant_id, feature))
    grants = () if stored is None else stored.quota.grants
    known = next((grant for grant in grants if grant.id == str(grant_id)), None)
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


async def delete_tenant_access(session: AsyncSession, tenant_id: UUID, feature: str) -> None:
    """Takes back what was put for a tenant; what the tier or the plan says holds again. Raises NotFound."""
    if not await delete_access(session, tenant_id, feature):
        raise NotFound("Nothing was put for the tenant.")
    await queue_change(session, tenant_id, feature)


async def entitled_features(
    session: AsyncSession, tenant_id: UUID, now: datetime, *, after: str, limit: int
) -> Sequence[str]:
    """A page of the features that something is said of for a tenant, by name."""
    put = await find_entitled(session, tenant_id, after=after, limit=limit)
    entitled = await find_entitled_tenants(session, [tenant_id])
    given = entitled[tenant_id].features(now) if tenant_id in entitled else set()
    return sorted({*put, *(name for name in given if name > after)})[:limit]


async def get_entitlements(
    session: AsyncSession, tenant_id: UUID, features: Sequence[str], now: datetime, archive: ArchiveReader
) -> dict[str, Entitlement]:
    """What a tenant has of these features at `now`, worked out from committed rollups; nothing of what it has not.

    Raises UsageUnknown.
    """
    found = await find_in_force(session, {(tenant_id, feature): now for feature in features})
    quotas = {held[1]: each.quota for held, each in found.in_force.items() if each.quota is not None}
    asked = [
        Asked(
            tenant_id,
            found.meters.get(stored.meter, ()),
            stored.quota,
            course_of(stored.quota, hour_after(now)),
            now,
        )
        for stored in quotas.values()
    ]
    values = {}
    for stored, each, usage in zip(quotas.values(), asked, await measure(session, asked, archive), strict=True):
        if isinstance(usage, UsageUnknown):
            raise usage
        values[stored.feature] = values_of(stored.quota, each.course, follow(each.course, usage))[-1]
    return {held[1]: Entitlement(held[1], each, values.get(held[1])) for held, each in found.in_force.items()}


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
