"""Which URL and which schema a session of a tenant needs: the same answer for the async and the sync databases."""

from dataclasses import dataclass

from tenantry._admission import check_residency
from tenantry._context import current_tenant, current_tenant_or_none
from tenantry._errors import TenantAlreadyBound
from tenantry._tenant import Tenant
from tenantry.database._binding import Binding
from tenantry.database._errors import MissingUrl, UnknownStore
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
        """Raises ResidencyViolation for a tenant that is pinned to another region than the service's."""
        check_residency(tenant, self.settings.region)
        return locate(self.service, tenant, follow=self.follow, pool=self.settings.pool_schema)

    def own_database_url(self, location: Location) -> str | None:
        """The URL of the tenant's own database, None where it shares the store's. Raises UnknownStore."""
        if location.database is None:
            return None
        return with_database(self.store_url(location.store), location.database)

    def store_url(self, store: str | None) -> str:
        """The URL of the service role in a store. Raises UnknownStore for one that this process does not serve."""
        url = self.settings.at(store).database_url
        if url is None:
            raise UnknownStore(f"This service has no database_url of store {store}.")
        return url

    @property
    def system_url(self) -> str:
        """The URL of the system role. Raises MissingUrl without it."""
        return self.system_url_of(None)

    def system_url_of(self, store: str | None) -> str:
        """The URL of the system role in a store. Raises UnknownStore, and MissingUrl where it has none."""
        url = self.settings.at(store).system_database_url
        if url is None:
            msg = (
                f"{self.service.upper()}_SYSTEM_DATABASE_URL is not set, or not in store {store or self.settings.store}"
            )
            raise MissingUrl(msg)
        return url

    @property
    def served(self) -> tuple[str | None, ...]:
        """The stores whose tenants this process serves; None is the service's own."""
        return (None, *(name for name, urls in self.settings.stores.items() if urls.database_url is not None))

    @property
    def overseen(self) -> tuple[str | None, ...]:
        """The stores in which this process has the system role; None is the service's own."""
        own = () if self.settings.system_database_url is None else (None,)
        return (*own, *(name for name, urls in self.settings.stores.items() if urls.system_database_url is not None))

    @property
    def unseen(self) -> tuple[str, ...]:
        """The other stores in which it has not."""
        return tuple(name for name, urls in self.settings.stores.items() if urls.system_database_url is None)
