"""New tenants, one or many at once. The caller opens the transaction and commits it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor, Deed
from tenant_service.clocks.repository import share_clock
from tenant_service.domain.placement import Wish, choose_store
from tenant_service.domain.quarantine import NameQuarantined
from tenant_service.domain.saga import RunKind
from tenant_service.domain.suspension import blocked_operations
from tenant_service.invitations.service import OwnerInvitation, invite_owner
from tenant_service.publication import Line, publish_tenants
from tenant_service.runs.repository import NewRun, run_values
from tenant_service.tenants import repository
from tenant_service.tenants.repository import ExternalIdTaken, Prospects, SlugTaken, TierOffer
from tenant_service.tiers.repository import UnknownTier
from tenantry import Isolation, NotFound, Tenant, TenantClock, TenantId, TenantryError, TenantStatus, uuid7


@dataclass(frozen=True, slots=True)
class NewTenant:
    """What is asked for."""

    slug: str
    name: str
    tier: str
    admin_email: str
    external_id: str | None = None
    region: str | None = None
    isolation: Isolation | None = None
    plan: str | None = None
    test_clock_id: UUID | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Newcomer:
    """A tenant that nothing forbids so far, its row, and the invitation of its owner."""

    tenant: Tenant
    row: Mapping[str, Any]
    invitation: OwnerInvitation | None


async def create_tenant(
    session: AsyncSession, wanted: NewTenant, *, actor: Actor, now: datetime, invite_for: timedelta | None = None
) -> Tenant:
    """Register the tenant as `create_tenants` does.

    Raises `UnknownTier`, `NotFound` (no such test clock), `NoStore`, `NameQuarantined`, `SlugTaken`, `ExternalIdTaken`.
    """
    (outcome,) = await create_tenants(session, [wanted], actor=actor, now=now, invite_for=invite_for)
    if isinstance(outcome, TenantryError):
        raise outcome
    return outcome


async def create_tenants(
    session: AsyncSession,
    wanted: Sequence[NewTenant],
    *,
    actor: Actor,
    now: datetime,
    invite_for: timedelta | None = None,
) -> list[Tenant | TenantryError]:
    """Register tenants and start their provisioning: four statements, however many they are, and one for each clock.

    Returns for each the tenant, which is `requested`, or why it cannot be; one that cannot stops no other. With
    `invite_for` their owners are invited for that long, by the company's mailer.
    """
    prospects = await repository.read_prospects(
        session, tiers={new.tier for new in wanted}, slugs=[new.slug for new in wanted], now=now
    )
    clocks = await _share_clocks(session, wanted)
    considered = [_consider(new, prospects, clocks, actor=actor, now=now, invite_for=invite_for) for new in wanted]
    newcomers = [each for each in considered if isinstance(each, _Newcomer)]
    added = await repository.add_tenants(session, [each.row for each in newcomers], now=now) if newcomers else set()
    await _tell_of(session, [each for each in newcomers if each.tenant.id in added], actor=actor, now=now)
    unlucky = [each.tenant.slug for each in newcomers if each.tenant.id not in added]
    taken = await repository.names_taken(session, unlucky) if unlucky else set()
    outcomes: list[Tenant | TenantryError] = []
    for each in considered:
        if isinstance(each, TenantryError) or each.tenant.id in added:
            outcomes.append(each if isinstance(each, TenantryError) else each.tenant)
        elif each.tenant.slug in taken:
            outcomes.append(SlugTaken(f"The slug {each.tenant.slug!r} is or was in use"))
        else:
            outcomes.append(ExternalIdTaken(f"The external id {each.tenant.external_id!r} is in use"))
    return outcomes


async def _share_clocks(session: AsyncSession, wanted: Sequence[NewTenant]) -> Mapping[UUID, TenantClock]:
    clocks = {}
    # Sorted, so that two lists lock them in one order.
    for clock_id in sorted({new.test_clock_id for new in wanted if new.test_clock_id is not None}):
        try:
            clocks[clock_id] = await share_clock(session, clock_id)
        except NotFound:
            continue
    return clocks


def _consider(
    new: NewTenant,
    prospects: Prospects,
    clocks: Mapping[UUID, TenantClock],
    *,
    actor: Actor,
    now: datetime,
    invite_for: timedelta | None,
) -> _Newcomer | TenantryError:
    tier = next((tier for tier in prospects.tiers if tier.name == new.tier), None)
    if tier is None:
        return UnknownTier(new.tier)
    if new.test_clock_id is not None and new.test_clock_id not in clocks:
        return NotFound()
    try:
        choose_store(prospects.stores, Wish(new.isolation or tier.isolation, new.region, tier.policy))
    except TenantryError as error:
        return error
    if new.slug in prospects.held_slugs:
        return NameQuarantined()
    return _newcomer(new, tier, clocks, actor=actor, now=now, invite_for=invite_for)


def _newcomer(
    new: NewTenant,
    tier: TierOffer,
    clocks: Mapping[UUID, TenantClock],
    *,
    actor: Actor,
    now: datetime,
    invite_for: timedelta | None,
) -> _Newcomer:
    tenant = Tenant(
        id=TenantId(uuid7()),
        external_id=new.external_id,
        slug=new.slug,
        name=new.name,
        status=TenantStatus.REQUESTED,
        blocked=blocked_operations(TenantStatus.REQUESTED, frozenset()),
        tier=new.tier,
        region=new.region,
        clock=None if new.test_clock_id is None else clocks[new.test_clock_id],
        version=1,
        created_at=now,
        metadata=dict(new.metadata or {}),
    )
    isolation = new.isolation or tier.isolation
    invitation = None
    if invite_for is not None:
        invitation = invite_owner(tenant, new.admin_email, lifetime=invite_for, actor=actor, now=now)
    row = {
        "id": tenant.id,
        "external_id": new.external_id,
        "slug": new.slug,
        "name": new.name,
        "tier": new.tier,
        "region": new.region,
        "isolation": isolation,
        "test_clock_id": new.test_clock_id,
        "admin_email": new.admin_email,
        "plan": new.plan,
        "metadata": tenant.metadata,
        "run": run_values(NewRun(RunKind.PROVISION, tenant.id, tenant.id, actor.subject)),
        "invitation": None if invitation is None else invitation.row,
    }
    return _Newcomer(tenant, row, invitation)


async def _tell_of(session: AsyncSession, newcomers: Sequence[_Newcomer], *, actor: Actor, now: datetime) -> None:
    lines: list[Line] = []
    deeds: list[Deed] = []
    for each in newcomers:
        tenant, row = each.tenant, each.row
        said = {"tier": tenant.tier, "plan": row["plan"], "isolation": row["isolation"]}
        lines.append((tenant, "created", said))
        deeds.append(Deed("tenant.create", str(tenant.id), tenant.id, {"slug": tenant.slug}))
        if each.invitation is not None:
            lines.append((tenant, "user_invited", each.invitation.story))
            deeds.append(each.invitation.deed)
    await publish_tenants(session, [each.tenant for each in newcomers], lines)
    await audit.begin_chains(session, actor, deeds, now=now)
