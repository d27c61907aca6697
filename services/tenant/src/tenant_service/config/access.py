"""Who may read and write which layer."""

from typing import Annotated

from fastapi import Depends, Path
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.config.parties import Subject, Writer, subject_of
from tenant_service.config.places import Place
from tenant_service.config.schemas import LayerName, Namespace
from tenant_service.dependencies import (
    CurrentActor,
    CurrentRuntime,
    Now,
    TenantReference,
    Transaction,
    check_may_read,
)
from tenant_service.stores.repository import check_region
from tenant_service.tenants.repository import find_tenant
from tenant_service.tiers.repository import find_tier
from tenantry import CurrentPrincipal, PermissionDenied
from tenantry.config import Layer
from tenantry.identity import Principal, Scope

NamespacePath = Annotated[Namespace, Path()]


async def _writer(principal: CurrentPrincipal, runtime: CurrentRuntime, actor: CurrentActor, now: Now) -> Writer:
    is_operator = principal.acts_for_any_tenant and principal.has_any(Scope.PLATFORM)
    return Writer(actor, runtime.master_key, now, is_operator=is_operator)


CurrentWriter = Annotated[Writer, Depends(_writer)]


class Target:
    """A place that the caller may read or write; `subject` is the tenant of a tenant's layer."""

    def __init__(self, place: Place, subject: Subject | None = None) -> None:
        self.place = place
        self.subject = subject


def _check_operator(principal: Principal) -> None:
    if not principal.has_any(Scope.PLATFORM):
        raise PermissionDenied("The scope platform is needed.")


async def platform_layer(principal: CurrentPrincipal, namespace: NamespacePath) -> Target:
    """The platform's layer, for operators."""
    _check_operator(principal)
    return Target(Place(Layer.PLATFORM, "", namespace))


async def region_layer(
    principal: CurrentPrincipal, session: Transaction, name: Annotated[LayerName, Path()], namespace: NamespacePath
) -> Target:
    """A region's layer, for operators. Raises `NotFound` where no store is in the region."""
    _check_operator(principal)
    await check_region(session, name)
    return Target(Place(Layer.REGION, name, namespace))


async def tier_layer(
    principal: CurrentPrincipal, session: Transaction, name: Annotated[LayerName, Path()], namespace: NamespacePath
) -> Target:
    """A tier's layer, for operators. Raises `NotFound` where there is no such tier."""
    _check_operator(principal)
    await find_tier(session, name)
    return Target(Place(Layer.TIER, name, namespace))


async def read_tenant_layer(
    principal: CurrentPrincipal, session: Transaction, tenant_id: TenantReference, namespace: NamespacePath
) -> Target:
    """A tenant's layer, for operators, services and the tenant's administrators; to others there is no such tenant."""
    subject = await _subject(session, principal, tenant_id, Scope.TENANT_ADMIN, Scope.SERVICE, Scope.PLATFORM)
    return Target(subject.place(namespace), subject)


async def write_tenant_layer(
    principal: CurrentPrincipal, session: Transaction, tenant_id: TenantReference, namespace: NamespacePath
) -> Target:
    """A tenant's layer, for operators and the tenant's administrators."""
    subject = await _subject(session, principal, tenant_id, Scope.TENANT_ADMIN, Scope.PLATFORM)
    return Target(subject.place(namespace), subject)


async def read_branding(principal: CurrentPrincipal, session: Transaction, tenant_id: TenantReference) -> Subject:
    """A tenant whose looks are asked for."""
    return await _subject(session, principal, tenant_id, Scope.TENANT_READ, Scope.SERVICE, Scope.PLATFORM)


async def write_branding(principal: CurrentPrincipal, session: Transaction, tenant_id: TenantReference) -> Subject:
    """A tenant whose looks are changed."""
    return await _subject(session, principal, tenant_id, Scope.TENANT_ADMIN, Scope.PLATFORM)


async def secrets_of_tenant(principal: CurrentPrincipal, session: Transaction, tenant_id: TenantReference) -> Subject:
    """A tenant whose secrets a service asks for."""
    return await _subject(session, principal, tenant_id, Scope.SERVICE)


async def _subject(session: AsyncSession, principal: Principal, reference: str, *scopes: Scope) -> Subject:
    row, clock = await find_tenant(session, reference)
    check_may_read(principal, row.id)
    if not principal.has_any(*scopes):
        raise PermissionDenied(f"One of these scopes is needed: {', '.join(sorted(scopes))}.")
    return await subject_of(session, row, clock)
