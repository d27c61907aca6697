"""Sessions of members: each belongs to one tenant. The caller opens the transaction and commits it.

What is published of a session is what its member may do at the moment, so a role that is taken away, or a removal, ends
what every service allows as soon as the record has arrived there. Locks are taken in the order member, session, the
sessions below it.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.roles import Role, scopes_of
from tenant_service.members.models import MemberRow
from tenant_service.members.repository import find_joined_tenant, hold_membership
from tenant_service.models import SessionRow
from tenant_service.sessions.service import SESSION_LIFETIME, SignedIn, begin_session, end_session, publish_session
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import find_tenant
from tenantry import NotFound, Operation, Unauthenticated, admit


class SessionOver(Unauthenticated):
    """The session has ended between the request and its answer."""

    type = "session-over"
    title = "The session has ended"


def subject_of(member: MemberRow) -> str:
    """The name of a member in tokens and in the trail: another one in each tenant that a person belongs to."""
    return f"user:{member.id}"


async def sign_in_member(
    session: AsyncSession, member: MemberRow, *, request_id: str | None, now: datetime
) -> SignedIn:
    """A session of a member whom the caller has held with `hold_membership`."""
    row, secret = await begin_session(
        session,
        subject=subject_of(member),
        scopes=_scopes(member),
        member=member,
        expires_at=now + SESSION_LIFETIME,
        now=now,
    )
    actor = Actor(subject=row.subject, kind="session", credential_id=str(row.id), request_id=request_id)
    await audit.record(session, actor, "session.create", target=str(row.id), chain_id=member.tenant_id, now=now)
    return SignedIn(row.id, secret, row.subject, row.scopes, row.expires_at, member.tenant_id)


async def session_in(
    session: AsyncSession, session_id: UUID, tenant_id: UUID, *, request_id: str | None, now: datetime
) -> SessionRow | None:
    """The session that a token for this tenant hangs on; None where its person is no member there.

    For another tenant than the session's own it is a session below it, made when it is first needed.
    Raises `SessionOver`.
    """
    person_id = await session.scalar(select(SessionRow.person_id).where(SessionRow.id == session_id))
    member = None if person_id is None else await hold_membership(session, person_id, tenant_id)
    if member is None:
        return None
    parent = await session.get(SessionRow, session_id, with_for_update=True, populate_existing=True)
    if parent is None or parent.ended_at is not None or parent.expires_at <= now:
        raise SessionOver("Sign in again")
    if parent.member_id == member.id:
        return parent
    below = select(SessionRow).where(
        SessionRow.parent_id == parent.id, SessionRow.member_id == member.id, SessionRow.ended_at.is_(None)
    )
    known = (await session.scalars(below.limit(1))).one_or_none()
    if known is not None:
        return known
    row, _ = await begin_session(
        session,
        subject=subject_of(member),
        scopes=_scopes(member),
        member=member,
        parent_id=parent.id,
        expires_at=parent.expires_at,
        now=now,
    )
    actor = Actor(subject=row.subject, kind="session", credential_id=str(row.id), request_id=request_id)
    await audit.record(session, actor, "session.switch", target=str(row.id), chain_id=tenant_id, now=now)
    return row


async def switch_session(
    session: AsyncSession, session_id: UUID, reference: str, *, request_id: str | None, now: datetime
) -> SignedIn:
    """A session in another tenant of the same person, in the place of this one.

    Raises `NotFound` where there is no such tenant or the person is no member of it, `SessionOver`, and
    `TenantSuspended` or `TenantNotActive` where nobody may sign in there.
    """
    tenant_id = await find_joined_tenant(session, session_id, reference)
    tenant, _ = await find_tenant(session, str(tenant_id))
    person_id = await session.scalar(select(SessionRow.person_id).where(SessionRow.id == session_id))
    member = None if person_id is None else await hold_membership(session, person_id, tenant.id)
    if member is None:
        raise NotFound
    admit(document(tenant, None), Operation.LOGIN)
    left = await session.get(SessionRow, session_id, with_for_update=True, populate_existing=True)
    if left is None or left.ended_at is not None or left.expires_at <= now:
        raise SessionOver("Sign in again")
    await end_session(session, left, now)
    return await sign_in_member(session, member, request_id=request_id, now=now)


async def renew_sessions(session: AsyncSession, member: MemberRow) -> None:
    """Let every session of a member, whose row the caller has changed, allow what the member may do now."""
    for row in await _lock_sessions(session, member.id):
        row.scopes = _scopes(member)
        row.version += 1
        await session.flush()
        await publish_session(session, row)


async def end_sessions(session: AsyncSession, member_id: UUID, *, now: datetime) -> None:
    """End every session of a member who is one no longer."""
    for row in await _lock_sessions(session, member_id):
        await end_session(session, row, now)


async def _lock_sessions(session: AsyncSession, member_id: UUID) -> Sequence[SessionRow]:
    mine = select(SessionRow).where(SessionRow.member_id == member_id, SessionRow.ended_at.is_(None))
    return (await session.scalars(mine.order_by(SessionRow.id).with_for_update())).all()


def _scopes(member: MemberRow) -> list[str]:
    return sorted(scopes_of([Role(role) for role in member.roles]))
