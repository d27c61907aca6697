"""Makes the place where a tenant's documents live."""

from uuid import UUID

from tenantry import Isolation
from tenantry.database import create_tenant_database, migrate, tenant_schema

SERVICE = "app"


async def provision_tenant(provisioner_url: str, tenant_id: UUID, isolation: Isolation) -> None:
    """Bring the tenant's schema or database to the present version of the tables; a pool tenant has them already.

    May be repeated: each step finds what an earlier, perhaps killed, attempt has done. `provisioner_url` is of the one
    role that may create schemas and databases; its connections live as long as this call.
    """
    match isolation:
        case Isolation.POOL:
            return
        case Isolation.SCHEMA:
            await migrate(provisioner_url, SERVICE, schema=tenant_schema(tenant_id))
        case Isolation.DATABASE:
            await migrate(await create_tenant_database(provisioner_url, SERVICE, tenant_id), SERVICE)
