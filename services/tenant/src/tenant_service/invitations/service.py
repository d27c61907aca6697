"""Use cases of invitations. The caller opens the transaction and commits it.

A code is shown once: to who has asked for it, or to the company's mailer, which asks for one when it sends the mail.
Nobody finds one in a table, in an event or in a log. A new code replaces the one before.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor, Deed
from tenant_service.domain.roles import Role, check_change
from tenant_service.identity.secrets import new_secret, sha256
from tenant_service.invitations.models import InvitationRow
from tenant_service.members import repository as members
from tenant_service.members.models import MemberRow
from tenant_service.models import TenantRow
from tenant_service.publication import tell
from tenant_service.sessions.service import InvalidCode
from tenant_service.tenants.document import document
from tenantry import Conflict, NotFound, Operation, Tenant, admit, uuid7

INVITATION_PREFIX = "tv_"

Delivery = Literal["answer", "mailer"]


class AlreadyInvited(Conflict):
    """One open invitation for each address of a tenant."""

    type = "already-invited"
    title = "The person is invited already"


class InvitationClosed(Conflict):
    """Accepted or revoked."""

    type = "invitation-closed"
    title = "The invitation is not open any more"


class NotForMail(Conflict):
    """Its code is handed over by whoever invited, and a new one would end that."""

    type = "invitation-not-for-mail"
    title = "The invitation is not delivered by mail"


async def invite(
    session: AsyncSession,
    tenant: TenantRow,
    *,
    email: str,
    roles: Collection[Role],
    grantable: Collection[Role],
    delivery: Delivery,
    lifetime: timedelta,
    actor: Actor,
    now: datetime,
) -> tuple[InvitationRow, str | None]:
    """Invite a person, and return the code where the answer is to deliver it.

    What is answered does not depend on whether the address is known to the platform.
    Raises `OwnerRequired`, `AlreadyMember`, `AlreadyInvited`.
    """
    check_change((), roles, grantable=grantable)
    if await members.find_by_email(session, tenant.id, email) is not None:
        raise members.AlreadyMember("Change the roles of the member instead")
    open_one = (InvitationRow.tenant_id == tenant.id, InvitationRow.email == email, *_OPEN)
    await session.execute(
        update(InvitationRow).where(*open_one, InvitationRow.expires_at <= now).values(revoked_at=now)
    )
    return await add_invitation(
        session, tenant, email=email, roles=roles, delivery=delivery, lifetime=lifetime, actor=actor, now=now
    )


async def add_invitation(
    session: AsyncSession,
    tenant: TenantRow,
    *,
    email: str,
    roles: Collection[Role],
    delivery: Delivery,
    lifetime: timedelta,
    actor: Actor,
    now: datetime,
) -> tuple[InvitationRow, str | None]:
    """The row, the event and the entry of an invitation; the caller has checked it. Raises `AlreadyInvited`."""
    code = new_secret(INVITATION_PREFIX) if delivery == "answer" else None
    row = InvitationRow(
        id=uuid7(),
        tenant_id=tenant.id,
        email=email,
        roles=sorted(set(roles)),
        delivery=delivery,
        code_sha256=None if code is None else sha256(code),
        invited_by=actor.subject,
        created_at=now,
        expires_at=now + lifetime,
        accepted_at=None,
        revoked_at=None,
        member_id=None,
    )
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        if "uq_invitation_open" in str(error.orig):
            raise AlreadyInvited("Send the invitation again instead, or revoke it") from None
        raise
    await _tell_invited(session, tenant, row)
    await _audit(session, row, "invitation.create", actor, now)
    return row, code


@dataclass(frozen=True, slots=True)
class OwnerInvitation:
    """The invitation of a new tenant's owner, to be written with the tenant: its row, what is told and the entry."""

    row: Mapping[str, Any]
    story: Mapping[str, Any]
    deed: Deed


def invite_owner(tenant: Tenant, email: str, *, lifetime: timedelta, actor: Actor, now: datetime) -> OwnerInvitation:
    """An invitation that the company's mailer delivers; it can be accepted once the tenant is active."""
    row = InvitationRow(
        id=uuid7(),
        tenant_id=tenant.id,
        email=email,
        roles=[Role.OWNER.value],
        delivery="mailer",
        invited_by=actor.subject,
        expires_at=now + lifetime,
    )
    columns = ("id", "tenant_id", "email", "roles", "delivery", "invited_by", "expires_at")
    return OwnerInvitation(
        {column: getattr(row, column) for column in columns}, _story(row), _deed(row, "invitation.create")
    )


async def list_invitations(
    session: AsyncSession, tenant_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[InvitationRow]:
    """At most `limit` invitations of the tenant in the order in which they were made, closed ones among them."""
    statement = select(InvitationRow).where(InvitationRow.tenant_id == tenant_id).order_by(InvitationRow.id)
    if after is not None:
        statement = statement.where(InvitationRow.id > after)
    return (await session.scalars(statement.limit(limit))).all()


async def find_invitation(
    session: AsyncSession, tenant_id: UUID, invitation_id: UUID, *, lock: bool = False
) -> InvitationRow:
    """An invitation to this tenant. Raises `NotFound`."""
    statement = select(InvitationRow).where(InvitationRow.id == invitation_id, InvitationRow.tenant_id == tenant_id)
    row = (await session.scalars(statement.with_for_update() if lock else statement)).one_or_none()
    if row is None:
        raise NotFound
    return row


async def resend_invitation(
    session: AsyncSession,
    tenant: TenantRow,
    invitation_id: UUID,
    *,
    grantable: Collection[Role],
    lifetime: timedelta,
    actor: Actor,
    now: datetime,
) -> tuple[InvitationRow, str | None]:
    """End the last code and make the invitation good for its full time again, by the way of delivery that it has.

    Raises `NotFound`, `InvitationClosed`, `OwnerRequired`.
    """
    row = await _lock_open(session, tenant.id, invitation_id)
    check_change((), [Role(role) for role in row.roles], grantable=grantable)
    code = new_secret(INVITATION_PREFIX) if row.delivery == "answer" else None
    row.code_sha256 = None if code is None else sha256(code)
    row.expires_at = now + lifetime
    await session.flush()
    await _tell_invited(session, tenant, row)
    await _audit(session, row, "invitation.resend", actor, now)
    return row, code


async def make_code(
    session: AsyncSession, tenant: TenantRow, invitation_id: UUID, *, actor: Actor, now: datetime
) -> tuple[InvitationRow, str]:
    """A code for the mailer to send, which ends the last one.

    Raises `NotFound`, `InvitationClosed` (also where the invitation has expired), `NotForMail`.
    """
    row = await _lock_open(session, tenant.id, invitation_id)
    if row.expires_at <= now:
        raise InvitationClosed("The invitation has expired")
    if row.delivery != "mailer":
        raise NotForMail("Whoever invited delivers the code")
    code = new_secret(INVITATION_PREFIX)
    row.code_sha256 = sha256(code)
    await session.flush()
    await _audit(session, row, "invitation.code", actor, now)
    return row, code


async def revoke_invitation(
    session: AsyncSession,
    tenant: TenantRow,
    invitation_id: UUID,
    *,
    grantable: Collection[Role],
    actor: Actor,
    now: datetime,
) -> None:
    """Let nobody in by it; may be repeated. Raises `NotFound`, `InvitationClosed` (accepted), `OwnerRequired`."""
    row = await find_invitation(session, tenant.id, invitation_id, lock=True)
    if row.accepted_at is not None:
        raise InvitationClosed("It has been accepted; remove the member instead")
    check_change((), [Role(role) for role in row.roles], grantable=grantable)
    if row.revoked_at is None:
        await _revoke(session, tenant, row, actor=actor, now=now)


async def close_invitations(session: AsyncSession, tenant: TenantRow, *, actor: Actor, now: datetime) -> None:
    """Let nobody in by any invitation of a tenant that has come to nothing, whose row the caller has locked."""
    still_open = select(InvitationRow).where(InvitationRow.tenant_id == tenant.id, *_OPEN).order_by(InvitationRow.id)
    for row in (await session.scalars(still_open.with_for_update())).all():
        await _revoke(session, tenant, row, actor=actor, now=now)


async def _revoke(session: AsyncSession, tenant: TenantRow, row: InvitationRow, *, actor: Actor, now: datetime) -> None:
    row.revoked_at = now
    await session.flush()
    await tell(session, document(tenant, None), "invitation_revoked", {"invitation_id": str(row.id)})
    await _audit(session, row, "invitation.revoke", actor, now)


async def accept_invitation(session: AsyncSession, code: str, *, request_id: str | None, now: datetime) -> MemberRow:
    """Use an invitation up, and return the member, held for the caller as by `hold_membership`.

    The person is new or known: the answer does not say which. Who is a member of the tenant already keeps their roles.
    The code is taken by one conditional update, so of two attempts at once one gets in. Raises `InvalidCode`, and
    `TenantSuspended` or `TenantNotActive` where nobody may sign in (the code is not used then).
    """
    taken = (
        update(InvitationRow)
        .where(InvitationRow.code_sha256 == sha256(code), *_OPEN, InvitationRow.expires_at > now)
        .values(accepted_at=now)
        .returning(InvitationRow)
        .execution_options(synchronize_session=False)
    )
    row = (await session.scalars(taken)).one_or_none()
    if row is None:
        raise InvalidCode("The code is unknown, used or expired; ask for a new one")
    tenant = await session.get_one(TenantRow, row.tenant_id)
    admit(document(tenant, None), Operation.LOGIN)
    person_id = await members.person_named(session, row.email, now=now)
    roles = [Role(role) for role in row.roles]
    added = await members.add_member(session, tenant.id, person_id, name=None, roles=roles, now=now)
    member = await members.hold_membership(session, person_id, tenant.id)
    if member is None:
        raise InvalidCode("The member has just been removed; ask for a new invitation")
    row.member_id = member.id
    await session.flush()
    if added:
        await tell(
            session, document(tenant, None), "member_added", {"member_id": str(member.id), "roles": member.roles}
        )
    actor = Actor(subject=f"user:{member.id}", kind="user", credential_id=str(row.id), request_id=request_id)
    await _audit(session, row, "invitation.accept", actor, now)
    return member


async def _lock_open(session: AsyncSession, tenant_id: UUID, invitation_id: UUID) -> InvitationRow:
    row = await find_invitation(session, tenant_id, invitation_id, lock=True)
    if row.accepted_at is not None or row.revoked_at is not None:
        raise InvitationClosed("It has been accepted or revoked")
    return row


async def _tell_invited(session: AsyncSession, tenant: TenantRow, row: InvitationRow) -> None:
    """Neither the address nor the code: events are kept, and read by many."""
    await tell(session, document(tenant, None), "user_invited", _story(row))


def _story(row: InvitationRow) -> dict[str, str]:
    return {"invitation_id": str(row.id), "delivery": row.delivery, "expires_at": row.expires_at.isoformat()}


async def _audit(session: AsyncSession, row: InvitationRow, action: str, actor: Actor, now: datetime) -> None:
    await audit.record_many(session, actor, [_deed(row, action)], now=now)


def _deed(row: InvitationRow, action: str) -> Deed:
    # The address stays out of the trail, which nobody can erase anything from.
    return Deed(action, str(row.id), row.tenant_id, {"roles": row.roles, "delivery": row.delivery})


_OPEN = (InvitationRow.accepted_at.is_(None), InvitationRow.revoked_at.is_(None))
