"""Where the rows of a tenant are: which store, which database, which schema."""

from dataclasses import dataclass

from tenantry._tenant import Isolation, Tenant
from tenantry.database._names import POOL_SCHEMA, tenant_database, tenant_schema


@dataclass(frozen=True, slots=True)
class Location:
    """``store`` and ``database`` are None for the service's own."""

    store: str | None
    database: str | None
    schema: str


def locate(service: str, tenant: Tenant, *, follow: bool, pool: str = POOL_SCHEMA) -> Location:
    """The location of ``tenant`` in ``service``. A service that does not follow placements keeps all in its pool.

    ``pool`` is the schema of the tables that tenants share.
    """
    placement = tenant.placement
    if not follow or placement is None:
        return Location(store=None, database=None, schema=pool)
    match placement.isolation:
        case Isolation.POOL:
            return Location(placement.store, None, pool)
        case Isolation.SCHEMA:
            return Location(placement.store, None, tenant_schema(tenant.id))
        case Isolation.DATABASE:
            return Location(placement.store, tenant_database(service, tenant.id), pool)
