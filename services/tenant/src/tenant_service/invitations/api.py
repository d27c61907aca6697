"""Routes of invitations."""

from datetime import datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from tenant_service.dependencies import (
    AdministeredTenant,
    BuiltinIdentity,
    CurrentActor,
    CurrentRuntime,
    IdempotentSecret,
    Now,
    TenantReference,
    Transaction,
)
from tenant_service.invitations import service
from tenant_service.invitations.models import InvitationRow
from tenant_service.invitations.schemas import (
    InvitationCreate,
    InvitationMailOut,
    InvitationOut,
    SentInvitationOut,
)
from tenant_service.members.authority import grantable_roles
from tenant_service.runtime import Runtime
from tenant_service.sessions.api import PAGE_PATH
from tenant_service.tenants.repository import find_tenant
from tenantry import CurrentPrincipal
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, require_scope
from tenantry.identity import Scope

router = APIRouter(
    prefix="/v1/tenants/{tenant_id}/invitations",
    tags=["invitations"],
    dependencies=[BuiltinIdentity],
    route_class=IdempotentRoute,
)

_LIST = "invitations"


def _url(runtime: Runtime, code: str) -> str:
    return f"{runtime.settings.base_url}{PAGE_PATH}?{urlencode({'code': code})}"


def _lifetime(runtime: Runtime) -> timedelta:
    return timedelta(days=runtime.settings.invitation_days)


def _sent(
    row: InvitationRow, code: str | None, response: Response, runtime: Runtime, now: datetime
) -> SentInvitationOut:
    response.headers["Cache-Control"] = "no-store"
    return SentInvitationOut.of(row, now, code=code, url=None if code is None else _url(runtime, code))


@router.post("", status_code=201, dependencies=[IdempotentSecret])
async def create_invitation(
    tenant: AdministeredTenant,
    body: InvitationCreate,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> SentInvitationOut:
    """Invite a person. The answer is the same whether or not the platform knows the address."""
    row, code = await service.invite(
        session,
        tenant,
        email=body.email,
        roles=body.roles,
        grantable=await grantable_roles(session, principal, tenant.id),
        delivery=body.delivery,
        lifetime=_lifetime(runtime),
        actor=actor,
        now=now,
    )
    return _sent(row, code, response, runtime, now)


@router.get("")
async def list_invitations(
    tenant: AdministeredTenant, session: Transaction, now: Now, limit: Limit = 50, cursor: Cursor = None
) -> Page[InvitationOut]:
    """Invitations in the order in which they were made, closed ones among them."""
    after = None if cursor is None else decode_cursor(cursor, UUID, of=_LIST)
    rows = await service.list_invitations(session, tenant.id, after=after, limit=limit + 1)
    items = [InvitationOut.of(row, now) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=_LIST) if len(rows) > limit else None)


@router.get("/{invitation_id}")
async def get_invitation(
    tenant: AdministeredTenant, invitation_id: UUID, session: Transaction, now: Now
) -> InvitationOut:
    """One invitation, without its code."""
    return InvitationOut.of(await service.find_invitation(session, tenant.id, invitation_id), now)


@router.post("/{invitation_id}/resend", dependencies=[IdempotentSecret])
async def resend_invitation(
    tenant: AdministeredTenant,
    invitation_id: UUID,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> SentInvitationOut:
    """A new code and the full time again; the last code is good for nothing any more."""
    row, code = await service.resend_invitation(
        session,
        tenant,
        invitation_id,
        grantable=await grantable_roles(session, principal, tenant.id),
        lifetime=_lifetime(runtime),
        actor=actor,
        now=now,
    )
    return _sent(row, code, response, runtime, now)


@router.post("/{invitation_id}/code", dependencies=[Depends(require_scope(Scope.DELIVER))])
async def make_code(
    tenant_id: TenantReference,
    invitation_id: UUID,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    actor: CurrentActor,
    now: Now,
) -> InvitationMailOut:
    """For the mailer that `tenant.user_invited.v1` asks for a mail: a code, which ends the last one."""
    tenant, _ = await find_tenant(session, tenant_id)
    row, code = await service.make_code(session, tenant, invitation_id, actor=actor, now=now)
    response.headers["Cache-Control"] = "no-store"
    return InvitationMailOut(email=row.email, code=code, url=_url(runtime, code), expires_at=row.expires_at)


@router.delete("/{invitation_id}", status_code=204)
async def revoke_invitation(
    tenant: AdministeredTenant,
    invitation_id: UUID,
    session: Transaction,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> None:
    """Let nobody in by it any more."""
    grantable = await grantable_roles(session, principal, tenant.id)
    await service.revoke_invitation(session, tenant, invitation_id, grantable=grantable, actor=actor, now=now)
