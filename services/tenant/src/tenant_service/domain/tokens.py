"""Who may have which token: narrowing of audience and scope, and the claims of a token."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tenantry import TenantryError

TOKEN_LIFETIME = timedelta(minutes=10)

OPERATOR_SCOPES = frozenset({"platform"})
SERVICE_SCOPES = frozenset({"service"})
# For the company's mailer: the one service that may ask for the codes by which people get in.
DELIVERY_SCOPES = frozenset({"identity:deliver"})
# For an operator who may read back what tokens in events stand for.
TOKEN_SCOPES = frozenset({"usage:tokens"})
TENANT_SCOPES = frozenset({"tenant:admin", "tenant:write", "tenant:read", "tenant:billing"})
KNOWN_SCOPES = OPERATOR_SCOPES | SERVICE_SCOPES | DELIVERY_SCOPES | TOKEN_SCOPES | TENANT_SCOPES
_IMPLIED = {
    "tenant:admin": frozenset({"tenant:write", "tenant:read"}),
    "tenant:write": frozenset({"tenant:read"}),
}


class InvalidScope(TenantryError):
    """A scope was asked for that this credential does not have (RFC 6749, 5.2)."""

    status = 400
    type = "invalid-scope"
    title = "The scope is not granted to this client"


class InvalidTarget(TenantryError):
    """An audience was asked for that this credential may not call (RFC 8707, 2)."""

    status = 400
    type = "invalid-target"
    title = "The audience is not granted to this client"


def narrow_scopes(granted: Collection[str], requested: str | None) -> tuple[str, ...]:
    """The scopes of a token, sorted: all that are granted, or the requested ones where each is granted or implied.

    Raises `InvalidScope` where one is not, or where nothing was asked for (an empty string is not "all").
    """
    if requested is None:
        return tuple(sorted(granted))
    wanted = requested.split()
    if not wanted:
        raise InvalidScope("The parameter 'scope' is empty; leave it out to get every scope of the client")
    refused = sorted(set(wanted).difference(granted, *(_IMPLIED.get(scope, ()) for scope in granted)))
    if refused:
        raise InvalidScope(f"Not granted to this client: {' '.join(refused)}")
    return tuple(sorted(set(wanted)))


def narrow_audience(granted: Collection[str], requested: str | None) -> str:
    """The one audience of a token. It may be left out where exactly one is granted. Raises `InvalidTarget`."""
    if requested is None:
        if len(granted) == 1:
            return next(iter(granted))
        raise InvalidTarget("Name the service that the token is for in the parameter 'audience'")
    if requested not in granted:
        raise InvalidTarget("The client may not call this audience")
    return requested


def token_claims(
    *,
    issuer: str,
    audience: str,
    subject: str,
    kind: str,
    scopes: Collection[str],
    tenant_id: UUID | None,
    token_id: UUID,
    now: datetime,
    credential_id: UUID | None = None,
    not_after: datetime | None = None,
    actor: str | None = None,
    confirmation: str | None = None,
) -> dict[str, Any]:
    """The claims of a token that lives for `TOKEN_LIFETIME`, or until `not_after` where that is earlier.

    `credential_id` is the credential that is exchanged, and `not_after` its end: no service accepts the token for
    longer than that. `actor` is who acts in the place of the subject (RFC 8693, 4.1). `confirmation` is the thumbprint
    of a key of the subject's (RFC 7800).
    """
    expires = now + TOKEN_LIFETIME
    if not_after is not None:
        expires = min(expires, not_after)
    issued_at = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "iat": issued_at,
        "exp": int(expires.timestamp()),
        "jti": str(token_id),
        "scope": " ".join(scopes),
        "kind": kind,
    }
    if tenant_id is not None:
        claims["tenant_id"] = str(tenant_id)
    if credential_id is not None:
        claims["credential_id"] = str(credential_id)
    if actor is not None:
        claims["act"] = {"sub": actor}
    if confirmation is not None:
        claims["cnf"] = {"jkt": confirmation}
    return claims
