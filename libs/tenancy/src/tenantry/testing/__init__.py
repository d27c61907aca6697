"""A pytest plugin, and sweeps that look for ways between the tenants of a product.

Needs the extra `tenantry[testing]`, and those that the product itself needs.
"""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.testing._plugin import (
    kafka_bootstrap,
    kafka_prefix,
    postgres_url,
    pytest_addoption,
    service_database,
    service_templates,
    tenant_a,
    tenant_b,
    tenant_factory,
)
from tenantry.testing._waiting import eventually

if TYPE_CHECKING:
    from tenantry.testing._cache_sweep import CachedCall, sweep_cache
    from tenantry.testing._catalogue_sweep import sweep_catalogue
    from tenantry.testing._databases import ServiceDatabase
    from tenantry.testing._job_sweep import JobQueue, sweep_jobs
    from tenantry.testing._message_sweep import Message, delivery_to, sweep_consumer
    from tenantry.testing._pool_sweep import TenantSessions, sweep_pool
    from tenantry.testing._report import Finding, SweepFailed, SweepReport
    from tenantry.testing._route_sweep import sweep_routes
    from tenantry.testing._routes import RouteOperation, route_operations
    from tenantry.testing._rows import rows_of
    from tenantry.testing._side import Example, Side
    from tenantry.testing._state import GivenState
    from tenantry.testing._tenants import TenantFactory

__all__ = [
    "CachedCall",
    "Example",
    "Finding",
    "GivenState",
    "JobQueue",
    "Message",
    "RouteOperation",
    "ServiceDatabase",
    "Side",
    "SweepFailed",
    "SweepReport",
    "TenantFactory",
    "TenantSessions",
    "delivery_to",
    "eventually",
    "kafka_bootstrap",
    "kafka_prefix",
    "postgres_url",
    "pytest_addoption",
    "route_operations",
    "rows_of",
    "service_database",
    "service_templates",
    "sweep_cache",
    "sweep_catalogue",
    "sweep_consumer",
    "sweep_jobs",
    "sweep_pool",
    "sweep_routes",
    "tenant_a",
    "tenant_b",
    "tenant_factory",
]

# pytest loads a plugin in every run: one that uses none of this must not pay for it.
__getattr__ = lazy_exports(
    __name__,
    {
        "_cache_sweep": ("CachedCall", "sweep_cache"),
        "_catalogue_sweep": ("sweep_catalogue",),
        "_databases": ("ServiceDatabase",),
        "_job_sweep": ("JobQueue", "sweep_jobs"),
        "_message_sweep": ("Message", "delivery_to", "sweep_consumer"),
        "_pool_sweep": ("TenantSessions", "sweep_pool"),
        "_report": ("Finding", "SweepFailed", "SweepReport"),
        "_route_sweep": ("sweep_routes",),
        "_routes": ("RouteOperation", "route_operations"),
        "_rows": ("rows_of",),
        "_side": ("Example", "Side"),
        "_state": ("GivenState",),
        "_tenants": ("TenantFactory",),
    },
)
