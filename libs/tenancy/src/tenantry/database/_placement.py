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


_HOME = Location(store=None, database=None, schema=POOL_SCHEMA)


def locate(service: str, tenant: Tenant, *, follow: bool) -> Location:
    """The location of ``tenant`` in ``service``. A service that does not follow placements keeps all in its pool."""
    placement = tenant.placement
    if not follow or placement is None:
        return _HOME
    match placement.isolation:
        case Isolation.POOL:
            return Location(placement.store, None, POOL_SCHEMA)
        case Isolation.SCHEMA:
            return Location(placement.store, None, tenant_schema(tenant.id))
        case Isolation.DATABASE:
            return Location(placement.store, tenant_database(service, tenant.id), POOL_SCHEMA)
