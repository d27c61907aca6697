"""Where the rows of a tenant are: which server, which database, which schema."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from tenantry.database._names import POOL_SCHEMA, tenant_database, tenant_schema


class PlacementLike(Protocol):
    @property
    def store(self) -> str: ...
    @property
    def isolation(self) -> str: ...


class TenantLike(Protocol):
    """What this package needs of a :class:`tenantry.Tenant`."""

    @property
    def id(self) -> UUID: ...
    @property
    def placement(self) -> PlacementLike | None: ...


@dataclass(frozen=True, slots=True)
class Location:
    """``database`` is None for the service's own database of the store, ``store`` None for the service's own store."""

    store: str | None
    database: str | None
    schema: str


HOME = Location(store=None, database=None, schema=POOL_SCHEMA)


def locate(service: str, tenant: TenantLike, *, follow: bool) -> Location:
    """The location of ``tenant`` in ``service``. A service that does not follow placements keeps all in its pool."""
    placement = tenant.placement
    if not follow or placement is None:
        return HOME
    match str(placement.isolation):
        case "pool":
            return Location(placement.store, None, POOL_SCHEMA)
        case "schema":
            return Location(placement.store, None, tenant_schema(tenant.id))
        case "database":
            return Location(placement.store, tenant_database(service, tenant.id), POOL_SCHEMA)
        case unknown:
            msg = f"unknown isolation {unknown!r}"
            raise ValueError(msg)
