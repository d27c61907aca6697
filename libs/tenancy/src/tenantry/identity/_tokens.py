"""Access tokens: ES256 only, keys of one issuer only, one tenant only, ten minutes at most (RFC 8725).

The order is: form, header, signature, claims. Nothing of an unverified token is ever used to find a key other than by
`kid` among the keys that the issuer has published; `jku`, `jwk`, `x5u` and `x5c` are refused, not ignored.
"""

import hashlib
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from joserfc import jws
from joserfc.errors import JoseError

from tenantry._clock import Clock, SystemClock
from tenantry.identity._claims import Claims, InvalidToken, read_header
from tenantry.identity._keys import KeySet
from tenantry.identity._principal import Principal, PrincipalKind

ALGORITHM: Final = "ES256"
MAX_TOKEN_LIFETIME: Final = timedelta(minutes=10)

# How far the clocks of issuer and service may be apart. It never extends a token: `exp` is taken as it is.
_CLOCK_SKEW: Final = timedelta(seconds=5)
_CACHE_SIZE: Final = 20_000


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
        claims = Claims(self._signed_payload(token))
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
            confirmation=claims.confirmation(),
        )
        if (principal.kind is PrincipalKind.SUPPORT) != (principal.actor is not None):
            raise InvalidToken("A token names an actor where it is for support access, and nowhere else (claim act).")
        if principal.actor is not None and (principal.tenant_id is None or not exchanged):
            raise InvalidToken(
                "A token for support access names one tenant and its grant (claims tenant_id, credential_id)."
            )
        return principal, expires_at

    def _signed_payload(self, token: str) -> bytes:
        header = read_header(token)
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
