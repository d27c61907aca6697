"""Routes of subscriptions."""

from uuid import UUID

from fastapi import APIRouter, Depends, Response, status

from billing_service.dependencies import CurrentTenancy, Platform, Reader, Transaction
from billing_service.subscriptions import repository, service
from billing_service.subscriptions.schemas import CancelIn, SubscriptionIn, SubscriptionOut
from tenantry import NotFound, TenantMismatch, TenantNotFound, current_tenant_or_none
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, etag, idempotent

router = APIRouter(prefix="/v1/subscriptions", tags=["subscriptions"], route_class=IdempotentRoute)

_FIRST = UUID(int=0)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[Platform, Depends(idempotent(Transaction))],
)
async def create(
    body: SubscriptionIn, response: Response, session: Transaction, tenancy: CurrentTenancy
) -> SubscriptionOut:
    """Subscribe a tenant to a plan, from now on its own clock unless `start_at` says otherwise."""
    tenant = tenancy.directory.resolve(body.tenant_id)
    if tenant is None or tenancy.directory.is_purged(tenant.id):
        raise TenantNotFound("There is no such tenant.")
    selected = current_tenant_or_none()
    if selected is not None and selected.id != tenant.id:
        raise TenantMismatch("The request names two different tenants.")
    subscription = await service.subscribe(
        session,
        tenant,
        plan_code=body.plan_code,
        plan_version=body.plan_version,
        currency=body.currency,
        quantities=body.quantities,
        account=body.account,
        time_zone=body.time_zone,
        anchor=body.anchor,
        start_at=body.start_at,
        ends_at=body.ends_at,
        clock=tenancy.clock,
    )
    response.headers["Location"] = f"/v1/subscriptions/{subscription.id}"
    response.headers["ETag"] = etag(subscription.version)
    return SubscriptionOut.of(subscription)


@router.get("")
async def list_subscriptions(session: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[SubscriptionOut]:
    """Subscriptions of the tenant, or of all tenants for an operator who selects none; the oldest first."""
    after = _FIRST if cursor is None else decode_cursor(cursor, UUID, of="subscriptions")
    tenant = current_tenant_or_none()
    found = await repository.page(session, None if tenant is None else tenant.id, after, limit + 1)
    shown = found[:limit]
    following = encode_cursor(shown[-1].id, of="subscriptions") if len(found) > limit else None
    return Page(items=[SubscriptionOut.of(each) for each in shown], next_cursor=following)


@router.get("/{subscription_id}")
async def get_subscription(subscription_id: UUID, response: Response, session: Reader) -> SubscriptionOut:
    found = await repository.find(session, subscription_id)
    if found is None:
        raise NotFound
    response.headers["ETag"] = etag(found.version)
    return SubscriptionOut.of(found)


@router.post("/{subscription_id}/cancel", dependencies=[Platform])
async def cancel(subscription_id: UUID, body: CancelIn, session: Transaction) -> SubscriptionOut:
    """End a subscription at an instant, which must not lie in what has been billed."""
    return SubscriptionOut.of(await service.cancel(session, subscription_id, body.at))
