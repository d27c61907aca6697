"""Which roles a caller may give and take in a tenant."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.roles import GRANTED_BY_ADMINS, GRANTED_BY_OWNERS, Role, grantable_by
from tenant_service.members.models import MemberRow
from tenantry.identity import Principal

_USER = "user:"


async def grantable_roles(session: AsyncSession, principal: Principal, tenant_id: UUID) -> frozenset[Role]:
    """The roles that the caller, who may administer the tenant, may give and take.

    A member's own roles are read from the table, not from their credential: what an owner may do beyond an admin is not
    a scope. An API key is nobody's hand, so it does no more than an admin.
    """
    if principal.acts_for_any_tenant:
        return GRANTED_BY_OWNERS
    if not principal.subject.startswith(_USER):
        return GRANTED_BY_ADMINS
    mine = (MemberRow.id == UUID(principal.subject.removeprefix(_USER)), MemberRow.tenant_id == tenant_id)
    roles = await session.scalar(select(MemberRow.roles).where(*mine).with_for_update(read=True))
    return grantable_by([Role(role) for role in roles or ()])
