"""Use cases of domains. The caller opens the transaction and commits it; look-ups in DNS happen between transactions.

What a tenant has proven stands in its document, by which every service tells a tenant from a host name. Whoever changes
that holds the tenant's row.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.domain_claims import CHALLENGE_PREFIX, DomainPolicy, DomainState, is_proof, recheck
from tenant_service.domain.lifecycle import check_not_gone
from tenant_service.domain.quarantine import NameKind
from tenant_service.domains import repository
from tenant_service.domains.models import DomainClaimRow
from tenant_service.domains.quarantine import check_name, hold_back
from tenant_service.domains.repository import DomainTaken
from tenant_service.identity.secrets import new_secret
from tenant_service.models import TenantRow
from tenant_service.publication import publish_tenants, tell
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import lock_tenant
from tenantry import Conflict, NotFound, TenantClock, uuid7

MAX_CLAIMS = 100


class TooManyDomains(Conflict):
    """Each claim is a name that we look up."""

    type = "too-many-domains"
    title = "The tenant claims as many domains as it may"


class DomainUnproven(Conflict):
    """The record is not there, or says something else."""

    type = "domain-unproven"
    title = "The proof was not found"


async def claim_domain(
    session: AsyncSession, tenant: TenantRow, domain: str, *, actor: Actor, now: datetime
) -> DomainClaimRow:
    """Claim a normalised domain. Others may claim it as well: the first proof decides.

    Raises `DomainTaken`, `DomainClaimed`, `NameQuarantined`, `TooManyDomains`.
    """
    if await repository.is_taken(session, domain, by_other_than=tenant.id):
        raise DomainTaken("Another tenant has proven that this domain is its own")
    await check_name(session, NameKind.DOMAIN, domain, by=tenant.id, now=now)
    if await repository.count_claims(session, tenant.id) >= MAX_CLAIMS:
        raise TooManyDomains(f"A tenant claims at most {MAX_CLAIMS} domains")
    row = DomainClaimRow(
        id=uuid7(),
        tenant_id=tenant.id,
        domain=domain,
        challenge=new_secret(CHALLENGE_PREFIX),
        state=DomainState.PENDING,
        created_at=now,
        verified_at=None,
        checked_at=None,
        next_check_at=None,
        failing_since=None,
        ended_at=None,
    )
    await repository.add_claim(session, row)
    await _audit(session, row, "domain.claim", actor, now)
    return row


async def settle_verification(
    session: AsyncSession,
    tenant_id: UUID,
    domain: str,
    *,
    records: list[str],
    policy: DomainPolicy,
    actor: Actor,
    now: datetime,
) -> tuple[DomainClaimRow, bool]:
    """Take in what was just found in DNS, and say whether the claim is proven by it; may be repeated.

    A claim that is verified already stays so here: its proof is looked for again at its own times.
    Raises `NotFound`, `TenantGone`, `DomainTaken`, `NameQuarantined`.
    """
    tenant, clock = await lock_tenant(session, tenant_id)
    check_not_gone(tenant.status)
    row = await repository.find_claim(session, tenant_id, domain, lock=True)
    row.checked_at = now
    proven = is_proof(records, row.challenge)
    if not proven or row.state == DomainState.VERIFIED:
        return row, proven or row.state == DomainState.VERIFIED
    # It may have been given up by another tenant since it was claimed.
    await check_name(session, NameKind.DOMAIN, domain, by=tenant_id, now=now)
    row.state, row.verified_at = DomainState.VERIFIED, now
    row.failing_since, row.next_check_at = None, now + policy.check_every
    await repository.flush_claims(session)
    await _publish(session, tenant, clock, "domain_verified", row)
    await _audit(session, row, "domain.verify", actor, now)
    return row, True


async def settle_recheck(
    session: AsyncSession,
    tenant_id: UUID,
    domain: str,
    *,
    records: list[str],
    policy: DomainPolicy,
    actor: Actor,
    now: datetime,
) -> None:
    """Take in what a look at a verified domain has found; nothing where it has been released meanwhile."""
    tenant, clock = await lock_tenant(session, tenant_id)
    try:
        row = await repository.find_claim(session, tenant_id, domain, lock=True)
    except NotFound:
        return
    if row.state != DomainState.VERIFIED or row.next_check_at is None or row.next_check_at > now:
        return
    proven = is_proof(records, row.challenge)
    after = recheck(proven=proven, failing_since=row.failing_since, now=now, policy=policy)
    row.checked_at, row.next_check_at, row.failing_since = now, after.next_check_at, after.failing_since
    row.state = after.state
    await session.flush()
    if after.state is DomainState.FAILED:
        await hold_back(session, NameKind.DOMAIN, domain, tenant_id=tenant_id, until=now + policy.quarantine)
        await _publish(session, tenant, clock, "domain_failed", row)
        await _audit(session, row, "domain.fail", actor, now)


async def release_domain(
    session: AsyncSession, tenant_id: UUID, domain: str, *, policy: DomainPolicy, actor: Actor, now: datetime
) -> None:
    """Give a domain or a claim up. What was proven is for nobody else while the quarantine lasts. Raises `NotFound`."""
    tenant, clock = await lock_tenant(session, tenant_id)
    row = await repository.find_claim(session, tenant_id, domain, lock=True)
    await _release(session, tenant, clock, row, policy=policy, actor=actor, now=now)


async def release_names(
    session: AsyncSession,
    tenant: TenantRow,
    clock: TenantClock | None,
    *,
    quarantine: timedelta,
    actor: Actor,
    now: datetime,
) -> None:
    """For the end of a tenant, whose row the caller holds: give up every domain, and hold them and the slug back.

    May be repeated.
    """
    policy = DomainPolicy(check_every=timedelta(), grace=timedelta(), quarantine=quarantine)
    while claims := await repository.list_claims(session, tenant.id, after=None, limit=MAX_CLAIMS):
        for row in claims:
            await _release(session, tenant, clock, row, policy=policy, actor=actor, now=now)
    await hold_back(session, NameKind.SLUG, tenant.slug, tenant_id=tenant.id, until=now + quarantine)


async def _release(
    session: AsyncSession,
    tenant: TenantRow,
    clock: TenantClock | None,
    row: DomainClaimRow,
    *,
    policy: DomainPolicy,
    actor: Actor,
    now: datetime,
) -> None:
    was_proven = row.state == DomainState.VERIFIED
    row.state, row.ended_at, row.next_check_at = DomainState.RELEASED, now, None
    await session.flush()
    if was_proven:
        await hold_back(session, NameKind.DOMAIN, row.domain, tenant_id=tenant.id, until=now + policy.quarantine)
        await _publish(session, tenant, clock, "domain_released", row)
    await _audit(session, row, "domain.release", actor, now)


async def _publish(
    session: AsyncSession, tenant: TenantRow, clock: TenantClock | None, event: str, row: DomainClaimRow
) -> None:
    tenant.domains = await repository.verified_domains(session, tenant.id)
    tenant.version += 1
    await session.flush()
    published = document(tenant, clock)
    await publish_tenants(session, [published])
    await tell(session, published, event, {"domain": row.domain})


async def _audit(session: AsyncSession, row: DomainClaimRow, action: str, actor: Actor, now: datetime) -> None:
    await audit.record(
        session, actor, action, target=row.domain, chain_id=row.tenant_id, now=now, detail={"state": row.state}
    )
