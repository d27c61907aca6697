"""Which URL and which schema a session of a tenant needs: the same answer for the async and the sync databases."""

from dataclasses import dataclass

from tenantry._context import current_tenant, current_tenant_or_none
from tenantry._errors import TenantAlreadyBound
from tenantry._tenant import Tenant
from tenantry.database._binding import Binding
from tenantry.database._errors import UnknownStore
from tenantry.database._placement import Location, locate
from tenantry.database._settings import DatabaseSettings
from tenantry.database._tenant_column import TENANT_ID, TenantColumn
from tenantry.database._url import with_database


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the tenants of ``service`` are, and what their transactions are bound to."""

    service: str
    settings: DatabaseSettings
    follow: bool = True
    column: TenantColumn = TENANT_ID

    def choose(self, tenant: Tenant | None) -> Tenant:
        """``tenant``, or the current one. Raises NoTenant, and TenantAlreadyBound in the scope of another tenant."""
        chosen = tenant or current_tenant()
        current = current_tenant_or_none()
        if current is not None and current.id != chosen.id:
            raise TenantAlreadyBound("a session of one tenant was asked for in the scope of another")
        return chosen

    def binding(self, tenant: Tenant, *, read_only: bool) -> Binding:
        """Raises UnusableTenantKey."""
        return Binding(tenant.id, self.locate(tenant).schema, read_only, self.column, self.column.key_of(tenant))

    def locate(self, tenant: Tenant) -> Location:
        return locate(self.service, tenant, follow=self.follow, pool=self.settings.pool_schema)

    def own_database_url(self, location: Location) -> str | None:
        """The URL of the tenant's own database, None where it shares the store's. Raises UnknownStore."""
        if location.database is None:
            return None
        return with_database(self.store_url(location.store), location.database)

    def store_url(self, store: str | None) -> str:
        """Raises UnknownStore for a store that this process does not serve."""
        # A deployment of one store needs no list: whatever the store is called, it is the service's own.
        if store is None or not self.settings.stores:
            return self.settings.database_url
        try:
            return self.settings.stores[store]
        except KeyError:
            msg = f"{self.service.upper()}_STORES has no store {store!r}"
            raise UnknownStore(msg) from None

    @property
    def system_url(self) -> str:
        """The URL of the system role. Raises UnknownStore without it."""
        if self.settings.system_database_url is None:
            msg = f"{self.service.upper()}_SYSTEM_DATABASE_URL is not set"
            raise UnknownStore(msg)
        return self.settings.system_database_url
