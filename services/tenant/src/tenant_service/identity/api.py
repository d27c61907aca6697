"""Routes of tokens and keys."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.dependencies import (
    AdministeredTenant,
    CurrentActor,
    CurrentRuntime,
    Idempotent,
    IdempotentSecret,
    Now,
    Platform,
    Transaction,
)
from tenant_service.domain.tokens import KNOWN_SCOPES
from tenant_service.identity import api_keys
from tenant_service.identity.callers import operator_of, read_grant_id, session_of
from tenant_service.identity.schemas import (
    ACCESS_TOKEN,
    API_KEY_GRANT,
    EXCHANGE_GRANT,
    SESSION_TOKEN,
    SUPPORT_TOKEN,
    ApiKeyCreate,
    ApiKeyExchange,
    ApiKeyOut,
    ApiKeyRotate,
    ClientCredentials,
    KeySetOut,
    KeysUsed,
    MetadataOut,
    NewApiKeyOut,
    SigningKeyOut,
    TokenExchange,
    TokenOut,
)
from tenant_service.identity.signing_keys import load_jwks, rotate_signing_key
from tenant_service.identity.token_requests import read_grant
from tenant_service.identity.tokens import (
    IssuedToken,
    issue_for_api_key,
    issue_for_client,
    issue_for_session,
    issue_for_support,
)
from tenant_service.runtime import Runtime
from tenantry import CurrentPrincipal, current_request_id
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor, require_scope
from tenantry.identity import Scope

router = APIRouter(tags=["tokens"], route_class=IdempotentRoute)
keys_router = APIRouter(prefix="/v1/tenants/{tenant_id}/api-keys", tags=["api keys"], route_class=IdempotentRoute)

TOKEN_PATH = "/oauth/token"  # noqa: S105 - a path
JWKS_PATH = "/.well-known/jwks.json"
METADATA_PATH = "/.well-known/oauth-authorization-server"

_NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749, 5.1
_TOKEN_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"enum": ["client_credentials", API_KEY_GRANT, EXCHANGE_GRANT]},
                        "subject_token_type": {"enum": [SESSION_TOKEN, SUPPORT_TOKEN]},
                        "subject_token": {"type": "string", "format": "password"},
                        "actor_token": {"type": "string", "format": "password"},
                        "actor_token_type": {"enum": [ACCESS_TOKEN]},
                        "requested_token_type": {"enum": [ACCESS_TOKEN]},
                        "tenant_id": {"type": "string"},
                        "client_id": {"type": "string"},
                        "client_secret": {"type": "string", "format": "password"},
                        "api_key": {"type": "string", "format": "password"},
                        "audience": {"enum": ["app", "billing", "tenant", "usage"]},
                        "scope": {"type": "string"},
                        "cnf_jkt": {"type": "string", "description": "thumbprint of the key that the token is to name"},
                    },
                }
            }
            for media_type in ("application/x-www-form-urlencoded", "application/json")
        },
    }
}


@router.post(TOKEN_PATH, openapi_extra=_TOKEN_BODY)
async def issue_token(
    request: Request, response: Response, session: Transaction, runtime: CurrentRuntime, now: Now
) -> TokenOut:
    """A token for one service and one tenant at most, for a client's secret, an API key, a session or support access.

    It lives for ten minutes at most, and ends with what it was exchanged for.
    """
    response.headers.update(_NOT_STORED)
    wanted = await read_grant(request)
    if isinstance(wanted, ClientCredentials):
        token = await issue_for_client(
            session,
            runtime.issuer,
            client_id=wanted.client_id,
            client_secret=wanted.client_secret,
            audience=wanted.audience,
            scope=wanted.scope,
            now=now,
            confirmation=wanted.cnf_jkt,
        )
    elif isinstance(wanted, ApiKeyExchange):
        token = await issue_for_api_key(
            session, runtime.issuer, api_key=wanted.api_key, audience=wanted.audience, scope=wanted.scope, now=now
        )
    else:
        token = await _exchange(session, runtime, request, wanted, now)
    return TokenOut(access_token=token.access_token, expires_in=token.expires_in, scope=token.scope)


async def _exchange(
    session: AsyncSession, runtime: Runtime, request: Request, wanted: TokenExchange, now: datetime
) -> IssuedToken:
    if wanted.subject_token_type == SESSION_TOKEN:
        signed_in = session_of(runtime, request, wanted.subject_token)
        return await issue_for_session(
            session,
            runtime.issuer,
            session_id=UUID(signed_in.credential_id),
            tenant=wanted.tenant_id or "",
            audience=wanted.audience,
            scope=wanted.scope,
            request_id=current_request_id(),
            now=now,
        )
    operator = operator_of(runtime, request, wanted.actor_token)
    return await issue_for_support(
        session,
        runtime.issuer,
        grant_id=read_grant_id(wanted.subject_token),
        operator=operator.subject,
        audience=wanted.audience,
        scope=wanted.scope,
        now=now,
    )


@router.get(METADATA_PATH)
async def get_metadata(response: Response, runtime: CurrentRuntime) -> MetadataOut:
    """Where tokens are issued and what they are verified with (RFC 8414)."""
    base_url = runtime.settings.base_url
    response.headers["Cache-Control"] = "public, max-age=3600"
    return MetadataOut(
        issuer=base_url,
        token_endpoint=f"{base_url}{TOKEN_PATH}",
        jwks_uri=f"{base_url}{JWKS_PATH}",
        grant_types_supported=["client_credentials", API_KEY_GRANT, EXCHANGE_GRANT],
        token_endpoint_auth_methods_supported=["client_secret_post", "client_secret_basic"],
        scopes_supported=sorted(KNOWN_SCOPES),
    )


@router.get(JWKS_PATH)
async def get_key_set(response: Response, session: Transaction, now: Now) -> KeySetOut:
    """The keys that tokens are verified with (RFC 7517)."""
    jwks, _ = await load_jwks(session, now=now)
    response.headers["Cache-Control"] = "public, max-age=60"
    return KeySetOut(keys=jwks["keys"])


@router.post("/v1/signing-keys/rotate", status_code=201, dependencies=[Platform, Idempotent])
async def rotate(session: Transaction, runtime: CurrentRuntime, actor: CurrentActor, now: Now) -> SigningKeyOut:
    """A new signing key: published now, signing in a minute; the old one is accepted until its last token ends."""
    return SigningKeyOut(kid=await rotate_signing_key(session, runtime.master_key, actor=actor, now=now))


@keys_router.post("", status_code=201, dependencies=[IdempotentSecret])
async def create_api_key(
    tenant: AdministeredTenant,
    body: ApiKeyCreate,
    response: Response,
    session: Transaction,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> NewApiKeyOut:
    """A new key of the tenant. The answer is the only place where it is ever shown."""
    response.headers["Cache-Control"] = "no-store"
    row, key = await api_keys.create_api_key(
        session,
        tenant,
        name=body.name,
        scopes=body.scopes,
        expires_at=body.expires_at,
        issuer=principal,
        actor=actor,
        now=now,
    )
    return NewApiKeyOut.of(row, key=key)


@keys_router.post("/{key_id}/rotate", status_code=201, dependencies=[IdempotentSecret])
async def rotate_api_key(
    tenant: AdministeredTenant,
    key_id: UUID,
    body: ApiKeyRotate,
    response: Response,
    session: Transaction,
    principal: CurrentPrincipal,
    actor: CurrentActor,
    now: Now,
) -> NewApiKeyOut:
    """A new key in the place of this one, which is accepted for the overlap and no longer."""
    response.headers["Cache-Control"] = "no-store"
    overlap = timedelta(seconds=body.overlap_seconds)
    row, key = await api_keys.rotate_api_key(
        session, tenant, key_id, overlap=overlap, issuer=principal, actor=actor, now=now
    )
    return NewApiKeyOut.of(row, key=key)


@keys_router.get("")
async def list_api_keys(
    tenant: AdministeredTenant, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[ApiKeyOut]:
    """The tenant's keys, revoked ones among them."""
    after = None if cursor is None else decode_cursor(cursor, UUID, of="api keys")
    rows = await api_keys.list_api_keys(session, tenant.id, after=after, limit=limit + 1)
    items = [ApiKeyOut.of(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of="api keys") if len(rows) > limit else None)


@keys_router.delete("/{key_id}", status_code=204)
async def revoke_api_key(
    tenant: AdministeredTenant, key_id: UUID, session: Transaction, actor: CurrentActor, now: Now
) -> None:
    """Refuse the key, and the tokens that were exchanged for it, in every service from now on."""
    await api_keys.revoke_api_key(session, tenant.id, key_id, actor=actor, now=now)


@router.post("/v1/api-keys/used", status_code=204, dependencies=[Depends(require_scope(Scope.SERVICE))])
async def note_use(body: KeysUsed, session: Transaction, now: Now) -> None:
    """For services, every few minutes: when the keys that they have accepted were last used."""
    await api_keys.note_use(session, {key: min(at, now) for key, at in body.last_used_at.items()})
