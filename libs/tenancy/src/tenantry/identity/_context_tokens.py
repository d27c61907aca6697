"""For which tenant, and on whose behalf, one service calls another: signed by the caller, believed for a minute.

A service's token says who calls. Beside it the caller sends a context that it signs itself, with a key that it makes at
its start; the thumbprint of that key stands in the token (`cnf.jkt`, RFC 7800 and RFC 9449), so the callee knows whose
signature it is without asking anybody. A context binds a service that may act for any tenant to one tenant: with that
it is a caller like any other, and every selector, path and subject of the request must agree with it.
"""

import json
from base64 import urlsafe_b64decode
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from tenantry._clock import Clock, SystemClock
from tenantry._errors import Unauthenticated
from tenantry.identity._claims import Claims, InvalidToken
from tenantry.identity._principal import Principal, PrincipalKind

CONTEXT_LIFETIME: Final = timedelta(seconds=60)

_ALGORITHM: Final = "ES256"
_TYPE: Final = "tenant-context+jwt"
_MAX_LENGTH: Final = 4096
_CLOCK_SKEW: Final = timedelta(seconds=5)


class InvalidContext(Unauthenticated):
    """The tenant context of a service's call cannot be accepted: the call is not what its sender has signed."""

    type = "invalid-context"
    title = "The tenant context is not accepted"


class ContextSigner:
    """A service's key for the contexts of its calls. It lives as long as the process and never leaves it."""

    def __init__(self, service: str, *, clock: Clock | None = None) -> None:
        """`service` is the subject of the service's tokens."""
        self._service = service
        self._clock = clock or SystemClock()
        self._key = ECKey.generate_key("P-256")
        self._header = {"alg": _ALGORITHM, "typ": _TYPE, "jwk": self._key.as_dict(private=False)}
        self.thumbprint = self._key.thumbprint()
        """What is asked for a token with (`cnf_jkt`), so that the callee knows this key."""

    def sign(self, *, audience: str, tenant_id: UUID, actor: str | None = None, request_id: str | None = None) -> str:
        """A context for one call of `audience`, good for a minute. `actor` is the person behind it."""
        now = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "sub": self._service,
            "aud": audience,
            "iat": now,
            "exp": now + int(CONTEXT_LIFETIME.total_seconds()),
            "tenant_id": str(tenant_id),
        }
        if actor is not None:
            claims["act"] = {"sub": actor}
        if request_id is not None:
            claims["request_id"] = request_id
        return jws.serialize_compact(self._header, json.dumps(claims).encode(), self._key, algorithms=[_ALGORITHM])


def bind_to_context(
    caller: Principal, context: bytes, *, audience: str, request_id: str | None, now: datetime
) -> Principal:
    """`caller`, a service, with the tenant and the actor of the context that it has signed.

    `request_id` is what the request itself says. Raises `InvalidContext`.
    """
    if caller.kind is not PrincipalKind.SERVICE or caller.confirmation is None:
        raise InvalidContext("Only a service with a token that names its key (claim cnf) may send a tenant context.")
    if caller.tenant_id is not None:
        raise InvalidContext("The token names a tenant already.")
    try:
        claims = Claims(_signed_payload(context, caller.confirmation))
        tenant_id, actor = claims.tenant_id(), claims.actor()
        issued_at, expires_at = claims.instant("iat"), claims.instant("exp")
        subject, aimed_at = claims.text("sub"), claims.audience()
    except InvalidToken as error:
        raise InvalidContext(error.detail.replace("token", "context", 1)) from error
    if tenant_id is None:
        raise InvalidContext("The context names no tenant (claim tenant_id).")
    if subject != caller.subject:
        raise InvalidContext("The context is another service's (claim sub).")
    if aimed_at != audience:
        raise InvalidContext(f"The context is not for this service, {audience!r} (claim aud).")
    if expires_at <= now or issued_at > now + _CLOCK_SKEW or expires_at - issued_at > CONTEXT_LIFETIME:
        raise InvalidContext("The context has expired, or is not valid for a minute (claims iat, exp).")
    if "request_id" in claims and claims.text("request_id") != request_id:
        raise InvalidContext("The context belongs to another request (claim request_id).")
    return msgspec.structs.replace(caller, tenant_id=tenant_id, actor=actor)


def _signed_payload(context: bytes, thumbprint: str) -> bytes:
    if len(context) > _MAX_LENGTH or not context.isascii():
        raise InvalidContext("The context is no signed JWT.")
    header, dot, _ = context.decode().partition(".")
    key = _read_key(header) if dot else None
    # The key in the header is only a text until its thumbprint is the one that the tenant service has signed.
    if key is None or key.thumbprint() != thumbprint:
        raise InvalidContext("The context is not signed with the key that the token names (claim cnf).")
    try:
        return jws.deserialize_compact(context, key, algorithms=[_ALGORITHM]).payload
    except (JoseError, ValueError) as error:
        raise InvalidContext("The context's signature does not match.") from error


@lru_cache(maxsize=256)
def _read_key(encoded: str) -> ECKey | None:
    """The public key in an encoded header; a caller sends the same header with every context."""
    try:
        header = json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        if header.keys() != {"alg", "typ", "jwk"} or (header["alg"], header["typ"]) != (_ALGORITHM, _TYPE):
            return None
        jwk = header["jwk"]
        if (jwk["kty"], jwk["crv"]) != ("EC", "P-256"):
            return None
        return ECKey.import_key({"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"]})
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, JoseError):
        return None
