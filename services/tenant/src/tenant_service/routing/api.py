"""Routes of routing."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from tenant_service.dependencies import CurrentActor, CurrentRuntime, Now, TenantReference, Transaction
from tenant_service.routing import service
from tenant_service.tenants.schemas import Input, TenantOut, shown
from tenantry import CurrentPrincipal, InvalidRequest, PermissionDenied
from tenantry.http import require_scope
from tenantry.identity import Scope

router = APIRouter(
    prefix="/v1/tenants", tags=["tenants"], dependencies=[Depends(require_scope(Scope.PLATFORM, Scope.SERVICE))]
)


class RoutingPut(Input):
    buckets: Annotated[int, Field(ge=1, strict=True)]
    pinned: bool = Field(default=False, description="The usage service leaves the tenant as it is. For operators.")


@router.put("/{tenant_id}/routing")
async def route_tenant(
    tenant_id: TenantReference,
    body: RoutingPut,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> TenantOut:
    """Spread a tenant's events over so many keys, or bring them together again. For operators and the usage service."""
    by_operator = principal.has_any(Scope.PLATFORM)
    if not by_operator and principal.subject not in runtime.settings.routing_clients:
        raise PermissionDenied("An operator, or the usage service, may do this.")
    if body.pinned and not by_operator:
        detail = "only an operator pins"
        raise InvalidRequest(detail, errors=[{"loc": ["body", "pinned"], "msg": detail}])
    tenant = await service.route_tenant(
        session, tenant_id, body.buckets, pinned=body.pinned, by_operator=by_operator, actor=actor, now=now
    )
    return shown(tenant, response)
