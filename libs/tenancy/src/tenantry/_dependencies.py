"""What routes ask for by annotation: the tenant, and sessions that are bound to it.

Sessions have the scope "function": FastAPI ends them before it sends the response, so a commit that fails is never a
2xx. A route that streams opens its own.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from tenantry._context import current_tenant
from tenantry._tenant import Tenant
from tenantry.database import ReadSession, SyncReadSession, SyncWriteSession, WriteSession

if TYPE_CHECKING:
    from tenantry._tenancy import Tenancy


async def _current_tenant() -> Tenant:
    return current_tenant()


async def _tenant_session(connection: HTTPConnection) -> AsyncIterator[WriteSession]:
    tenancy: Tenancy = connection.app.state.tenancy
    async with tenancy.databases.tenant_session(current_tenant()) as session:
        yield session


async def _tenant_read_session(connection: HTTPConnection) -> AsyncIterator[ReadSession]:
    tenancy: Tenancy = connection.app.state.tenancy
    async with tenancy.databases.tenant_session(current_tenant(), read_only=True) as session:
        yield session


# These are async as well: who waits for a connection must not wait in a thread.
async def _sync_tenant_session(connection: HTTPConnection) -> AsyncIterator[SyncReadSession]:
    tenancy: Tenancy = connection.app.state.tenancy
    async with tenancy.databases.thread_session(current_tenant()) as session:
        yield session


async def _sync_tenant_read_session(connection: HTTPConnection) -> AsyncIterator[SyncReadSession]:
    tenancy: Tenancy = connection.app.state.tenancy
    async with tenancy.databases.thread_session(current_tenant(), read_only=True) as session:
        yield session


CurrentTenant = Annotated[Tenant, Depends(_current_tenant)]
"""The tenant of the request; 400 `tenant-missing` where the caller names none."""

TenantSession = Annotated[WriteSession, Depends(_tenant_session, scope="function")]
"""One transaction of the current tenant: committed before the response, rolled back when the route raises."""

TenantReadSession = Annotated[ReadSession, Depends(_tenant_read_session, scope="function")]
"""As `TenantSession`, but the database refuses every write."""

SyncTenantSession = Annotated[SyncWriteSession, Depends(_sync_tenant_session, scope="function")]
"""`TenantSession` for routes of plain `def`, which FastAPI runs in threads. Needs the extra `tenantry[sync]`."""

SyncTenantReadSession = Annotated[SyncReadSession, Depends(_sync_tenant_read_session, scope="function")]
"""As `SyncTenantSession`, but the database refuses every write."""
