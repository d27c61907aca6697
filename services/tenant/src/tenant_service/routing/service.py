"""Use cases of routing. The caller opens the transaction and commits it.

RoutingPinned           409   an operator has chosen: the usage service leaves the tenant alone
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import Actor, Deed
from tenant_service.domain.story import Told
from tenant_service.tenants import repository
from tenant_service.tenants.document import document
from tenant_service.tenants.service import change_tenant
from tenantry import Conflict, InvalidRequest, Tenant
from tenantry.events import USAGE_EVENTS, partitions_of


class RoutingPinned(Conflict):
    """Nobody but an operator changes the routing of a pinned tenant."""

    type = "routing-pinned"
    title = "The routing is pinned"


async def route_tenant(
    session: AsyncSession, reference: str, buckets: int, *, pinned: bool, by_operator: bool, actor: Actor, now: datetime
) -> Tenant:
    """Spread the tenant's events over so many keys; may be repeated, and writes nothing where nothing differs.

    Whoever is no operator neither pins nor changes what is pinned. Raises `NotFound`, `RoutingPinned`, and
    `InvalidRequest` for more buckets than the topic has partitions.
    """
    most = partitions_of(USAGE_EVENTS)
    if buckets > most:
        detail = f"at most {most}: the partitions of {USAGE_EVENTS}"
        raise InvalidRequest(detail, errors=[{"loc": ["body", "buckets"], "msg": detail}])
    row, clock = await repository.lock_tenant(session, reference)
    if (row.routing_buckets, row.routing_pinned) == (buckets, pinned):
        return document(row, clock)
    if row.routing_pinned and not by_operator:
        raise RoutingPinned("An operator has pinned it.")
    before = {"buckets": row.routing_buckets, "pinned": row.routing_pinned}
    if row.routing_buckets != buckets:
        row.routing_changed_at = now
    row.routing_buckets, row.routing_pinned = buckets, pinned
    after = {"buckets": buckets, "pinned": pinned}
    return await change_tenant(
        session,
        (row, clock),
        Told("routing_changed", {**after, "previous_buckets": before["buckets"]}),
        Deed("tenant.route", str(row.id), row.id, {"before": before, "after": after}),
        actor=actor,
        now=now,
    )
