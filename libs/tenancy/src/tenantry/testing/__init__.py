"""A pytest plugin and helpers for testing services that are built on the library."""

# ruff: noqa: PLC0415 - pytest loads a plugin in every run; one that uses none of this must not pay for it

from typing import TYPE_CHECKING, Any

from tenantry.testing._plugin import (
    kafka_bootstrap,
    kafka_prefix,
    postgres_url,
    service_database,
    service_templates,
    tenant_a,
    tenant_b,
    tenant_factory,
)
from tenantry.testing._waiting import eventually

if TYPE_CHECKING:
    from tenantry.testing._databases import ServiceDatabase
    from tenantry.testing._routes import RouteOperation, route_operations
    from tenantry.testing._tenants import TenantFactory

__all__ = [
    "RouteOperation",
    "ServiceDatabase",
    "TenantFactory",
    "eventually",
    "kafka_bootstrap",
    "kafka_prefix",
    "postgres_url",
    "route_operations",
    "service_database",
    "service_templates",
    "tenant_a",
    "tenant_b",
    "tenant_factory",
]


def __getattr__(name: str) -> Any:
    if name == "ServiceDatabase":
        from tenantry.testing._databases import ServiceDatabase

        return ServiceDatabase
    if name == "TenantFactory":
        from tenantry.testing._tenants import TenantFactory

        return TenantFactory
    if name in {"RouteOperation", "route_operations"}:
        from tenantry.testing import _routes

        return getattr(_routes, name)
    raise AttributeError(name)
