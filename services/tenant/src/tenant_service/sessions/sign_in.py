"""Use case of signing in, whatever the code is: an operator's, a person's or an invitation's."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.invitations.service import INVITATION_PREFIX, accept_invitation
from tenant_service.members.models import MemberRow
from tenant_service.members.repository import hold_membership, list_memberships, person_of
from tenant_service.sessions.members import sign_in_member
from tenant_service.sessions.service import (
    SESSION_LIFETIME,
    InvalidCode,
    SignedIn,
    begin_session,
    create_code,
    use_code,
)
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import find_tenant
from tenantry import NotFound, Operation, TenantSuspended


async def sign_in(session: AsyncSession, code: str, *, request_id: str | None, now: datetime) -> SignedIn:
    """Use a code up and begin a session that every service accepts. The caller commits.

    Raises `InvalidCode`, and `TenantSuspended` where the tenant's state forbids to sign in (the code is not used then).
    """
    if code.startswith(INVITATION_PREFIX):
        member = await accept_invitation(session, code, request_id=request_id, now=now)
        return await sign_in_member(session, member, request_id=request_id, now=now)
    granted = await use_code(session, code, now=now)
    if granted.person_id is not None:
        member = await _open_membership(session, granted.person_id, granted.tenant_id)
        return await sign_in_member(session, member, request_id=request_id, now=now)
    row, secret = await begin_session(
        session, subject=granted.subject, scopes=granted.scopes, expires_at=now + SESSION_LIFETIME, now=now
    )
    actor = Actor(subject=row.subject, kind="operator", credential_id=str(row.id), request_id=request_id)
    await audit.record(session, actor, "session.create", target=str(row.id), now=now)
    return SignedIn(row.id, secret, row.subject, row.scopes, row.expires_at)


async def create_person_code(
    session: AsyncSession, *, email: str, tenant: str | None, actor: Actor, now: datetime
) -> tuple[str, datetime]:
    """A code for the person with this address, and when it ends. The caller commits.

    Raises `NotFound` where nobody has the address, or they are no member of the tenant that is asked for.
    """
    person = await person_of(session, email)
    if person is None:
        raise NotFound
    tenant_id = None if tenant is None else (await find_tenant(session, tenant))[0].id
    memberships = await list_memberships(session, person.id)
    if not any(tenant_id in {None, member.tenant_id} for member, _ in memberships):
        raise NotFound
    return await create_code(
        session,
        subject=f"person:{person.id}",
        scopes=[],
        actor=actor,
        now=now,
        person_id=person.id,
        tenant_id=tenant_id,
    )


async def _open_membership(session: AsyncSession, person_id: UUID, tenant_id: UUID | None) -> MemberRow:
    """The membership to sign in as: of the tenant that was asked for, else the longest one that is open."""
    closed = None
    for member, tenant in await list_memberships(session, person_id):
        if tenant_id is not None and tenant.id != tenant_id:
            continue
        if document(tenant, None).blocks(Operation.LOGIN):
            closed = tenant
            continue
        held = await hold_membership(session, person_id, member.tenant_id)
        if held is not None:
            return held
    if closed is not None:
        raise TenantSuspended(f"The tenant is {closed.status}")
    raise InvalidCode("The code is unknown, used or expired; ask for a new one")
