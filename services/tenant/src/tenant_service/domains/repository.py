"""SQL of claims on domains."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.domain_claims import DomainState
from tenant_service.domains.models import DomainClaimRow
from tenantry import Conflict, NotFound


class DomainTaken(Conflict):
    """Somebody else has proven that the domain is theirs."""

    type = "domain-taken"
    title = "The domain belongs to another tenant"


class DomainClaimed(Conflict):
    """A tenant claims a domain once."""

    type = "domain-claimed"
    title = "The tenant claims this domain already"


async def add_claim(session: AsyncSession, row: DomainClaimRow) -> None:
    """Insert a claim. Raises `DomainClaimed` (the transaction is then lost)."""
    session.add(row)
    await flush_claims(session)


async def flush_claims(session: AsyncSession) -> None:
    """Write what has changed. Raises `DomainClaimed` or `DomainTaken` (the transaction is then lost)."""
    try:
        await session.flush()
    except IntegrityError as error:
        message = str(error.orig)
        if "uq_domain_claim_open" in message:
            raise DomainClaimed("Verify the claim that is there, or release it") from None
        if "uq_domain_claim_verified" in message:
            raise DomainTaken("Another tenant has proven that this domain is its own") from None
        raise


async def find_claim(session: AsyncSession, tenant_id: UUID, domain: str, *, lock: bool = False) -> DomainClaimRow:
    """The tenant's claim on the domain, unless it was released. Raises `NotFound`."""
    statement = select(DomainClaimRow).where(
        DomainClaimRow.tenant_id == tenant_id,
        DomainClaimRow.domain == domain,
        DomainClaimRow.state != DomainState.RELEASED,
    )
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    row = (await session.scalars(statement)).one_or_none()
    if row is None:
        raise NotFound
    return row


async def is_taken(session: AsyncSession, domain: str, *, by_other_than: UUID) -> bool:
    """Whether another tenant has proven the domain."""
    statement = select(DomainClaimRow.id).where(
        DomainClaimRow.domain == domain,
        DomainClaimRow.state == DomainState.VERIFIED,
        DomainClaimRow.tenant_id != by_other_than,
    )
    return (await session.execute(statement)).first() is not None


async def list_claims(
    session: AsyncSession, tenant_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[DomainClaimRow]:
    """At most `limit` claims of the tenant in the order in which they were made, without released ones."""
    statement = select(DomainClaimRow).where(
        DomainClaimRow.tenant_id == tenant_id, DomainClaimRow.state != DomainState.RELEASED
    )
    if after is not None:
        statement = statement.where(DomainClaimRow.id > after)
    return (await session.scalars(statement.order_by(DomainClaimRow.id).limit(limit))).all()


async def count_claims(session: AsyncSession, tenant_id: UUID) -> int:
    """How many claims the tenant has that were not released."""
    statement = select(func.count()).where(
        DomainClaimRow.tenant_id == tenant_id, DomainClaimRow.state != DomainState.RELEASED
    )
    return (await session.execute(statement)).scalar_one()


async def verified_domains(session: AsyncSession, tenant_id: UUID) -> list[str]:
    """The domains that the tenant has proven, by name."""
    statement = select(DomainClaimRow.domain).where(
        DomainClaimRow.tenant_id == tenant_id, DomainClaimRow.state == DomainState.VERIFIED
    )
    return sorted(await session.scalars(statement))


async def due_claims(session: AsyncSession, *, now: datetime, limit: int) -> Sequence[tuple[UUID, str]]:
    """At most `limit` verified domains, with their tenants, whose proof is to be looked for again."""
    statement = (
        select(DomainClaimRow.tenant_id, DomainClaimRow.domain)
        .where(DomainClaimRow.state == DomainState.VERIFIED, DomainClaimRow.next_check_at <= now)
        .order_by(DomainClaimRow.next_check_at)
        .limit(limit)
    )
    return [(tenant_id, domain) for tenant_id, domain in await session.execute(statement)]


async def postpone_check(session: AsyncSession, tenant_id: UUID, domain: str, *, until: datetime) -> None:
    """Look for the proof of a verified domain then and not before."""
    statement = update(DomainClaimRow).where(
        DomainClaimRow.tenant_id == tenant_id,
        DomainClaimRow.domain == domain,
        DomainClaimRow.state == DomainState.VERIFIED,
    )
    await session.execute(statement.values(next_check_at=until).execution_options(synchronize_session=False))
