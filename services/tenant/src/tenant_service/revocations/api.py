"""Routes of revocations: of a tenant's administrators, and of operators for all tenants at once."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from tenant_service.dependencies import AdministeredTenant, CurrentActor, Idempotent, Now, Platform, Transaction
from tenant_service.revocations import service
from tenant_service.revocations.schemas import RevocationCreate, RevocationOut
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor

_TAGS = ["revocations"]

router = APIRouter(prefix="/v1/revocations", tags=[*_TAGS], route_class=IdempotentRoute, dependencies=[Platform])
tenant_router = APIRouter(prefix="/v1/tenants/{tenant_id}/revocations", tags=[*_TAGS], route_class=IdempotentRoute)


async def _everywhere() -> None:
    return None


async def _in_tenant(tenant: AdministeredTenant) -> UUID:
    return tenant.id


def _add_routes(to: APIRouter, of: Callable[..., Awaitable[UUID | None]]) -> None:
    """`of` is a dependency that gives the tenant in which revocations hold, None for all."""
    where = Depends(of)

    async def revoke_tokens(
        tenant_id: Annotated[UUID | None, where],
        body: RevocationCreate,
        session: Transaction,
        actor: CurrentActor,
        now: Now,
    ) -> RevocationOut:
        """Refuse the tokens that a trusted issuer gave a person before now, in every service within a second.

        Tokens that the person gets afterwards are accepted: to keep somebody out, bar them at the issuer first. Of
        several for one person the latest time holds.
        """
        row = await service.revoke_tokens(
            session,
            tenant_id,
            issuer=body.issuer,
            subject=body.subject,
            not_before=body.not_before,
            reason=body.reason,
            actor=actor,
            now=now,
        )
        return RevocationOut.of(row)

    async def list_revocations(
        tenant_id: Annotated[UUID | None, where], session: Transaction, limit: Limit = 50, cursor: Cursor = None
    ) -> Page[RevocationOut]:
        """Whose tokens are refused, the newest first; those that no token can be left for are forgotten."""
        name = f"revocations {tenant_id}"
        before = None if cursor is None else decode_cursor(cursor, UUID, of=name)
        rows = await service.list_revocations(session, tenant_id, before=before, limit=limit + 1)
        items = [RevocationOut.of(row) for row in rows[:limit]]
        return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=name) if len(rows) > limit else None)

    async def lift_revocation(
        tenant_id: Annotated[UUID | None, where],
        revocation_id: UUID,
        session: Transaction,
        actor: CurrentActor,
        now: Now,
    ) -> None:
        """Accept the tokens again: for a revocation that was a mistake."""
        await service.lift_revocation(session, tenant_id, revocation_id, actor=actor, now=now)

    to.add_api_route("", revoke_tokens, methods=["POST"], status_code=201, dependencies=[Idempotent])
    to.add_api_route("", list_revocations, methods=["GET"])
    to.add_api_route("/{revocation_id}", lift_revocation, methods=["DELETE"], status_code=204)


_add_routes(router, _everywhere)
_add_routes(tenant_router, _in_tenant)
