"""Use cases of support access. The caller opens the transaction and commits it.

A grant is a credential record without a secret: services know which ones live, and refuse the tokens of any other. It
has neither `platform` nor `tenant:admin`, so nothing that makes a credential can be done under it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.models import TenantRow
from tenant_service.publication import publish_credential, tell, withdraw_credential
from tenant_service.support.models import SupportGrantRow
from tenant_service.tenants.document import document
from tenantry import NotFound, Unauthenticated, uuid7
from tenantry.identity import Credential, Scope

READ_SCOPES = (Scope.TENANT_READ,)
WRITE_SCOPES = (Scope.TENANT_READ, Scope.TENANT_WRITE)


class SupportEnded(Unauthenticated):
    """Over, unknown or another operator's: the answer does not say which."""

    type = "support-access-ended"
    title = "There is no such support access now"


async def grant_access(
    session: AsyncSession,
    tenant: TenantRow,
    *,
    reason: str,
    lifetime: timedelta,
    write: bool,
    actor: Actor,
    now: datetime,
) -> SupportGrantRow:
    """Let the operator who acts into the tenant for a time."""
    row = SupportGrantRow(
        id=uuid7(),
        tenant_id=tenant.id,
        operator=actor.subject,
        reason=reason,
        scopes=sorted(WRITE_SCOPES if write else READ_SCOPES),
        version=1,
        created_at=now,
        expires_at=now + lifetime,
        ended_at=None,
        ended_by=None,
    )
    session.add(row)
    await session.flush()
    await publish_credential(session, _credential(row), row.version)
    story = {"grant_id": str(row.id), "scopes": row.scopes, "expires_at": row.expires_at.isoformat()}
    await tell(session, document(tenant, None), "support_access_started", story)
    detail = {"reason": reason, "scopes": row.scopes, "expires_at": row.expires_at.isoformat()}
    await _audit(session, row, "support_access.start", actor, now, detail)
    return row


async def list_grants(
    session: AsyncSession, tenant_id: UUID, *, before: UUID | None, limit: int
) -> Sequence[SupportGrantRow]:
    """At most `limit` grants of the tenant, the newest first."""
    statement = select(SupportGrantRow).where(SupportGrantRow.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(SupportGrantRow.id < before)
    return (await session.scalars(statement.order_by(SupportGrantRow.id.desc()).limit(limit))).all()


async def find_grant(session: AsyncSession, tenant_id: UUID, grant_id: UUID, *, lock: bool = False) -> SupportGrantRow:
    """A grant of this tenant. Raises `NotFound`."""
    statement = select(SupportGrantRow).where(SupportGrantRow.id == grant_id, SupportGrantRow.tenant_id == tenant_id)
    row = (await session.scalars(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise NotFound
    return row


async def live_grant(session: AsyncSession, grant_id: UUID, *, operator: str, now: datetime) -> SupportGrantRow:
    """The grant, where it lives and is this operator's own. Raises `SupportEnded`."""
    row = await session.get(SupportGrantRow, grant_id)
    if row is None or row.operator != operator or row.ended_at is not None or row.expires_at <= now:
        raise SupportEnded("The grant is over, unknown, or another operator's")
    return row


async def end_access(
    session: AsyncSession, tenant: TenantRow, grant_id: UUID, *, actor: Actor, now: datetime
) -> SupportGrantRow:
    """End a grant, and with it its tokens, in every service; may be repeated. Raises `NotFound`."""
    row = await find_grant(session, tenant.id, grant_id, lock=True)
    if row.ended_at is None and row.expires_at > now:
        await _end_early(session, tenant, row, actor=actor, now=now)
    return row


async def end_access_of(session: AsyncSession, tenant: TenantRow, *, actor: Actor, now: datetime) -> None:
    """End every grant of a tenant that has come to nothing, whose row the caller has locked."""
    living = select(SupportGrantRow).where(SupportGrantRow.tenant_id == tenant.id, SupportGrantRow.ended_at.is_(None))
    for row in (await session.scalars(living.order_by(SupportGrantRow.id).with_for_update())).all():
        await _end_early(session, tenant, row, actor=actor, now=now)


async def end_expired_grants(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Take at most `limit` expired grants off the topic and return how many; what another process holds is left."""
    expired = select(SupportGrantRow).where(SupportGrantRow.ended_at.is_(None), SupportGrantRow.expires_at <= now)
    rows = (await session.scalars(expired.limit(limit).with_for_update(skip_locked=True))).all()
    for row in rows:
        await _end(session, row, by=None, now=row.expires_at)
    return len(rows)


async def standing_credentials(session: AsyncSession, ids: Sequence[UUID] | None = None) -> Sequence[Credential]:
    """The grants that the topic should hold, all or those among `ids`: expired ones until they are taken off it."""
    statement = select(SupportGrantRow).where(SupportGrantRow.ended_at.is_(None))
    if ids is not None:
        statement = statement.where(SupportGrantRow.id.in_(ids))
    return [_credential(row) for row in await session.scalars(statement)]


async def live_credentials(
    session: AsyncSession, *, now: datetime, ids: Sequence[UUID] | None = None
) -> Sequence[Credential]:
    """The grants that live now: all of them, or those among `ids`."""
    statement = select(SupportGrantRow).where(SupportGrantRow.ended_at.is_(None), SupportGrantRow.expires_at > now)
    if ids is not None:
        statement = statement.where(SupportGrantRow.id.in_(ids))
    return [_credential(row) for row in await session.scalars(statement)]


async def _end_early(
    session: AsyncSession, tenant: TenantRow, row: SupportGrantRow, *, actor: Actor, now: datetime
) -> None:
    await _end(session, row, by=actor.impersonator or actor.subject, now=now)
    await tell(session, document(tenant, None), "support_access_ended", {"grant_id": str(row.id)})
    await _audit(session, row, "support_access.end", actor, now, {})


async def _end(session: AsyncSession, row: SupportGrantRow, *, by: str | None, now: datetime) -> None:
    row.ended_at, row.ended_by = now, by
    row.version += 1
    await session.flush()
    await withdraw_credential(session, row.id, row.tenant_id, row.version)


def _credential(row: SupportGrantRow) -> Credential:
    return Credential(
        id=str(row.id),
        kind="support",
        tenant_id=row.tenant_id,
        subject=f"support:{row.id}",
        scopes=frozenset(row.scopes),
        expires_at=row.expires_at,
    )


async def _audit(
    session: AsyncSession, row: SupportGrantRow, action: str, actor: Actor, now: datetime, detail: Mapping[str, object]
) -> None:
    await audit.record(session, actor, action, target=str(row.id), chain_id=row.tenant_id, now=now, detail=detail)
