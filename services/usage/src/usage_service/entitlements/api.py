"""Features, and what a tenant may use of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response

from tenantry import NotFound, Tenant, TenantNotFound
from tenantry.database import ReadSession, SystemSession
from tenantry.entitlements import Source
from tenantry.http import (
    Cursor,
    ExpectedVersion,
    IdempotentRoute,
    Limit,
    Page,
    decode_cursor,
    encode_cursor,
    etag,
    require_scope,
)
from tenantry.identity import Scope
from usage_service.dependencies import CurrentArchive, CurrentTenancy, Idempotent, SelectedTenant, SystemTransaction
from usage_service.entitlements.features import Feature, find_features
from usage_service.entitlements.given import InForce
from usage_service.entitlements.repository import look_into_pool
from usage_service.entitlements.schemas import (
    NO_NUL,
    AccessIn,
    EntitlementOut,
    FeatureIn,
    FeatureOut,
    GrantIn,
    GrantOut,
    QuotaIn,
    QuotaOut,
    ResetIn,
)
from usage_service.entitlements.service import (
    Entitlement,
    create_grant,
    delete_tenant_access,
    delete_tenant_quota,
    entitled_features,
    get_entitlements,
    get_quota,
    grants_of,
    put_feature,
    put_tenant_access,
    put_tenant_quota,
    reset_usage,
    void_tenant_grant,
)

router = APIRouter(prefix="/v1/features", tags=["entitlements"])
tenant_router = APIRouter(prefix="/v1/tenants/{tenant_id}", tags=["entitlements"], route_class=IdempotentRoute)

Slug = Annotated[str, Path(min_length=1, max_length=63, pattern=NO_NUL)]

_PLATFORM: Final = Depends(require_scope(Scope.PLATFORM))
_READ: Final = Depends(require_scope(Scope.TENANT_READ, Scope.PLATFORM, Scope.SERVICE))
# A service that sells may grant what was bought.
_WRITE: Final = Depends(require_scope(Scope.PLATFORM, Scope.SERVICE))
_NIL: Final = UUID(int=0)


async def _named_tenant(
    tenant_id: Annotated[str, Path(min_length=1, max_length=128)], tenancy: CurrentTenancy, selected: SelectedTenant
) -> Tenant:
    """The tenant in the path. A caller that has a tenant meets no other: to it they do not exist."""
    tenant = tenancy.directory.resolve(tenant_id)
    foreign = tenant is None or (selected is not None and selected.id != tenant.id)
    if tenant is None or foreign or tenancy.directory.is_purged(tenant.id):
        raise TenantNotFound("There is no such tenant.")
    return tenant


NamedTenant = Annotated[Tenant, Depends(_named_tenant)]


async def _now(tenant: NamedTenant, tenancy: CurrentTenancy) -> datetime:
    return tenant.now(tenancy.clock)


Now = Annotated[datetime, Depends(_now)]


async def _reader(tenant: NamedTenant, tenancy: CurrentTenancy) -> AsyncIterator[ReadSession]:
    async with tenancy.databases.tenant_session(tenant, read_only=True) as session:
        yield session


Reader = Annotated[ReadSession, Depends(_reader, scope="function")]
"""Bound to the tenant in the path, whoever asks."""


async def _writer(session: SystemTransaction) -> SystemSession:
    await look_into_pool(session)
    return session


Writer = Annotated[SystemSession, Depends(_writer)]
"""The system role's transaction: operators and services write, for any tenant, and the queue is the service's own."""


@router.put("/{slug}", dependencies=[_PLATFORM])
async def put(slug: Slug, body: FeatureIn, session: SystemTransaction) -> FeatureOut:
    """Name something that tenants can be entitled to. What it is stays; a meter is a feature without this."""
    return FeatureOut.of(await put_feature(session, Feature(slug, body.kind, body.meter)))


@router.get("")
async def list_features(session: SystemTransaction, limit: Limit = 50, cursor: Cursor = None) -> Page[FeatureOut]:
    """All features by name."""
    after = decode_cursor(cursor, str, of="features") if cursor else ""
    found = await find_features(session, after=after, limit=limit + 1)
    following = encode_cursor(found[limit - 1].slug, of="features") if len(found) > limit else None
    return Page(items=[FeatureOut.of(feature) for feature in found[:limit]], next_cursor=following)


@tenant_router.put("/quotas/{meter}", dependencies=[_WRITE])
async def put_quota(
    tenant: NamedTenant,
    meter: Slug,
    body: QuotaIn,
    now: Now,
    expected: ExpectedVersion,
    session: Writer,
    response: Response,
) -> QuotaOut:
    """Limit a tenant on a meter, or on a metered feature, for the period that runs and those after it."""
    stored = await put_tenant_quota(session, tenant.id, meter, body.terms, now, expected=expected)
    response.headers["ETag"] = etag(stored.version)
    return QuotaOut.of(meter, stored.quota, stored.version)


@tenant_router.get("/quotas/{meter}", dependencies=[_READ])
async def read_quota(tenant: NamedTenant, meter: Slug, session: Reader, response: Response) -> QuotaOut:
    stored = await get_quota(session, tenant.id, meter)
    response.headers["ETag"] = etag(stored.version)
    return QuotaOut.of(meter, stored.quota, stored.version)


@tenant_router.delete("/quotas/{meter}", status_code=204, dependencies=[_WRITE])
async def delete_quota(tenant: NamedTenant, meter: Slug, session: Writer) -> None:
    """Take a quota away, with its grants. What the tenant's plan or tier gives holds again."""
    await delete_tenant_quota(session, tenant.id, meter)


@tenant_router.put("/entitlements/{feature}", dependencies=[_WRITE])
async def put_entitlement(tenant: NamedTenant, feature: Slug, body: AccessIn, session: Writer) -> EntitlementOut:
    """Give a tenant a boolean or static feature, or take it away."""
    access = await put_tenant_access(session, tenant.id, feature, enabled=body.enabled, config=body.config)
    return EntitlementOut.of(tenant.id, Entitlement(feature, InForce(Source.OVERRIDE, access=access)))


@tenant_router.delete("/entitlements/{feature}", status_code=204, dependencies=[_WRITE])
async def delete_entitlement(tenant: NamedTenant, feature: Slug, session: Writer) -> None:
    """Take back what was put for a tenant. What its plan or tier says holds again."""
    await delete_tenant_access(session, tenant.id, feature)


@tenant_router.get("/entitlements/{feature}", dependencies=[_READ])
async def read_entitlement(
    tenant: NamedTenant, feature: Slug, now: Now, session: Reader, archive: CurrentArchive
) -> EntitlementOut:
    """What a tenant has of a feature now, by what is counted."""
    found = await get_entitlements(session, tenant.id, [feature], now, archive)
    if feature not in found:
        raise NotFound("The tenant has no such entitlement.")
    return EntitlementOut.of(tenant.id, found[feature])


@tenant_router.get("/entitlements", dependencies=[_READ])
async def list_entitlements(
    tenant: NamedTenant, now: Now, session: Reader, archive: CurrentArchive, limit: Limit = 50, cursor: Cursor = None
) -> Page[EntitlementOut]:
    """Everything that is said of a tenant, by name: by itself, its plan or its tier."""
    after = decode_cursor(cursor, str, of="entitlements") if cursor else ""
    found = await entitled_features(session, tenant.id, now, after=after, limit=limit + 1)
    values = await get_entitlements(session, tenant.id, found[:limit], now, archive)
    # What was taken away between the two statements is in the first one only.
    items = [EntitlementOut.of(tenant.id, values[each]) for each in found[:limit] if each in values]
    following = encode_cursor(found[limit - 1], of="entitlements") if len(found) > limit else None
    return Page(items=items, next_cursor=following)


@tenant_router.post("/entitlements/{feature}/reset", dependencies=[_WRITE, Idempotent])
async def reset(
    tenant: NamedTenant, feature: Slug, body: ResetIn, now: Now, session: Writer, archive: CurrentArchive
) -> EntitlementOut:
    """End the usage period of a quota and begin the next one: at the start of the hour that runs, or earlier."""
    await reset_usage(session, tenant.id, feature, body.at, now, retain_anchor=body.retain_anchor)
    found = await get_entitlements(session, tenant.id, [feature], now, archive)
    return EntitlementOut.of(tenant.id, found[feature])


@tenant_router.post("/entitlements/{feature}/grants", status_code=201, dependencies=[_WRITE, Idempotent])
async def grant(tenant: NamedTenant, feature: Slug, body: GrantIn, now: Now, session: Writer) -> GrantOut:
    """Grant an amount beside the limit, such as a top-up, from the start of its hour to the end of its last."""
    return GrantOut.of(await create_grant(session, tenant.id, feature, body.grant(now), now))


@tenant_router.get("/entitlements/{feature}/grants", dependencies=[_READ])
async def list_grants(
    tenant: NamedTenant, feature: Slug, now: Now, session: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Page[GrantOut]:
    """The grants of a quota, the oldest first."""
    after = decode_cursor(cursor, UUID, of="grants") if cursor else _NIL
    found = await grants_of(session, tenant.id, feature, now, after=after, limit=limit + 1)
    following = encode_cursor(found[limit - 1].id, of="grants") if len(found) > limit else None
    return Page(items=[GrantOut.of(each) for each in found[:limit]], next_cursor=following)


@tenant_router.post("/entitlements/{feature}/grants/{grant_id}/void", dependencies=[_WRITE, Idempotent])
async def void(tenant: NamedTenant, feature: Slug, grant_id: UUID, now: Now, session: Writer) -> GrantOut:
    """End a grant at the start of the hour that runs. May be repeated."""
    return GrantOut.of(await void_tenant_grant(session, tenant.id, feature, grant_id, now))
