"""SQL of persons and members."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.identifiers import as_uuid
from tenant_service.domain.roles import Role
from tenant_service.members.models import MemberRow, PersonRow
from tenant_service.models import SessionRow, TenantRow
from tenantry import Conflict, NotFound, uuid7


class AlreadyMember(Conflict):
    """Somebody with this address is in the tenant."""

    type = "already-member"
    title = "The person is a member already"


async def find_member(session: AsyncSession, tenant_id: UUID, member_id: UUID) -> tuple[MemberRow, str]:
    """A member of this tenant, and their address. Raises `NotFound`."""
    statement = (
        select(MemberRow, PersonRow.email)
        .join(PersonRow, PersonRow.id == MemberRow.person_id)
        .where(MemberRow.id == member_id, MemberRow.tenant_id == tenant_id)
    )
    found = (await session.execute(statement)).one_or_none()
    if found is None:
        raise NotFound
    return found[0], found[1]


async def lock_member(session: AsyncSession, tenant_id: UUID, member_id: UUID) -> MemberRow:
    """A member of this tenant, to be changed. Raises `NotFound`."""
    statement = select(MemberRow).where(MemberRow.id == member_id, MemberRow.tenant_id == tenant_id)
    row = (await session.scalars(statement.with_for_update())).one_or_none()
    if row is None:
        raise NotFound
    return row


async def hold_membership(session: AsyncSession, person_id: UUID, tenant_id: UUID) -> MemberRow | None:
    """The person as a member of the tenant, whose roles cannot change until the caller's transaction ends.

    Whoever gives out credentials by it takes this lock first: a removal then either finds them, or comes before.
    """
    statement = (
        select(MemberRow)
        .where(MemberRow.person_id == person_id, MemberRow.tenant_id == tenant_id)
        .with_for_update(read=True)
    )
    return (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()


async def list_members(
    session: AsyncSession, tenant_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[tuple[MemberRow, str]]:
    """At most `limit` members with their addresses, in the order in which they came."""
    statement = (
        select(MemberRow, PersonRow.email)
        .join(PersonRow, PersonRow.id == MemberRow.person_id)
        .where(MemberRow.tenant_id == tenant_id)
        .order_by(MemberRow.id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(MemberRow.id > after)
    return [(row, email) for row, email in await session.execute(statement)]


async def list_memberships(session: AsyncSession, person_id: UUID) -> Sequence[tuple[MemberRow, TenantRow]]:
    """Every tenant that the person is a member of, the longest membership first."""
    statement = (
        select(MemberRow, TenantRow)
        .join(TenantRow, TenantRow.id == MemberRow.tenant_id)
        .where(MemberRow.person_id == person_id)
        .order_by(MemberRow.id)
    )
    return [(row, tenant) for row, tenant in await session.execute(statement)]


async def find_joined_tenant(session: AsyncSession, session_id: UUID, reference: str) -> UUID:
    """The tenant with this id or external id, of those that the session's person is a member of.

    Raises `NotFound`, after one statement whether or not there is such a tenant: the time does not tell it either.
    """
    tenant_id = as_uuid(reference)
    statement = (
        select(TenantRow.id)
        .join(MemberRow, MemberRow.tenant_id == TenantRow.id)
        .join(SessionRow, SessionRow.person_id == MemberRow.person_id)
        .where(SessionRow.id == session_id)
        .where(TenantRow.external_id == reference if tenant_id is None else TenantRow.id == tenant_id)
    )
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound
    return found


async def count_owners(session: AsyncSession, tenant_id: UUID) -> int:
    """How many owners the tenant has; true for as long as the caller holds the tenant's row."""
    statement = select(func.count()).where(MemberRow.tenant_id == tenant_id, MemberRow.roles.contains([Role.OWNER]))
    return (await session.execute(statement)).scalar_one()


async def find_by_email(session: AsyncSession, tenant_id: UUID, email: str) -> MemberRow | None:
    """The member of this tenant with this normalised address."""
    statement = (
        select(MemberRow)
        .join(PersonRow, PersonRow.id == MemberRow.person_id)
        .where(PersonRow.email == email, MemberRow.tenant_id == tenant_id)
    )
    return (await session.scalars(statement)).one_or_none()


async def person_of(session: AsyncSession, email: str) -> PersonRow | None:
    """The person with this normalised address."""
    return (await session.scalars(select(PersonRow).where(PersonRow.email == email))).one_or_none()


async def person_named(session: AsyncSession, email: str, *, now: datetime) -> UUID:
    """The id of the person with this normalised address, who may be new.

    Ids are random: one that holds the time of its making would tell a tenant who was known before.
    """
    first = upsert(PersonRow).values(id=uuid4(), email=email, created_at=now)
    await session.execute(first.on_conflict_do_nothing(index_elements=[PersonRow.email]))
    return (await session.execute(select(PersonRow.id).where(PersonRow.email == email))).scalar_one()


async def add_member(
    session: AsyncSession, tenant_id: UUID, person_id: UUID, *, name: str | None, roles: Sequence[Role], now: datetime
) -> bool:
    """Make the person a member, and say whether they were none yet: who is one already keeps their roles."""
    values = {
        "id": uuid7(),
        "tenant_id": tenant_id,
        "person_id": person_id,
        "name": name,
        "roles": sorted(set(roles)),
        "version": 1,
        "created_at": now,
    }
    insert = upsert(MemberRow).values(values).on_conflict_do_nothing(constraint="uq_member_tenant_id_person_id")
    return (await session.execute(insert.returning(MemberRow.id))).scalar_one_or_none() is not None
