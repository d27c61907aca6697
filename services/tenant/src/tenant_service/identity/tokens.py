"""`POST /oauth/token`: a secret or an API key against a short-lived token for one service."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.tokens import narrow_audience, narrow_scopes, token_claims
from tenant_service.identity.api_keys import authenticate_api_key
from tenant_service.identity.clients import authenticate_client, kind_of
from tenant_service.identity.signing_keys import Signer
from tenant_service.tenants.document import document
from tenant_service.tenants.repository import find_tenant
from tenantry import Operation, TenantSuspended, uuid7

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
) -> IssuedToken:
    """A token of the client. Raises `InvalidClient`, `InvalidTarget`, `InvalidScope`."""
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
    )
    return _issue(issuer, claims, now)


async def issue_for_api_key(
    session: AsyncSession, issuer: Issuer, *, api_key: str, audience: str | None, scope: str | None, now: datetime
) -> IssuedToken:
    """A token of the key's tenant that ends with the key at the latest.

    Raises `InvalidApiKey`, `InvalidTarget`, `InvalidScope`, and `TenantSuspended` where the tenant may not sign in.
    """
    key = await authenticate_api_key(session, api_key, now=now)
    tenant = document(*await find_tenant(session, str(key.tenant_id)))
    if tenant.blocks(Operation.LOGIN):
        raise TenantSuspended(f"The tenant is {tenant.status}")
    claims = token_claims(
        issuer=issuer.url,
        audience=narrow_audience(AUDIENCES, audience),
        subject=f"api-key:{key.id}",
        kind="user",
        scopes=narrow_scopes(key.scopes, scope),
        tenant_id=key.tenant_id,
        token_id=uuid7(),
        now=now,
        not_after=key.expires_at,
    )
    return _issue(issuer, claims, now)


def _issue(issuer: Issuer, claims: dict[str, str | int], now: datetime) -> IssuedToken:
    lifetime = int(claims["exp"]) - int(claims["iat"])
    return IssuedToken(issuer.signer.sign(claims, now), lifetime, str(claims["scope"]))
