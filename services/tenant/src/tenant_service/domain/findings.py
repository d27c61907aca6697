"""What differs between the registry and a service: desired state x observed state -> findings. Pure.

Nothing is judged by one look: `judge` compares a second report with the registry as it is now and with the versions
that it had at the first look, so that what is on its way is not taken for lost. A tenant with a run under way is not
judged at all, and a service whose directory is old says nothing about tenants.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from tenantry import TenantStatus
from tenantry.reconciling import Look, ObservedTenant, PlaceCondition, Report, UnexpectedPlace

GONE: Final = -1
"""The version, in a baseline, of a tenant that was purged by then."""

_STAYING: Final = frozenset({TenantStatus.ACTIVE, TenantStatus.SUSPENDED})
_SAME: Final = ("status", "read_only", "moving", "tier", "placement")


class FindingCode(StrEnum):
    """What is wrong."""

    TENANT_UNKNOWN = "tenant-unknown"
    TENANT_BEHIND = "tenant-behind"
    TENANT_AHEAD = "tenant-ahead"
    """The service knows a later version than the registry: the database was set back to an earlier time."""
    TENANT_DIFFERS = "tenant-differs"
    TENANT_LEFT_OVER = "tenant-left-over"
    """The service knows a tenant that is purged, or of which the registry knows nothing."""
    TIER_BEHIND = "tier-behind"
    PLACE_MISSING = "place-missing"
    PLACE_BEHIND = "place-behind"
    PLACE_ORPHANED = "place-orphaned"
    STORE_UNSERVED = "store-unserved"
    ROWS_LEFT = "rows-left"
    TABLE_UNCLASSIFIED = "table-unclassified"
    SERVICE_SILENT = "service-silent"
    SERVICE_LAGGING = "service-lagging"
    NOT_PROVISIONED = "not-provisioned"
    TOPIC_MISSING = "topic-missing"
    TOPIC_STALE = "topic-stale"
    TOPIC_LEFT_OVER = "topic-left-over"
    TOPIC_AHEAD = "topic-ahead"
    TOPICS_UNREAD = "topics-unread"
    RUN_STUCK = "run-stuck"
    STORE_COUNT = "store-count"


class Severity(StrEnum):
    """`critical`: a tenant cannot work, or data may be lost or kept against the law."""

    CRITICAL = "critical"
    WARNING = "warning"


class Repair(StrEnum):
    """What the reconciler does about it by itself; `none`: an operator has to look."""

    NONE = "none"
    REPUBLISH = "republish"
    PROVISION = "provision"
    RECOUNT = "recount"


_C, _W = Severity.CRITICAL, Severity.WARNING
RULES: Mapping[FindingCode, tuple[Severity, Repair]] = MappingProxyType(
    {
        FindingCode.TENANT_UNKNOWN: (_C, Repair.REPUBLISH),
        FindingCode.TENANT_BEHIND: (_W, Repair.REPUBLISH),
        FindingCode.TENANT_AHEAD: (_C, Repair.NONE),
        FindingCode.TENANT_DIFFERS: (_C, Repair.REPUBLISH),
        FindingCode.TENANT_LEFT_OVER: (_W, Repair.NONE),
        FindingCode.TIER_BEHIND: (_W, Repair.REPUBLISH),
        FindingCode.PLACE_MISSING: (_C, Repair.PROVISION),
        FindingCode.PLACE_BEHIND: (_W, Repair.PROVISION),
        # What may hold somebody's data is never deleted by a program that has found it.
        FindingCode.PLACE_ORPHANED: (_W, Repair.NONE),
        FindingCode.STORE_UNSERVED: (_C, Repair.NONE),
        FindingCode.ROWS_LEFT: (_C, Repair.NONE),
        FindingCode.TABLE_UNCLASSIFIED: (_C, Repair.NONE),
        FindingCode.SERVICE_SILENT: (_W, Repair.NONE),
        FindingCode.SERVICE_LAGGING: (_W, Repair.NONE),
        FindingCode.NOT_PROVISIONED: (_W, Repair.PROVISION),
        FindingCode.TOPIC_MISSING: (_C, Repair.REPUBLISH),
        FindingCode.TOPIC_STALE: (_C, Repair.REPUBLISH),
        FindingCode.TOPIC_LEFT_OVER: (_W, Repair.NONE),
        FindingCode.TOPIC_AHEAD: (_C, Repair.NONE),
        FindingCode.TOPICS_UNREAD: (_W, Repair.NONE),
        FindingCode.RUN_STUCK: (_W, Repair.NONE),
        FindingCode.STORE_COUNT: (_W, Repair.RECOUNT),
    }
)

OF_DIRECTORY: Final = frozenset(
    {
        FindingCode.TENANT_UNKNOWN,
        FindingCode.TENANT_BEHIND,
        FindingCode.TENANT_AHEAD,
        FindingCode.TENANT_DIFFERS,
        FindingCode.TENANT_LEFT_OVER,
        FindingCode.PLACE_MISSING,
        FindingCode.PLACE_BEHIND,
        FindingCode.STORE_UNSERVED,
    }
)
"""What can be said of a tenant only where the service's directory is up to date: it names the places too."""
OF_TENANTS: Final = OF_DIRECTORY | {FindingCode.PLACE_ORPHANED, FindingCode.ROWS_LEFT}
OF_PAGES: Final = OF_TENANTS | {
    FindingCode.TIER_BEHIND,
    FindingCode.TABLE_UNCLASSIFIED,
    FindingCode.SERVICE_SILENT,
    FindingCode.SERVICE_LAGGING,
}
"""What a report can show."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. Code, service and subject name it; `service` is empty for the registry's own affairs."""

    code: FindingCode
    service: str
    subject: str
    detail: str
    tenant_id: UUID | None = None

    @property
    def key(self) -> tuple[FindingCode, str, str]:
        return self.code, self.service, self.subject

    @property
    def severity(self) -> Severity:
        return RULES[self.code][0]

    @property
    def repair(self) -> Repair:
        return RULES[self.code][1]


@dataclass(frozen=True, slots=True)
class Desired:
    """A page of the registry. `in_transit` are the tenants with a run under way."""

    tenants: Mapping[UUID, ObservedTenant]
    gone: AbstractSet[UUID]
    tiers: Mapping[str, int]
    in_transit: AbstractSet[UUID] = frozenset()

    def baseline(self) -> dict[str, int]:
        """The versions of the page, for the judgement of a later report."""
        return {
            **{str(each.id): each.version for each in self.tenants.values()},
            **{str(each): GONE for each in self.gone},
            **{f"tier/{name}": version for name, version in self.tiers.items()},
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a report shows. Of the tenants of `unjudged`, and by the codes of `unjudged_codes`, it shows nothing."""

    findings: tuple[Finding, ...]
    look: Look
    service: str
    unjudged: AbstractSet[UUID] = frozenset()
    unjudged_codes: AbstractSet[FindingCode] = frozenset()
    tiers: AbstractSet[str] = field(default_factory=frozenset)

    def closes(self, key: tuple[FindingCode, str, str], tenant_id: UUID | None) -> bool:
        """Whether a finding that was open before is over."""
        code, service, subject = key
        if service != self.service or code not in OF_PAGES - self.unjudged_codes:
            return False
        if key in {finding.key for finding in self.findings}:
            return False
        if code in OF_TENANTS:
            return tenant_id is not None and self.look.covers(tenant_id) and tenant_id not in self.unjudged
        if code is FindingCode.TIER_BEHIND:
            return subject in self.tiers
        return code is not FindingCode.TABLE_UNCLASSIFIED or self.look.after is None


def may_be_provisioned(status: TenantStatus) -> bool:
    """Whether a tenant is made a place for if it has none: not on its way in or out."""
    return status in _STAYING


def agreement(look: Look, service: str, desired: Desired) -> Judgement:
    """What it shows that a page agrees."""
    return Judgement((), look, service, tiers=desired.tiers.keys())


def silence(look: Look, service: str, detail: str) -> Judgement:
    """What it shows that no answer came, or none that says anything."""
    finding = Finding(FindingCode.SERVICE_SILENT, service, service, detail)
    return Judgement((finding,), look, service, unjudged_codes=OF_PAGES)


def judge(
    look: Look, service: str, desired: Desired, report: Report, baseline: Mapping[str, int], *, longest_lag: float
) -> Judgement:
    """What a report shows, given the versions of the registry at the look before (`Desired.baseline`)."""
    lagging = report.follows and (report.lag_seconds is None or report.lag_seconds > longest_lag)
    findings: list[Finding] = []
    unjudged_codes: AbstractSet[FindingCode] = frozenset()
    if lagging:
        age = "an unknown time" if report.lag_seconds is None else f"{report.lag_seconds:.0f} s"
        findings.append(Finding(FindingCode.SERVICE_LAGGING, service, service, f"its directory is {age} old"))
        # Orphans too: the service takes a place for one by what its directory says.
        unjudged_codes = OF_DIRECTORY | {FindingCode.TIER_BEHIND, FindingCode.PLACE_ORPHANED}
    elif report.follows:
        findings += _judge_tenants(service, desired, report.tenants, baseline)
        findings += _judge_strangers(service, desired, report.tenants, baseline)
        findings += _judge_tiers(service, desired, report.tenants, baseline)
        findings += _judge_places(service, desired, report.places, baseline)
    findings += [
        Finding(
            FindingCode.ROWS_LEFT, service, f"{rows.tenant_id} {rows.table}", f"{rows.table} has rows", rows.tenant_id
        )
        for rows in report.rows
        if rows.tenant_id in desired.gone
    ]
    if look.after is None:
        findings += [Finding(FindingCode.TABLE_UNCLASSIFIED, service, fault, fault) for fault in report.faults]
    return Judgement(tuple(findings), look, service, desired.in_transit, unjudged_codes, tiers=frozenset(desired.tiers))


def _judge_tenants(
    service: str, desired: Desired, seen: Collection[ObservedTenant], baseline: Mapping[str, int]
) -> Iterator[Finding]:
    by_id = {each.id: each for each in seen}
    for wanted in desired.tenants.values():
        before = baseline.get(str(wanted.id))
        if wanted.id in desired.in_transit or before is None:
            continue
        found = _judge_tenant(wanted, by_id.get(wanted.id), before)
        if found is not None:
            code, detail = found
            yield Finding(code, service, str(wanted.id), detail, wanted.id)


def _judge_tenant(wanted: ObservedTenant, seen: ObservedTenant | None, before: int) -> tuple[FindingCode, str] | None:
    if seen is None:
        return FindingCode.TENANT_UNKNOWN, f"it does not know the tenant, which is {wanted.status}"
    if seen.version > wanted.version:
        return FindingCode.TENANT_AHEAD, f"it has version {seen.version}, the registry {wanted.version}"
    if seen.version < before:
        return FindingCode.TENANT_BEHIND, f"it has version {seen.version}, the registry {wanted.version}"
    if seen.version < wanted.version:
        return None  # changed since the last look: on its way
    if differing := [name for name in _SAME if getattr(seen, name) != getattr(wanted, name)]:
        return FindingCode.TENANT_DIFFERS, f"version {seen.version} has another {', '.join(differing)}"
    return _judge_place(seen)


def _judge_place(seen: ObservedTenant) -> tuple[FindingCode, str] | None:
    where = "nowhere" if seen.placement is None else f"{seen.placement.isolation} in {seen.placement.store}"
    match seen.place:
        case PlaceCondition.MISSING:
            return FindingCode.PLACE_MISSING, f"there is no place of the tenant ({where})"
        case PlaceCondition.BEHIND:
            return FindingCode.PLACE_BEHIND, f"the place is not at the head of the migrations ({where})"
        case PlaceCondition.UNSERVED:
            return FindingCode.STORE_UNSERVED, f"the service does not know the store ({where})"
    return None


def _judge_strangers(
    service: str, desired: Desired, seen: Iterable[ObservedTenant], baseline: Mapping[str, int]
) -> Iterator[Finding]:
    for each in seen:
        if each.id not in desired.tenants and _is_gone(each.id, desired, baseline):
            detail = f"it knows the tenant, as {each.status}, and the registry does not"
            yield Finding(FindingCode.TENANT_LEFT_OVER, service, str(each.id), detail, each.id)


def _judge_tiers(
    service: str, desired: Desired, seen: Iterable[ObservedTenant], baseline: Mapping[str, int]
) -> Iterator[Finding]:
    known = {each.tier: each.tier_version for each in seen if each.tier in desired.tiers}
    for name, version in sorted(known.items()):
        before = baseline.get(f"tier/{name}")
        if before is not None and (version is None or version < before):
            detail = f"it has version {version}, the registry {desired.tiers[name]}"
            yield Finding(FindingCode.TIER_BEHIND, service, name, detail)


def _judge_places(
    service: str, desired: Desired, places: Iterable[UnexpectedPlace], baseline: Mapping[str, int]
) -> Iterator[Finding]:
    for place in places:
        wanted = desired.tenants.get(place.tenant_id)
        if place.tenant_id in desired.in_transit:
            continue
        if wanted is None and not _is_gone(place.tenant_id, desired, baseline):
            continue
        if wanted is not None and _is_of(place, wanted):
            continue  # the service has yet to hear of the placement
        whose = "no tenant" if wanted is None else f"a tenant that is {wanted.status} and placed elsewhere"
        detail = f"{place.isolation} {place.name} in {place.store} belongs to {whose}"
        yield Finding(
            FindingCode.PLACE_ORPHANED,
            service,
            f"{place.isolation} {place.name} {place.store}",
            detail,
            place.tenant_id,
        )


def _is_gone(tenant_id: UUID, desired: Desired, baseline: Mapping[str, int]) -> bool:
    """Whether the registry has not known the tenant since the last look at least."""
    if tenant_id in desired.gone:
        return baseline.get(str(tenant_id)) == GONE
    return str(tenant_id) not in baseline


def _is_of(place: UnexpectedPlace, tenant: ObservedTenant) -> bool:
    placement = tenant.placement
    return placement is not None and (placement.isolation, placement.store) == (place.isolation, place.store)
