"""What routes ask for: the transaction, the time, who calls, and what they may do."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.audit import Actor
from tenant_service.domain.lifecycle import check_not_gone
from tenant_service.models import TenantRow
from tenant_service.runtime import Runtime
from tenant_service.tenants.repository import find_tenant, hold_tenant
from tenantry import Conflict, CurrentPrincipal, NotFound, PermissionDenied, current_request_id
from tenantry.http import current_principal, idempotent, require_scope
from tenantry.identity import Principal, PrincipalKind, Scope

USER_AGENT_MAX_LENGTH = 200


class IdentityExternal(Conflict):
    """`TENANT_IDENTITY=external`."""

    type = "identity-external"
    title = "People are not managed here"


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


CurrentRuntime = Annotated[Runtime, Depends(_runtime)]


async def _transaction(runtime: CurrentRuntime) -> AsyncIterator[AsyncSession]:
    async with runtime.transactions.begin() as session:
        yield session


# Scope "function": the commit happens before the response, so a commit that fails is never a 2xx.
Transaction = Annotated[AsyncSession, Depends(_transaction, scope="function")]


async def _now(runtime: CurrentRuntime) -> datetime:
    return runtime.clock.now()


Now = Annotated[datetime, Depends(_now)]


async def _actor(request: Request, principal: CurrentPrincipal) -> Actor:
    return Actor(
        principal.subject,
        principal.kind,
        principal.credential_id,
        current_request_id(),
        impersonator=principal.actor,
        context=_whence(request),
    )


def _whence(request: Request) -> dict[str, str]:
    """Where a request came from, as far as it can be told without trusting it."""
    context = {} if request.client is None else {"address": request.client.host}
    agent = request.headers.get("User-Agent", "")[:USER_AGENT_MAX_LENGTH]
    # A header is latin-1 to the server; what is not printable text has no place in a trail.
    return context | {"user_agent": agent} if agent.isprintable() and agent else context


CurrentActor = Annotated[Actor, Depends(_actor)]

# Routes of operators.
Platform = Depends(require_scope(Scope.PLATFORM))

# Routes whose router has the class `IdempotentRoute`; the second is for answers that hold a secret.
Idempotent = Depends(idempotent(Transaction))
IdempotentSecret = Depends(idempotent(Transaction, secret=True))

TenantReference = Annotated[str, Path(min_length=1, max_length=128, description="The tenant's id or external id.")]


def check_may_read(principal: Principal, tenant_id: UUID) -> None:
    """A tenant's credential reads its own tenant; to it, every other one does not exist. Raises `NotFound`."""
    if principal.tenant_id != tenant_id and not principal.acts_for_any_tenant:
        raise NotFound


def check_may_administer(principal: Principal, tenant_id: UUID) -> None:
    """Operators administer every tenant, a tenant's administrators their own; to those, no other one exists.

    Raises `NotFound`, `PermissionDenied`. Support access never administers: it could make itself another way in.
    """
    if principal.acts_for_any_tenant:
        allowed = principal.has_any(Scope.PLATFORM)
    elif principal.tenant_id == tenant_id:
        allowed = principal.has_any(Scope.TENANT_ADMIN) and principal.kind is not PrincipalKind.SUPPORT
    else:
        raise NotFound
    if not allowed:
        raise PermissionDenied("An operator, or an administrator of the tenant, may do this.")


# What a tenant that is gone still takes, as its lifecycle says, and what looks for itself: a run is locked before its
# tenant, and name servers are asked without a transaction.
LOOKS_FOR_ITSELF = frozenset(
    f"/v1/tenants/{{tenant_id}}/{operation}"
    for operation in (
        "cancel-offboarding",
        "domains/{domain}/verify",
        "legal-hold",
        "purge",
        "purge-again",
        "runs/{run_id}/cancel",
        "runs/{run_id}/retry",
    )
)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


async def _refuse_writes_to_the_gone(request: Request, session: Transaction) -> None:
    """Raises `TenantGone` for a write below the address of a tenant that is gone; any other is held until the commit.

    So a tenant does not go between the look and the write, and the writes of one tenant come one after the other. To
    whoever may not know of the tenant, nothing is said: the route refuses them.
    """
    reference = request.path_params.get("tenant_id")
    if reference is None or request.method in _READING or request.scope["route"].path in LOOKS_FOR_ITSELF:
        return
    principal = await current_principal(request)
    tenant = await hold_tenant(session, reference, only=None if principal.acts_for_any_tenant else principal.tenant_id)
    if tenant is not None:
        check_not_gone(tenant.status)


# Of every router of the application, so that no route has to remember it.
RefuseWritesToTheGone = Depends(_refuse_writes_to_the_gone, scope="function")


async def _administered(tenant_id: TenantReference, session: Transaction, principal: CurrentPrincipal) -> TenantRow:
    tenant, _ = await find_tenant(session, tenant_id)
    check_may_administer(principal, tenant.id)
    return tenant


# The tenant in the path, where the caller may administer it.
AdministeredTenant = Annotated[TenantRow, Depends(_administered, scope="function")]


async def _builtin(runtime: CurrentRuntime) -> None:
    if runtime.settings.identity != "builtin":
        raise IdentityExternal("People, roles and invitations are kept by the identity provider of this installation")


# Routes of people, which an identity provider of the company's own takes over.
BuiltinIdentity = Depends(_builtin)
