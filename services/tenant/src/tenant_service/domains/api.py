"""Routes of domains."""

from collections.abc import Collection
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path

from tenant_service.dependencies import (
    AdministeredTenant,
    CurrentActor,
    CurrentRuntime,
    Idempotent,
    Now,
    TenantReference,
    Transaction,
    check_may_administer,
)
from tenant_service.domain.domain_claims import challenge_name
from tenant_service.domain.host_names import check_claimable, normalise_host_name
from tenant_service.domain.lifecycle import check_not_gone
from tenant_service.domains import repository, service
from tenant_service.domains.schemas import DomainCreate, DomainOut
from tenant_service.domains.service import DomainUnproven
from tenant_service.tenants.repository import find_tenant
from tenantry import CurrentPrincipal, InvalidRequest, NotFound
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor

router = APIRouter(prefix="/v1/tenants/{tenant_id}/domains", tags=["domains"], route_class=IdempotentRoute)

DomainName = Annotated[str, Path(min_length=1, max_length=300, description="The domain, in any spelling.")]

_LIST = "domains"


def _claimable(domain: str, base_domains: Collection[str]) -> str:
    try:
        return check_claimable(domain, base_domains)
    except ValueError as error:
        raise InvalidRequest(str(error), errors=[{"loc": ["body", "domain"], "msg": str(error)}]) from None


def _named(domain: str) -> str:
    try:
        return normalise_host_name(domain)
    except ValueError:
        raise NotFound from None


@router.post("", status_code=201, dependencies=[Idempotent])
async def claim_domain(
    tenant: AdministeredTenant,
    body: DomainCreate,
    session: Transaction,
    runtime: CurrentRuntime,
    actor: CurrentActor,
    now: Now,
) -> DomainOut:
    """Claim a domain. The answer holds the TXT record that proves the claim."""
    domain = _claimable(body.domain, runtime.settings.base_domains)
    return DomainOut.of(await service.claim_domain(session, tenant, domain, actor=actor, now=now))


@router.get("")
async def list_domains(
    tenant: AdministeredTenant, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[DomainOut]:
    """The tenant's domains and claims in the order in which they were made."""
    after = None if cursor is None else decode_cursor(cursor, UUID, of=_LIST)
    rows = await repository.list_claims(session, tenant.id, after=after, limit=limit + 1)
    items = [DomainOut.of(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of=_LIST) if len(rows) > limit else None)


@router.get("/{domain}")
async def get_domain(tenant: AdministeredTenant, domain: DomainName, session: Transaction) -> DomainOut:
    """One domain or claim."""
    return DomainOut.of(await repository.find_claim(session, tenant.id, _named(domain)))


@router.post("/{domain}/verify")
async def verify_domain(
    tenant_id: TenantReference,
    domain: DomainName,
    runtime: CurrentRuntime,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> DomainOut:
    """Look for the TXT record now. Every service knows the tenant by the domain within a second."""
    name = _named(domain)
    async with runtime.transactions.begin() as session:
        tenant, _ = await find_tenant(session, tenant_id)
        check_may_administer(principal, tenant.id)
        check_not_gone(tenant.status)
        await repository.find_claim(session, tenant.id, name)
    # Name servers may take seconds, for which no transaction is held open.
    records = list(await runtime.resolver.txt(challenge_name(name)))
    async with runtime.transactions.begin() as session:
        row, proven = await service.settle_verification(
            session,
            tenant.id,
            name,
            records=records,
            policy=runtime.settings.domain_policy(),
            actor=actor,
            now=now,
        )
        answer = DomainOut.of(row)
    if not proven:
        found = f"{len(records)} other TXT records were found" if records else "no TXT record was found"
        raise DomainUnproven(f"At {answer.challenge.name}, {found}")
    return answer


@router.delete("/{domain}", status_code=204)
async def release_domain(
    tenant: AdministeredTenant,
    domain: DomainName,
    session: Transaction,
    runtime: CurrentRuntime,
    actor: CurrentActor,
    now: Now,
) -> None:
    """Give the domain up. For the time of the quarantine nobody else can claim it."""
    policy = runtime.settings.domain_policy()
    await service.release_domain(session, tenant.id, _named(domain), policy=policy, actor=actor, now=now)
