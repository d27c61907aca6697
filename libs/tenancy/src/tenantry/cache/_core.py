"""What the namespaces of one cache have in common: the store, and the loads that are going on in this process."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

from tenantry._context import current_tenant, current_tenant_or_none
from tenantry._errors import TenantAlreadyBound
from tenantry._tenant import Tenant
from tenantry.cache._store import CacheStore

FlightKey = tuple[UUID, str, str, str | None]
"""Tenant, namespace, key and epoch: who asks after a flush does not join a load from before it."""

# The loads that this task is inside of: one that needs its own result would wait for itself.
leading: Final[ContextVar[frozenset[FlightKey]]] = ContextVar("tenantry_cache_leading", default=frozenset())


class LeaderLeft(Exception):
    """Who was loading was cancelled; one of those who wait takes over."""


class Core:
    def __init__(self, store: CacheStore, patience: float, uniform: Callable[[], float]) -> None:
        self.store = store
        self.patience = patience
        self.uniform = uniform
        self.flights: dict[FlightKey, asyncio.Future[Any]] = {}

    async def flush(self, tenant: Tenant, namespace: str | None) -> None:
        self.forget(tenant.id, namespace)
        await self.store.flush(tenant.id, namespace)

    def forget(self, tenant_id: UUID, namespace: str | None, key: str | None = None) -> None:
        """Has nobody join these loads any more; those who wait already asked before."""
        for flight in [
            flight
            for flight in self.flights
            if flight[0] == tenant_id and namespace in {None, flight[1]} and key in {None, flight[2]}
        ]:
            del self.flights[flight]


def choose(tenant: Tenant | None) -> Tenant:
    """The tenant of a call. Raises `NoTenant`, and `TenantAlreadyBound` in the scope of another."""
    if tenant is None:
        return current_tenant()
    current = current_tenant_or_none()
    if current is not None and current.id != tenant.id:
        raise TenantAlreadyBound("values of one tenant were asked for in the scope of another")
    return tenant
