"""Use cases of members. The caller opens the transaction and commits it.

Changes of a tenant's members are made under the tenant's row, one after the other: two owners who remove each other at
once do not leave the tenant without one.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.domain.roles import Role, check_change, check_owners
from tenant_service.members import repository
from tenant_service.members.models import MemberRow
from tenant_service.models import TenantRow
from tenant_service.publication import tell
from tenant_service.sessions.members import end_sessions, renew_sessions
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import lock_tenant
from tenantry import StaleVersion


async def add_member(
    session: AsyncSession,
    tenant: TenantRow,
    *,
    email: str,
    name: str | None,
    roles: Collection[Role],
    grantable: Collection[Role],
    actor: Actor,
    now: datetime,
) -> MemberRow:
    """Make the person with this normalised address a member, without an invitation.

    What is answered does not depend on whether the platform knew the address. Raises `OwnerRequired`, `AlreadyMember`.
    """
    check_change((), roles, grantable=grantable)
    person_id = await repository.person_named(session, email, now=now)
    added = await repository.add_member(session, tenant.id, person_id, name=name, roles=list(roles), now=now)
    member = await repository.hold_membership(session, person_id, tenant.id)
    if not added or member is None:
        raise repository.AlreadyMember("Change the roles of the member instead")
    await tell(session, document(tenant, None), "member_added", {"member_id": str(member.id), "roles": member.roles})
    await _audit(session, member, "member.add", {"roles": member.roles}, actor, now)
    return member


async def change_member(
    session: AsyncSession,
    tenant_id: UUID,
    member_id: UUID,
    *,
    roles: Collection[Role] | None,
    name: str | None,
    renamed: bool,
    grantable: Collection[Role],
    expected_version: int | None,
    actor: Actor,
    now: datetime,
) -> MemberRow:
    """Change a member's roles or name. What their sessions and tokens allow follows at once; may be repeated.

    Raises `NotFound`, `StaleVersion`, `OwnerRequired`, `LastOwner`.
    """
    tenant, clock = await lock_tenant(session, tenant_id)
    member = await repository.lock_member(session, tenant_id, member_id)
    if expected_version is not None and expected_version != member.version:
        raise StaleVersion(f"The present version is {member.version}")
    before = list(member.roles)
    after = before if roles is None else sorted({role.value for role in roles})
    if after == before and (not renamed or member.name == name):
        return member
    await _check(session, member, after, grantable)
    member.roles = after
    if renamed:
        member.name = name
    member.version += 1
    await session.flush()
    if after != before:
        await renew_sessions(session, member)
        await tell(
            session, document(tenant, clock), "member_role_changed", {"member_id": str(member.id), "roles": after}
        )
    await _audit(session, member, "member.change", {"before": before, "after": after}, actor, now)
    return member


async def remove_member(
    session: AsyncSession,
    tenant_id: UUID,
    member_id: UUID,
    *,
    grantable: Collection[Role],
    actor: Actor,
    now: datetime,
) -> None:
    """Remove a member and end their sessions, and with them their tokens, in every service.

    Raises `NotFound`, `OwnerRequired`, `LastOwner`.
    """
    tenant, clock = await lock_tenant(session, tenant_id)
    member = await repository.lock_member(session, tenant_id, member_id)
    await _check(session, member, (), grantable)
    await end_sessions(session, member.id, now=now)
    await session.delete(member)
    await session.flush()
    await tell(session, document(tenant, clock), "member_removed", {"member_id": str(member.id)})
    await _audit(session, member, "member.remove", {"roles": member.roles}, actor, now)


async def _check(session: AsyncSession, member: MemberRow, after: Collection[str], grantable: Collection[Role]) -> None:
    check_change([Role(role) for role in member.roles], [Role(role) for role in after], grantable=grantable)
    check_owners(
        was_owner=Role.OWNER in member.roles,
        stays_owner=Role.OWNER in after,
        owners=await repository.count_owners(session, member.tenant_id),
    )


async def _audit(
    session: AsyncSession, member: MemberRow, action: str, detail: dict[str, object], actor: Actor, now: datetime
) -> None:
    await audit.record(session, actor, action, target=str(member.id), chain_id=member.tenant_id, now=now, detail=detail)
