"""Routes of the registry."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from tenant_service.config.parties import Writer
from tenant_service.config.service import configure_tenant
from tenant_service.dependencies import (
    CurrentActor,
    CurrentRuntime,
    Idempotent,
    Now,
    Platform,
    TenantReference,
    Transaction,
    check_may_read,
)
from tenant_service.runs.repository import list_troubled_runs
from tenant_service.runs.schemas import RunOut
from tenant_service.runtime import Runtime
from tenant_service.tenants import creation, service
from tenant_service.tenants.creation import NewTenant
from tenant_service.tenants.repository import TenantFilter
from tenant_service.tenants.schemas import (
    LegalHold,
    ReadOnly,
    Suspension,
    TenantBatch,
    TenantBatchOut,
    TenantCreate,
    TenantDetailOut,
    TenantOut,
    TenantUpdate,
    TenantWanted,
    Trial,
    shown,
)
from tenantry import CurrentPrincipal, InvalidRequest, TenantStatus
from tenantry.http import Cursor, ExpectedVersion, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, etag

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=IdempotentRoute)

_LIST = "tenants"
RUNS_SHOWN = 10
# Five hundred tenants with what they may say of themselves, but not all of the fifty labels of each.
BODY_LIMITS = {"POST /v1/tenants/batch": 2 * 1024 * 1024}


@router.post("", status_code=202, dependencies=[Platform, Idempotent])
async def create_tenant(
    body: TenantCreate,
    response: Response,
    session: Transaction,
    runtime: CurrentRuntime,
    actor: CurrentActor,
    now: Now,
) -> TenantOut:
    """Register a tenant; it is `active` when every required service has done its part."""
    wanted = _wanted(body, runtime, ["body"])
    tenant = await creation.create_tenant(session, wanted, actor=actor, now=now, invite_for=runtime.settings.invite_for)
    await configure_tenant(session, tenant, body.config, Writer(actor, runtime.master_key, now))
    response.headers["Location"] = f"/v1/tenants/{tenant.id}"
    return shown(tenant, response)


@router.post("/batch", status_code=202, dependencies=[Platform, Idempotent])
async def create_tenants(
    body: TenantBatch, session: Transaction, runtime: CurrentRuntime, actor: CurrentActor, now: Now
) -> TenantBatchOut:
    """Register many tenants at once; one that cannot be made stops no other, and says why in its place."""
    wanted = [_wanted(each, runtime, ["body", "tenants", number]) for number, each in enumerate(body.tenants)]
    return TenantBatchOut.of(
        await creation.create_tenants(session, wanted, actor=actor, now=now, invite_for=runtime.settings.invite_for)
    )


def _wanted(body: TenantWanted, runtime: Runtime, loc: list[str | int]) -> NewTenant:
    if body.test_clock is not None and not runtime.settings.test_clocks_enabled:
        detail = "test clocks are not enabled"
        raise InvalidRequest(detail, errors=[{"loc": [*loc, "test_clock"], "msg": detail}])
    return NewTenant(
        slug=body.slug,
        name=body.name,
        tier=body.tier,
        admin_email=body.admin_email,
        external_id=body.external_id,
        region=body.region,
        isolation=body.isolation,
        plan=body.plan,
        test_clock_id=body.test_clock,
        metadata=body.metadata,
    )


@router.get("", dependencies=[Platform])
async def list_tenants(
    session: Transaction,
    status: TenantStatus | None = None,
    tier: Annotated[str | None, Query(max_length=64)] = None,
    q: Annotated[str | None, Query(max_length=128, description="A part of slug, name or external id.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TenantOut]:
    """Tenants in the order of creation."""
    after = None if cursor is None else decode_cursor(cursor, UUID, of=_LIST)
    wanted = TenantFilter(status=status, tier=tier, q=q)
    tenants = await service.list_tenants(session, wanted, after=after, limit=limit + 1)
    more = len(tenants) > limit
    items = [TenantOut.of(tenant) for tenant in tenants[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=_LIST) if more else None)


@router.get("/{tenant_id}")
async def get_tenant(
    tenant_id: TenantReference, response: Response, session: Transaction, principal: CurrentPrincipal
) -> TenantDetailOut:
    """A tenant, by its id or external id; operators see what is under way, and why something sticks."""
    tenant = await service.get_tenant(session, tenant_id)
    check_may_read(principal, tenant.id)
    runs = []
    if principal.acts_for_any_tenant:
        runs = [RunOut.of(run) for run in await list_troubled_runs(session, tenant.id, RUNS_SHOWN)]
    response.headers["ETag"] = etag(tenant.version)
    return TenantDetailOut.with_runs(tenant, runs)


@router.patch("/{tenant_id}", dependencies=[Platform])
async def update_tenant(
    tenant_id: TenantReference,
    body: TenantUpdate,
    response: Response,
    expected_version: ExpectedVersion,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> TenantOut:
    """Change name, tier or metadata."""
    changes = body.model_dump(exclude_unset=True)
    tenant = await service.update_tenant(
        session, tenant_id, changes, expected_version=expected_version, actor=actor, now=now
    )
    return shown(tenant, response)


@router.post("/{tenant_id}/suspend", dependencies=[Platform])
async def suspend_tenant(
    tenant_id: TenantReference,
    body: Suspension,
    response: Response,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> TenantOut:
    """Add a reason; what each one stops takes effect in every service within a second."""
    tenant = await service.suspend_tenant(session, tenant_id, body.reason, body.note, actor=actor, now=now)
    return shown(tenant, response)


@router.post("/{tenant_id}/reactivate", dependencies=[Platform])
async def reactivate_tenant(
    tenant_id: TenantReference,
    body: Suspension,
    response: Response,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> TenantOut:
    """Lift one reason; the others stay."""
    tenant = await service.reactivate_tenant(session, tenant_id, body.reason, body.note, actor=actor, now=now)
    return shown(tenant, response)


@router.post("/{tenant_id}/read-only", dependencies=[Platform])
async def set_read_only(
    tenant_id: TenantReference, body: ReadOnly, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> TenantOut:
    """Refuse or allow writes, whatever the tenant's state."""
    tenant = await service.set_read_only(session, tenant_id, body.reason, on=body.on, actor=actor, now=now)
    return shown(tenant, response)


@router.post("/{tenant_id}/legal-hold", dependencies=[Platform])
async def set_legal_hold(
    tenant_id: TenantReference, body: LegalHold, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> TenantOut:
    """Forbid or allow the purge of the tenant's data; nothing else is stopped."""
    tenant = await service.set_legal_hold(session, tenant_id, body.reason, on=body.on, actor=actor, now=now)
    return shown(tenant, response)


@router.post("/{tenant_id}/trial", dependencies=[Platform])
async def set_trial(
    tenant_id: TenantReference, body: Trial, response: Response, session: Transaction, actor: CurrentActor, now: Now
) -> TenantOut:
    """Begin a trial, change its end, or end it with a customer; a tenant whose trial expires is suspended."""
    tenant = await service.set_trial(session, tenant_id, body.ends_at, body.note, actor=actor, now=now)
    return shown(tenant, response)
