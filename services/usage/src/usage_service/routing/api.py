"""GET /v1/routing: which tenants are loud, and over how many keys their events are spread."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from tenantry import Routing, Tenant
from tenantry.http import require_scope
from tenantry.identity import Scope
from usage_service.dependencies import CurrentTenancy, SystemTransaction
from usage_service.routing.repository import SpreadRow, counted_until, loudest, spread_tenants
from usage_service.routing.router import last_window

router = APIRouter(prefix="/v1/routing", tags=["routing"], dependencies=[Depends(require_scope(Scope.PLATFORM))])

_MEASURED = timedelta(minutes=1)


class RoutedTenant(BaseModel):
    """`events_per_second` is sampled over the minute before what is counted.

    Keys are `mixed` while records of another number of buckets may still come, which costs speed; events up to
    `mixed_until` are then compared with those of all keys, which costs less.
    """

    tenant_id: UUID
    slug: str | None
    buckets: int
    pinned: bool
    changed_at: datetime | None
    events_per_second: int
    keys: Literal["one", "mixed", "settled"]
    mixed_since: datetime | None
    mixed_until: date | None


class RoutingList(BaseModel):
    items: list[RoutedTenant]


@router.get("")
async def list_routing(
    tenancy: CurrentTenancy, session: SystemTransaction, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> RoutingList:
    """The loudest tenants first, then all others that are spread, or were and are not forgotten."""
    connection = await session.connection()
    until = await counted_until(connection)
    rates: dict[UUID, int] = {}
    if until is not None:
        end = last_window(until)
        rates = await loudest(connection, end - _MEASURED, end, limit)
    known = {row.tenant_id: row for row in await spread_tenants(connection)}
    items = []
    for tenant_id in dict.fromkeys((*rates, *known)):
        tenant = tenancy.directory.get(tenant_id)
        items.append(_shown(tenant_id, tenant, rates.get(tenant_id, 0), known.get(tenant_id)))
    return RoutingList(items=items)


def _shown(tenant_id: UUID, tenant: Tenant | None, events: int, known: SpreadRow | None) -> RoutedTenant:
    routing = Routing() if tenant is None else tenant.routing
    keys: Literal["one", "mixed", "settled"] = "one"
    if known is not None:
        keys = "settled" if known.mixed_since is None else "mixed"
    return RoutedTenant(
        tenant_id=tenant_id,
        slug=None if tenant is None else tenant.slug,
        buckets=routing.buckets,
        pinned=routing.pinned,
        changed_at=routing.changed_at,
        events_per_second=events // int(_MEASURED.total_seconds()),
        keys=keys,
        mixed_since=None if known is None else known.mixed_since,
        mixed_until=None if known is None else known.mixed_until,
    )
