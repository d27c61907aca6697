"""Routes of `bill_from`."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from billing_service.bill_from import repository, service
from billing_service.dependencies import CurrentTenancy, Platform, Transaction
from billing_service.domain.money import plain
from billing_service.domain.texts import Instant
from tenantry import Tenancy, Tenant, TenantMismatch, TenantNotFound, current_tenant_or_none
from tenantry.http import Cursor, Limit, Page, decode_cursor, encode_cursor

router = APIRouter(prefix="/v1", tags=["bill from"])

_FIRST = UUID(int=0)
_UNBILLED = "unbilled usage"


class BillFromIn(BaseModel):
    """Null takes back what was stated."""

    model_config = ConfigDict(extra="forbid")

    bill_from: Instant | None = Field(description="A whole hour in UTC.")


class BillFromOut(BaseModel):
    """`bill_from` is what was stated; `effective` is that, or the beginning of the tenant's first subscription."""

    tenant_id: UUID
    bill_from: datetime | None
    effective: datetime | None


class UnbilledUsage(BaseModel):
    """Usage of a tenant that no subscription covers: behind its `bill_from`, or where it has none stated."""

    tenant_id: UUID
    reason: Literal["after_bill_from", "bill_from_unset"]
    bill_from: datetime | None
    first_hour: datetime
    last_hour: datetime
    events: str
    meters: list[str]


@router.get("/tenants/{tenant_id}/bill-from", dependencies=[Platform])
async def get_bill_from(tenant_id: str, session: Transaction, tenancy: CurrentTenancy) -> BillFromOut:
    """From when the tenant's usage is billed."""
    tenant = _find(tenancy, tenant_id)
    stated, effective = await service.get_bill_from(session, tenant.id)
    return BillFromOut(tenant_id=tenant.id, bill_from=stated, effective=effective)


@router.put("/tenants/{tenant_id}/bill-from", dependencies=[Platform])
async def put_bill_from(tenant_id: str, body: BillFromIn, session: Transaction, tenancy: CurrentTenancy) -> BillFromOut:
    """State from when the tenant's usage is billed. Usage before it never is, whenever it comes in."""
    tenant = _find(tenancy, tenant_id)
    effective = await service.put_bill_from(session, tenant.id, body.bill_from)
    return BillFromOut(tenant_id=tenant.id, bill_from=body.bill_from, effective=effective)


@router.get("/unbilled-usage", dependencies=[Platform])
async def list_unbilled_usage(session: Transaction, limit: Limit = 50, cursor: Cursor = None) -> Page[UnbilledUsage]:
    """Tenants whose usage nobody bills, though nobody said that it should not be."""
    after = _FIRST if cursor is None else decode_cursor(cursor, UUID, of=_UNBILLED)
    found = await repository.unbilled(session, after, limit + 1)
    return Page(
        items=[
            UnbilledUsage(
                tenant_id=row.tenant_id,
                reason="bill_from_unset" if row.bill_from is None else "after_bill_from",
                bill_from=row.bill_from,
                first_hour=row.first,
                last_hour=row.last,
                events=plain(row.events),
                meters=row.meters,
            )
            for row in found[:limit]
        ],
        next_cursor=encode_cursor(found[limit - 1].tenant_id, of=_UNBILLED) if len(found) > limit else None,
    )


def _find(tenancy: Tenancy, reference: str) -> Tenant:
    tenant = tenancy.directory.resolve(reference)
    if tenant is None or tenancy.directory.is_purged(tenant.id):
        raise TenantNotFound("There is no such tenant.")
    selected = current_tenant_or_none()
    if selected is not None and selected.id != tenant.id:
        raise TenantMismatch("The request names two different tenants.")
    return tenant
