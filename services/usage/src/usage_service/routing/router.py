"""Spreads hot tenants and brings quiet ones together again, and says when their records have one key once more.

What a tenant gets is the tenant service's to keep and to publish: the router asks for it there, by the service's own
credential. Nothing that it does, or leaves undone, makes a count wrong (`metering.spreading`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final, NoReturn, Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantry import TenancySettings, Tenant, TenantDirectory, Unavailable
from usage_service.domain.routing import RoutingPolicy, wanted_buckets
from usage_service.routing.client import tenant_service
from usage_service.routing.rates import WINDOW_SECONDS
from usage_service.routing.repository import (
    counted_until,
    drained_tenants,
    forget_gathered,
    forget_rates,
    hold,
    rates_since,
    settle,
    spread_tenants,
)

CHANGES = Counter("usage_routing_changes_total", "Tenants that the router has spread or gathered", ["direction"])
REFUSED = Counter("usage_routing_refused_total", "Changes of routing that the tenant service did not make")
SPREAD = Gauge("usage_spread_tenants", "Tenants whose events lie, or lay, under several keys", ["state"])

_LOOK_SECONDS: Final = 10.0
_GRACE: Final = timedelta(seconds=30)
"""How long records of the old key may come after the first one of a new key before that is worth a look of its own."""
_WINDOW: Final = timedelta(seconds=WINDOW_SECONDS)
_UNWRITTEN: Final = timedelta(seconds=10)
"""What was counted so lately the workers may not have written."""

log = structlog.get_logger(__name__)

Rates = Sequence[tuple[datetime, int]]


class Routing(Protocol):
    """Asks for the routing of a tenant."""

    async def route(self, tenant_id: UUID, buckets: int) -> int:
        """The status of the answer. Raises Unavailable where none came."""


class Router:
    """One of all processes decides at a time; whoever has a lock of the database."""

    def __init__(
        self,
        engine: AsyncEngine,
        directory: TenantDirectory,
        routing: Routing | None,
        policy: RoutingPolicy,
    ) -> None:
        """`engine` is the system role's. Without `routing` nobody is spread or gathered, and what was is settled."""
        self._engine = engine
        self._directory = directory
        self._routing = routing
        self._policy = policy

    async def run(self) -> NoReturn:
        """Looks every few seconds, until cancelled."""
        while True:
            try:
                await self.look()
            except (Unavailable, SQLAlchemyError, OSError) as error:
                log.warning("routing_not_looked_at", error=repr(error))
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Settles what is drained, and has the routing changed of tenants that need it."""
        async with self._engine.begin() as connection:
            if not await hold(connection):
                return
            for tenant_id in await drained_tenants(connection, _GRACE):
                tenant = self._directory.get(tenant_id)
                if tenant is not None:
                    await settle(self._engine, tenant_id, tenant.routing.buckets)
            await forget_gathered(self._engine)
            known = await spread_tenants(connection)
            SPREAD.labels("mixed").set(sum(row.mixed_since is not None for row in known))
            SPREAD.labels("settled").set(sum(row.mixed_since is None for row in known))
            until = await counted_until(connection)
            if until is None:
                return
            end = last_window(until)
            since = end - self._policy.quiet_for
            await forget_rates(connection, since - self._policy.hot_for)
            if self._routing is None:
                return
            rates = await rates_since(connection, since)
            for tenant_id in sorted({*rates, *(row.tenant_id for row in known)}):
                tenant = self._directory.get(tenant_id)
                if tenant is None or tenant.routing.pinned:
                    continue
                wanted = _wanted(tenant, rates.get(tenant_id, ()), since, end, self._policy)
                if wanted != tenant.routing.buckets:
                    await self._route(self._routing, tenant, wanted)

    async def _route(self, routing: Routing, tenant: Tenant, wanted: int) -> None:
        before = tenant.routing.buckets
        status = await routing.route(tenant.id, wanted)
        if status == HTTPStatus.OK:
            CHANGES.labels("spread" if wanted > before else "gathered").inc()
            log.info("tenant_routed", tenant_id=str(tenant.id), buckets=wanted, before=before)
        elif status != HTTPStatus.CONFLICT:  # an operator may have pinned it in the meantime
            REFUSED.inc()
            log.warning("tenant_not_routed", tenant_id=str(tenant.id), buckets=wanted, status=status)


async def route_tenants(engine: AsyncEngine, directory: TenantDirectory, policy: RoutingPolicy) -> NoReturn:
    """The router on the tenant service that the environment names, until cancelled."""
    async with tenant_service(TenancySettings()) as routing:
        await Router(engine, directory, routing if policy.hot_rate else None, policy).run()


def _wanted(tenant: Tenant, rates: Rates, since: datetime, end: datetime, policy: RoutingPolicy) -> int:
    by_window = {window: events // WINDOW_SECONDS for window, events in rates if window < end}
    lately = [by_window.get(end - n * _WINDOW, 0) for n in range(1, policy.hot_for // _WINDOW + 1)]
    changed_at = tenant.routing.changed_at
    quiet = list(by_window.values()) if changed_at is None or changed_at <= since else None
    return wanted_buckets(tenant.routing.buckets, lately, quiet, policy)


def last_window(until: datetime) -> datetime:
    """Where the last window ends of which everything is written, when everything is counted up to `until`."""
    written = until.astimezone(UTC) - _UNWRITTEN
    return datetime.fromtimestamp(written.timestamp() // WINDOW_SECONDS * WINDOW_SECONDS, UTC)
