"""Use cases of revocations. The caller opens the transaction and commits it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.publication import publish_revocation, withdraw_revocation
from tenant_service.revocations.models import TokenRevocationRow
from tenantry import InvalidRequest, NotFound, uuid7
from tenantry.identity import LONGEST_ISSUED_LIFETIME, TokenRevocation, holder_of

# For issuers whose clocks are ahead of ours.
MOST_AHEAD = timedelta(minutes=5)


class TooFarAhead(InvalidRequest):
    """A person who may not sign in any more is barred at the identity provider; this ends what they have already."""


async def revoke_tokens(
    session: AsyncSession,
    tenant_id: UUID | None,
    *,
    issuer: str,
    subject: str,
    not_before: datetime | None,
    reason: str,
    actor: Actor,
    now: datetime,
) -> TokenRevocationRow:
    """Refuse what the issuer gave the subject before `not_before`: in the tenant, or in every one where it is None.

    An earlier one about the same tokens is moved on, and never back. May be repeated. Raises `TooFarAhead`.
    """
    since = now if not_before is None else not_before
    if since > now + MOST_AHEAD:
        fault = f"not_before lies more than {MOST_AHEAD.seconds // 60} minutes ahead"
        raise TooFarAhead(fault, errors=[{"loc": ["body", "not_before"], "msg": fault}])
    # Insert first: whoever comes second waits for the first one's commit and then finds a row to lock.
    values = {
        "id": uuid7(), "tenant_id": tenant_id, "issuer": issuer, "subject": subject, "not_before": since,
        "reason": reason, "version": 0, "created_at": now, "created_by": actor.subject,
        "expires_at": since + LONGEST_ISSUED_LIFETIME,
    }  # fmt: skip
    await session.execute(upsert(TokenRevocationRow).values(values).on_conflict_do_nothing())
    same = (
        TokenRevocationRow.tenant_id.is_not_distinct_from(tenant_id),
        TokenRevocationRow.issuer == issuer,
        TokenRevocationRow.subject == subject,
    )
    found = select(TokenRevocationRow).where(*same).with_for_update().execution_options(populate_existing=True)
    row = (await session.scalars(found)).one()
    if row.version > 0 and row.not_before >= since:
        return row
    row.not_before, row.expires_at = since, since + LONGEST_ISSUED_LIFETIME
    row.reason, row.created_at, row.created_by = reason, now, actor.subject
    row.version += 1
    await session.flush()
    await publish_revocation(session, revocation_document(row), row.version)
    detail = {"issuer": issuer, "subject": subject, "not_before": since.isoformat(), "reason": reason}
    await audit.record(
        session,
        actor,
        "tokens.revoke",
        target=str(row.id),
        chain_id=tenant_id or audit.PLATFORM_CHAIN,
        now=now,
        detail=detail,
    )
    return row


async def list_revocations(
    session: AsyncSession, tenant_id: UUID | None, *, before: UUID | None, limit: int
) -> Sequence[TokenRevocationRow]:
    """At most `limit` of a tenant's, or of those that hold in all, the newest first."""
    statement = select(TokenRevocationRow).where(TokenRevocationRow.tenant_id.is_not_distinct_from(tenant_id))
    if before is not None:
        statement = statement.where(TokenRevocationRow.id < before)
    return (await session.scalars(statement.order_by(TokenRevocationRow.id.desc()).limit(limit))).all()


async def lift_revocation(
    session: AsyncSession, tenant_id: UUID | None, revocation_id: UUID, *, actor: Actor, now: datetime
) -> None:
    """Accept the tokens again, where they have not ended meanwhile. Raises `NotFound`."""
    mine = (
        TokenRevocationRow.id == revocation_id,
        TokenRevocationRow.tenant_id.is_not_distinct_from(tenant_id),
    )
    row = (await session.scalars(select(TokenRevocationRow).where(*mine).with_for_update())).one_or_none()
    if row is None:
        raise NotFound
    await _forget(session, row)
    await audit.record(
        session,
        actor,
        "tokens.lift_revocation",
        target=str(row.id),
        chain_id=tenant_id or audit.PLATFORM_CHAIN,
        now=now,
        detail={"issuer": row.issuer, "subject": row.subject},
    )


async def forget_expired_revocations(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Take off the topic at most `limit` that no token can be left for; what another process holds is left.

    Returns how many.
    """
    expired = select(TokenRevocationRow).where(TokenRevocationRow.expires_at <= now).limit(limit)
    rows = (await session.scalars(expired.with_for_update(skip_locked=True))).all()
    for row in rows:
        await _forget(session, row)
    return len(rows)


async def withdraw_revocations_of(session: AsyncSession, tenant_id: UUID) -> None:
    """Take those of a tenant that is being purged off the topic: nobody has a token for it any more."""
    held = select(TokenRevocationRow).where(TokenRevocationRow.tenant_id == tenant_id).with_for_update()
    for row in (await session.scalars(held)).all():
        await withdraw_revocation(session, row.id, tenant_id, row.version + 1)


def revocation_document(row: TokenRevocationRow) -> TokenRevocation:
    """The row as every service sees it."""
    return TokenRevocation(
        id=str(row.id),
        holder=holder_of(row.issuer, row.subject),
        tenant_id=row.tenant_id,
        not_before=row.not_before,
        expires_at=row.expires_at,
    )


async def _forget(session: AsyncSession, row: TokenRevocationRow) -> None:
    await session.execute(delete(TokenRevocationRow).where(TokenRevocationRow.id == row.id))
    await withdraw_revocation(session, row.id, row.tenant_id, row.version + 1)
