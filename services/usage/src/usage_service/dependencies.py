"""What routes ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Tenancy, Tenant, current_tenant_or_none
from tenantry.database import SystemSession
from tenantry.http import idempotent
from usage_service.archive.reading import ArchiveReader
from usage_service.publishing.ends import TopicEnds


def _tenancy(request: Request) -> Tenancy:
    tenancy: Tenancy = request.app.state.tenancy
    return tenancy


CurrentTenancy = Annotated[Tenancy, Depends(_tenancy)]


def _ends(request: Request) -> TopicEnds:
    ends: TopicEnds = request.app.state.ends
    return ends


CurrentEnds = Annotated[TopicEnds, Depends(_ends)]


def _archive(request: Request) -> ArchiveReader:
    archive: ArchiveReader = request.app.state.archive
    return archive


CurrentArchive = Annotated[ArchiveReader, Depends(_archive)]


async def _system_transaction(tenancy: CurrentTenancy) -> AsyncIterator[SystemSession]:
    async with tenancy.databases.system_session() as session:
        yield session


# Scope "function": the commit happens before the response.
SystemTransaction = Annotated[SystemSession, Depends(_system_transaction, scope="function")]


# Of routes whose router has the class `IdempotentRoute`.
Idempotent = Depends(idempotent(SystemTransaction))


async def _selected_tenant() -> Tenant | None:
    return current_tenant_or_none()


SelectedTenant = Annotated[Tenant | None, Depends(_selected_tenant)]
"""The tenant of the request; None for an operator or a service that named none."""


@asynccontextmanager
async def reading(tenancy: Tenancy, tenant: Tenant | None) -> AsyncIterator[AsyncSession]:
    """What the caller may see: a tenant's own rows, or all of them where an operator or service has selected none."""
    if tenant is None:
        async with tenancy.databases.system_session() as system:
            yield system
    else:
        async with tenancy.databases.tenant_session(tenant, read_only=True) as session:
            yield session
