"""Access tokens: ES256 only, keys of one issuer only, one tenant only, ten minutes at most (RFC 8725).

The order is: form, header, signature, claims. Nothing of an unverified token is ever used to find a key other than by
`kid` among the keys that the issuer has published; `jku`, `jwk`, `x5u` and `x5c` are refused, not ignored.
"""

import hashlib
import json
from base64 import urlsafe_b64decode
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from joserfc import jws
from joserfc.errors import JoseError

from tenantry._clock import Clock, SystemClock
from tenantry._errors import Unauthenticated
from tenantry.identity._keys import KeySet
from tenantry.identity._principal import Principal, PrincipalKind

ALGORITHM: Final = "ES256"
MAX_TOKEN_LIFETIME: Final = timedelta(minutes=10)

_MAX_TOKEN_LENGTH: Final = 4096
# How far the clocks of issuer and service may be apart. It never extends a token: `exp` is taken as it is.
_CLOCK_SKEW: Final = timedelta(seconds=5)
_CACHE_SIZE: Final = 20_000
# Everything but a session, which is a cookie: a token that was exchanged for one is its user's.
_TOKEN_KINDS: Final = frozenset(PrincipalKind) - {PrincipalKind.SESSION}
# Claims by which other issuers name several tenants. A token says which one it is for, or it is for none.
_TENANT_LISTS: Final = ("tenant_ids", "tenants")


class InvalidToken(Unauthenticated):
    """The bearer token cannot be accepted (RFC 6750, 3.1)."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class TokenVerifier:
    """Turns tokens into principals, and remembers those that it has verified.

    A verified token is kept under its hash until it expires or the keys change: checking a signature costs about as
    much as all the rest of a request's admission. What is kept says only who the caller is; whether the tenant may be
    served is asked of the directory for every request, so a change of the directory needs no invalidation here.
    """

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, clock: Clock | None = None) -> None:
        self._keys = keys
        self._keys_version = keys.version
        self._issuer = issuer
        self._audience = audience
        self._clock = clock or SystemClock()
        self._verified: OrderedDict[bytes, tuple[Principal, datetime]] = OrderedDict()

    def verify(self, token: str) -> Principal:
        """The principal that the token was issued for. Raises `InvalidToken` (401) with the first reason against it."""
        keys_version = self._keys.version
        if keys_version != self._keys_version:
            self._verified.clear()
            self._keys_version = keys_version
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None:
            if known[1] > self._clock.now():
                return known[0]
            del self._verified[digest]
        principal, expires_at = self._check(token)
        self._verified[digest] = (principal, expires_at)
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return principal

    def _check(self, token: str) -> tuple[Principal, datetime]:
        claims = _Claims(self._signed_payload(token))
        if claims.text("iss") != self._issuer:
            raise InvalidToken("The token was issued by someone else (claim iss).")
        if claims.audience() != self._audience:
            raise InvalidToken(f"The token is not for this service, {self._audience!r} (claim aud).")
        now = self._clock.now()
        issued_at, expires_at = claims.instant("iat"), claims.instant("exp")
        not_before = claims.instant("nbf") if "nbf" in claims else issued_at
        if expires_at <= now:
            raise InvalidToken("The token has expired (claim exp).")
        if max(issued_at, not_before) > now + _CLOCK_SKEW:
            raise InvalidToken("The token is not valid yet (claims iat, nbf).")
        if expires_at - issued_at > MAX_TOKEN_LIFETIME:
            raise InvalidToken("The token lives for more than 10 minutes (claims iat, exp).")
        exchanged = "credential_id" in claims
        principal = Principal(
            subject=claims.text("sub"),
            kind=claims.kind(),
            tenant_id=claims.tenant_id(),
            scopes=frozenset(claims.text("scope").split()) if "scope" in claims else frozenset(),
            credential_id=claims.text("credential_id") if exchanged else f"token:{claims.text('sub')}",
            expires_at=expires_at,
            actor=claims.actor(),
            exchanged_at=issued_at if exchanged else None,
        )
        if (principal.kind is PrincipalKind.SUPPORT) != (principal.actor is not None):
            raise InvalidToken("A token names an actor where it is for support access, and nowhere else (claim act).")
        if principal.actor is not None and (principal.tenant_id is None or not exchanged):
            raise InvalidToken(
                "A token for support access names one tenant and its grant (claims tenant_id, credential_id)."
            )
        return principal, expires_at

    def _signed_payload(self, token: str) -> bytes:
        header = _read_header(token)
        if header.get("alg") != ALGORITHM:
            raise InvalidToken(f"The token is not signed with {ALGORITHM} (header alg).")
        if foreign := sorted(header.keys() - {"alg", "kid", "typ"}):
            raise InvalidToken(f"The token's header holds {', '.join(foreign)}, which is not accepted.")
        key = self._keys.find(header.get("kid"))
        if key is None:
            raise InvalidToken("The token is signed with a key that the issuer has not published (header kid).")
        try:
            return jws.deserialize_compact(token, key, algorithms=[ALGORITHM]).payload
        except (JoseError, ValueError) as error:
            raise InvalidToken("The token's signature does not match.") from error


def _read_header(token: str) -> dict[str, Any]:
    """The header, unverified: it only says whether the signature is worth checking, and with which of our keys."""
    segments = token.split(".")
    if len(token) <= _MAX_TOKEN_LENGTH and len(segments) == 3:
        try:
            raw = urlsafe_b64decode(segments[0] + "=" * (-len(segments[0]) % 4))
            header = json.loads(raw, object_pairs_hook=_refuse_repetition)
        except (ValueError, RecursionError):
            header = None
        if isinstance(header, dict):
            return header
    raise InvalidToken("The token is neither an API key nor a signed JWT.")


class _Claims:
    """The claims of a token whose signature is right: still input, and checked as such."""

    def __init__(self, payload: bytes) -> None:
        try:
            claims = json.loads(payload, object_pairs_hook=_refuse_repetition)
        except (ValueError, RecursionError) as error:
            raise InvalidToken("The token's claims cannot be read.") from error
        if not isinstance(claims, dict):
            raise InvalidToken("The token's claims are not an object.")
        self._claims: dict[str, Any] = claims

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def text(self, name: str) -> str:
        value = self._claims.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidToken(f"The token's claim {name} is missing or no text.")
        return value

    def instant(self, name: str) -> datetime:
        value = self._claims.get(name)
        # True is an int to Python and a second after the epoch to no one.
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidToken(f"The token's claim {name} is missing or no whole number of seconds.")
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError, ValueError) as error:
            raise InvalidToken(f"The token's claim {name} is no point in time.") from error

    def audience(self) -> str:
        """The one audience. A token for several services could be replayed from one at another."""
        value = self._claims.get("aud")
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str):
            raise InvalidToken("The token does not name exactly one audience (claim aud).")
        return value

    def kind(self) -> PrincipalKind:
        value = self._claims.get("kind", PrincipalKind.USER)
        if not isinstance(value, str) or value not in _TOKEN_KINDS:
            raise InvalidToken(f"The token's claim kind is not one of {', '.join(sorted(_TOKEN_KINDS))}.")
        return PrincipalKind(value)

    def actor(self) -> str | None:
        """Who acts on the subject's behalf (RFC 8693, 4.1): one actor, who acts for nobody in turn."""
        if "act" not in self._claims:
            return None
        value = self._claims["act"]
        if (
            not isinstance(value, dict)
            or value.keys() != {"sub"}
            or not isinstance(value["sub"], str)
            or not value["sub"]
        ):
            raise InvalidToken("The token's claim act is not exactly one actor.")
        return value["sub"]

    def tenant_id(self) -> UUID | None:
        for name in _TENANT_LISTS:
            if name in self._claims:
                raise InvalidToken(f"The token names several tenants (claim {name}); it must name one in tenant_id.")
        if "tenant_id" not in self._claims:
            return None
        value = self._claims["tenant_id"]
        try:
            tenant_id = UUID(value)
        except (ValueError, AttributeError, TypeError) as error:
            raise _not_one_tenant() from error
        if str(tenant_id) != value.lower():  # UUID() takes other spellings, too
            raise _not_one_tenant()
        return tenant_id


def _not_one_tenant() -> InvalidToken:
    return InvalidToken("The token's claim tenant_id is not exactly one tenant id.")


def _refuse_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a claim that is there twice, two readers may take different ones."""
    claims = dict(pairs)
    if len(claims) != len(pairs):
        raise ValueError("a claim is there twice")
    return claims
