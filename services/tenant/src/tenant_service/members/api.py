"""Routes of members, and of a person's own memberships."""

from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy import select

from tenant_service.dependencies import (
    AdministeredTenant,
    BuiltinIdentity,
    CurrentActor,
    Idempotent,
    Now,
    Transaction,
)
from tenant_service.members import repository, service
from tenant_service.members.authority import grantable_roles
from tenant_service.members.schemas import MemberCreate, MemberOut, MembershipOut, MemberUpdate, MeOut
from tenant_service.models import SessionRow
from tenantry import CurrentPrincipal
from tenantry.http import Cursor, ExpectedVersion, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(
    prefix="/v1/tenants/{tenant_id}/members",
    tags=["members"],
    dependencies=[BuiltinIdentity],
    route_class=IdempotentRoute,
)
me_router = APIRouter(tags=["members"])

ME_PATH = "/v1/me"

_LIST = "members"


@router.post("", status_code=201, dependencies=[Idempotent])
async def add_member(
    tenant: AdministeredTenant,
    body: MemberCreate,
    response: Response,
    session: Transaction,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> MemberOut:
    """Make a person a member at once. An invitation asks them first."""
    grantable = await grantable_roles(session, principal, tenant.id)
    member = await service.add_member(
        session,
        tenant,
        email=body.email,
        name=body.name,
        roles=body.roles,
        grantable=grantable,
        actor=actor,
        now=now,
    )
    response.headers["Location"] = f"/v1/tenants/{tenant.id}/members/{member.id}"
    response.headers["ETag"] = etag(member.version)
    return MemberOut.of(member, body.email)


@router.get("")
async def list_members(
    tenant: AdministeredTenant, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[MemberOut]:
    """Members in the order in which they came."""
    after = None if cursor is None else decode_cursor(cursor, UUID, of=_LIST)
    rows = await repository.list_members(session, tenant.id, after=after, limit=limit + 1)
    items = [MemberOut.of(row, email) for row, email in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=_LIST) if len(rows) > limit else None)


@router.get("/{member_id}")
async def get_member(
    tenant: AdministeredTenant, member_id: UUID, response: Response, session: Transaction
) -> MemberOut:
    """One member."""
    row, email = await repository.find_member(session, tenant.id, member_id)
    response.headers["ETag"] = etag(row.version)
    return MemberOut.of(row, email)


@router.patch("/{member_id}")
async def change_member(
    tenant: AdministeredTenant,
    member_id: UUID,
    body: MemberUpdate,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> MemberOut:
    """Change roles or name. Sessions and tokens of the member allow what the new roles do, within a second."""
    await service.change_member(
        session,
        tenant.id,
        member_id,
        roles=body.roles,
        name=body.name,
        renamed="name" in body.model_fields_set,
        grantable=await grantable_roles(session, principal, tenant.id),
        expected_version=expected_version,
        actor=actor,
        now=now,
    )
    row, email = await repository.find_member(session, tenant.id, member_id)
    response.headers["ETag"] = etag(row.version)
    return MemberOut.of(row, email)


@router.delete("/{member_id}", status_code=204)
async def remove_member(
    tenant: AdministeredTenant,
    member_id: UUID,
    session: Transaction,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> None:
    """Remove a member; their sessions and tokens for this tenant end within a second."""
    grantable = await grantable_roles(session, principal, tenant.id)
    await service.remove_member(session, tenant.id, member_id, grantable=grantable, actor=actor, now=now)


@me_router.get(ME_PATH)
async def get_me(session: Transaction, principal: CurrentPrincipal) -> MeOut:
    """Who the caller is, for which tenant they act, and which tenants they could act for."""
    memberships = []
    if principal.subject.startswith("user:"):
        # Of a token as well: its credential is the session that it was exchanged for.
        mine = select(SessionRow.person_id).where(SessionRow.id == UUID(principal.credential_id))
        person_id = await session.scalar(mine)
        if person_id is not None:
            memberships = [MembershipOut.of(*each) for each in await repository.list_memberships(session, person_id)]
    return MeOut(
        subject=principal.subject,
        kind=principal.kind,
        tenant_id=principal.tenant_id,
        scopes=sorted(principal.scopes),
        actor=principal.actor,
        memberships=memberships,
    )
