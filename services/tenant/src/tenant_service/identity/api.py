"""Routes of tokens and keys."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from tenant_service.dependencies import (
    CurrentActor,
    CurrentRuntime,
    Idempotent,
    IdempotentSecret,
    Now,
    Platform,
    TenantReference,
    Transaction,
)
from tenant_service.identity import api_keys
from tenant_service.identity.schemas import (
    ApiKeyCreate,
    ApiKeyOut,
    ClientCredentials,
    KeySetOut,
    NewApiKeyOut,
    SigningKeyOut,
    TokenOut,
)
from tenant_service.identity.signing_keys import load_jwks, rotate_signing_key
from tenant_service.identity.token_requests import Grant, read_grant
from tenant_service.identity.tokens import issue_for_api_key, issue_for_client
from tenantry.http import Cursor, IdempotentRoute, Limit, Page, decode_cursor, encode_cursor

router = APIRouter(tags=["tokens"], route_class=IdempotentRoute)
keys_router = APIRouter(
    prefix="/v1/tenants/{tenant_id}/api-keys",
    tags=["api keys"],
    dependencies=[Platform],
    route_class=IdempotentRoute,
)

TOKEN_PATH = "/oauth/token"  # noqa: S105 - a path
JWKS_PATH = "/.well-known/jwks.json"

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
                        "grant_type": {"enum": ["client_credentials", "urn:tenantry:api-key"]},
                        "client_id": {"type": "string"},
                        "client_secret": {"type": "string", "format": "password"},
                        "api_key": {"type": "string", "format": "password"},
                        "audience": {"enum": ["app", "billing", "tenant", "usage"]},
                        "scope": {"type": "string"},
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
    """A token for one service, for a client's secret or a tenant's API key; it lives for ten minutes at most."""
    response.headers.update(_NOT_STORED)
    wanted: Grant = await read_grant(request)
    if isinstance(wanted, ClientCredentials):
        token = await issue_for_client(
            session,
            runtime.issuer,
            client_id=wanted.client_id,
            client_secret=wanted.client_secret,
            audience=wanted.audience,
            scope=wanted.scope,
            now=now,
        )
    else:
        token = await issue_for_api_key(
            session, runtime.issuer, api_key=wanted.api_key, audience=wanted.audience, scope=wanted.scope, now=now
        )
    return TokenOut(access_token=token.access_token, expires_in=token.expires_in, scope=token.scope)


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
    tenant_id: TenantReference,
    body: ApiKeyCreate,
    response: Response,
    session: Transaction,
    actor: CurrentActor,
    now: Now,
) -> NewApiKeyOut:
    """A new key of the tenant. The answer is the only place where it is ever shown."""
    response.headers["Cache-Control"] = "no-store"
    row, key = await api_keys.create_api_key(
        session, tenant_id, name=body.name, scopes=body.scopes, expires_at=body.expires_at, actor=actor, now=now
    )
    return NewApiKeyOut.of(row, key=key)


@keys_router.get("")
async def list_api_keys(
    tenant_id: TenantReference, session: Transaction, limit: Limit = 50, cursor: Cursor = None
) -> Page[ApiKeyOut]:
    """The tenant's keys, revoked ones among them."""
    after = None if cursor is None else decode_cursor(cursor, UUID, of="api keys")
    rows = await api_keys.list_api_keys(session, tenant_id, after=after, limit=limit + 1)
    items = [ApiKeyOut.of(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id, of="api keys") if len(rows) > limit else None)


@keys_router.delete("/{key_id}", status_code=204)
async def revoke_api_key(
    tenant_id: TenantReference, key_id: UUID, session: Transaction, actor: CurrentActor, now: Now
) -> None:
    """Refuse the key in every service from now on."""
    await api_keys.revoke_api_key(session, tenant_id, key_id, actor=actor, now=now)
