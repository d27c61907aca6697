"""`POST /oauth/token`: a credential against a short-lived token for one service.

A token that is exchanged for an API key, a session or a grant of support access names it, and ends with it everywhere.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.tokens import InvalidTarget, narrow_audience, narrow_scopes, token_claims
from tenant_service.identity.api_keys import authenticate_api_key, note_use
from tenant_service.identity.clients import authenticate_client, kind_of
from tenant_service.identity.signing_keys import Signer
from tenant_service.members.repository import find_joined_tenant
from tenant_service.sessions.members import session_in
from tenant_service.support.service import live_grant
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import find_tenant
from tenantry import NotFound, Operation, TenantSuspended, admit, uuid7

AUDIENCES = ("app", "billing", "tenant", "usage")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs tokens, and under which name."""

    url: str
    signer: Signer


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, how many seconds it lives, and what it allows."""

    access_token: str
    expires_in: int
    scope: str


async def issue_for_client(
    session: AsyncSession,
    issuer: Issuer,
    *,
    client_id: str,
    client_secret: str,
    audience: str | None,
    scope: str | None,
    now: datetime,
    confirmation: str | None = None,
) -> IssuedToken:
    """A token of the client, which names the key `confirmation` where one is given.

    Raises `InvalidClient`, `InvalidTarget`, `InvalidScope`.
    """
    client = await authenticate_client(session, client_id, client_secret)
    claims = token_claims(
        issuer=issuer.url,
        audience=narrow_audience(client.audiences, audience),
        subject=client.client_id,
        kind=kind_of(client),
        scopes=narrow_scopes(client.scopes, scope),
        tenant_id=None,
        token_id=uuid7(),
        now=now,
        confirmation=confirmation,
    )
    return _issue(issuer, claims, now)


async def issue_for_api_key(
    session: AsyncSession, issuer: Issuer, *, api_key: str, audience: str | None, scope: str | None, now: datetime
) -> IssuedToken:
    """A token of the key's tenant that ends with the key at the latest.

    Raises `InvalidApiKey`, `InvalidTarget`, `InvalidScope`, and `TenantSuspended` where the tenant may not sign in.
    """
    key = await authenticate_api_key(session, api_key, now=now)
    await note_use(session, {key.id: now})
    tenant = document(*await find_tenant(session, str(key.tenant_id)))
    if tenant.blocks(Operation.LOGIN):
        raise TenantSuspended(f"The tenant is {tenant.status}")
    claims = token_claims(
        issuer=issuer.url,
        audience=narrow_audience(AUDIENCES, audience),
        subject=f"api-key:{key.id}",
        kind="api_key",
        scopes=narrow_scopes(key.scopes, scope),
        tenant_id=key.tenant_id,
        token_id=uuid7(),
        now=now,
        credential_id=key.id,
        not_after=key.expires_at,
    )
    return _issue(issuer, claims, now)


async def issue_for_session(
    session: AsyncSession,
    issuer: Issuer,
    *,
    session_id: UUID,
    tenant: str,
    audience: str | None,
    scope: str | None,
    request_id: str | None,
    now: datetime,
) -> IssuedToken:
    """A token of the signed-in person for one tenant that they are a member of; it ends with the session.

    Raises `InvalidTarget` for any other tenant, known or not, `SessionOver`, `InvalidScope`, and `TenantSuspended` or
    `TenantNotActive` where the tenant's people may not sign in.
    """
    not_a_member = InvalidTarget("The person is not a member of this tenant")
    try:
        joined = await find_joined_tenant(session, session_id, tenant)
    except NotFound:
        raise not_a_member from None
    row, clock = await find_tenant(session, str(joined))
    live = await session_in(session, session_id, row.id, request_id=request_id, now=now)
    if live is None:
        raise not_a_member
    admit(document(row, clock), Operation.LOGIN)
    claims = token_claims(
        issuer=issuer.url,
        audience=narrow_audience(AUDIENCES, audience),
        subject=live.subject,
        kind="user",
        scopes=narrow_scopes(live.scopes, scope),
        tenant_id=row.id,
        token_id=uuid7(),
        now=now,
        credential_id=live.id,
        not_after=live.expires_at,
    )
    return _issue(issuer, claims, now)


async def issue_for_support(
    session: AsyncSession,
    issuer: Issuer,
    *,
    grant_id: UUID,
    operator: str,
    audience: str | None,
    scope: str | None,
    now: datetime,
) -> IssuedToken:
    """A token for the grant's tenant with the operator as its actor; it ends with the grant.

    Raises `SupportEnded` for a grant that is over, unknown or another operator's, `InvalidTarget`, `InvalidScope`.
    """
    grant = await live_grant(session, grant_id, operator=operator, now=now)
    claims = token_claims(
        issuer=issuer.url,
        audience=narrow_audience(AUDIENCES, audience),
        subject=f"support:{grant.id}",
        kind="support",
        scopes=narrow_scopes(grant.scopes, scope),
        tenant_id=grant.tenant_id,
        token_id=uuid7(),
        now=now,
        credential_id=grant.id,
        not_after=grant.expires_at,
        actor=operator,
    )
    return _issue(issuer, claims, now)


def _issue(issuer: Issuer, claims: dict[str, Any], now: datetime) -> IssuedToken:
    lifetime = int(claims["exp"]) - int(claims["iat"])
    return IssuedToken(issuer.signer.sign(claims, now), lifetime, str(claims["scope"]))
