"""What routes ask for: transactions, and what the caller may do."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.settings import BillingSettings
from tenantry import CurrentPrincipal, NoTenant, PermissionDenied, Tenancy, current_tenant_or_none
from tenantry.http import require_scope
from tenantry.identity import Scope


async def _tenancy(request: Request) -> Tenancy:
    tenancy: Tenancy = request.app.state.tenancy
    return tenancy


CurrentTenancy = Annotated[Tenancy, Depends(_tenancy)]


async def _settings(request: Request) -> BillingSettings:
    settings: BillingSettings = request.app.state.settings
    return settings


CurrentSettings = Annotated[BillingSettings, Depends(_settings)]


async def _transaction(tenancy: CurrentTenancy) -> AsyncIterator[AsyncSession]:
    async with tenancy.databases.system_session() as session:
        yield session


# Scope "function": the commit happens before the response, so a commit that fails is never a 2xx.
Transaction = Annotated[AsyncSession, Depends(_transaction, scope="function")]
"""One transaction of the system role, for operators: it sees every tenant."""


async def _reader(tenancy: CurrentTenancy, principal: CurrentPrincipal) -> AsyncIterator[AsyncSession]:
    tenant = current_tenant_or_none()
    if tenant is not None:
        if not principal.has_any(Scope.TENANT_READ, Scope.PLATFORM, Scope.SERVICE):
            raise PermissionDenied("The credential may not read.")
        async with tenancy.databases.tenant_session(tenant, read_only=True) as session:
            yield session
    elif principal.has_any(Scope.PLATFORM, Scope.SERVICE):
        async with tenancy.databases.system_session() as session:
            yield session
    else:
        raise NoTenant


Reader = Annotated[AsyncSession, Depends(_reader, scope="function")]
"""What the caller may see: the rows of its tenant, or of the one that an operator selected, or of all tenants."""

Platform = Depends(require_scope(Scope.PLATFORM))
"""Routes of operators."""
