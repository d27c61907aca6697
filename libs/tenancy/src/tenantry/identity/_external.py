"""Tokens of trusted issuers: who the person is comes from the issuer, what that means here is configured.

The order is: issuer, header, key, signature, claims, tenant. The issuer named by an unverified token selects among the
trusted ones and nothing else; `jku`, `jwk`, `x5u` and `x5c` are not read.
"""

import hashlib
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from tenantry._clock import Clock, SystemClock
from tenantry._directory import TenantDirectory
from tenantry._errors import TenantNotFound
from tenantry._tenant import Tenant
from tenantry.identity._claims import Claims, InvalidToken, read_header
from tenantry.identity._issuer_keys import IssuerKeyring
from tenantry.identity._issuers import IssuerRegistry, TenantClaim, TrustedIssuer
from tenantry.identity._principal import Principal, PrincipalKind
from tenantry.identity._revocations import TokenRevocations, holder_of
from tenantry.identity._tokens import TokenVerifier

# Groups and permissions make other issuers' tokens long.
_MAX_TOKEN_LENGTH: Final = 16_384
_CACHE_SIZE: Final = 20_000
# Others (of logout, of proofs of possession) are signed with the same keys and mean something else (RFC 8725, 3.11).
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_CHANGE_THE_MEANING: Final = ("crit", "b64", "zip")


class _Issued(msgspec.Struct):
    iss: str = ""


class _Verified(NamedTuple):
    """What stays true of a token until it ends, its issuer's keys change, or the issuer is configured anew."""

    issuer: TrustedIssuer
    keys_version: int
    subject: str
    holder: str
    scopes: frozenset[str]
    reference: str | None
    issued_at: datetime
    expires_at: datetime


class ExternalVerifier:
    """Turns tokens of trusted issuers into principals of one tenant, and hands all others to `own`.

    A verified token is remembered as `TokenVerifier` does; which tenant it means is asked of the directory every time.
    """

    def __init__(
        self,
        registry: IssuerRegistry,
        keys: IssuerKeyring,
        directory: TenantDirectory,
        *,
        own: TokenVerifier | None = None,
        revocations: TokenRevocations | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`own` None: no token of the tenant service is accepted."""
        self._registry = registry
        self._keys = keys
        self._directory = directory
        self._own = own
        self._revocations = TokenRevocations() if revocations is None else revocations
        self._clock = clock or SystemClock()
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    def verify(self, token: str) -> Principal:
        """The principal that the token was issued for, of exactly one tenant.

        Raises `InvalidToken` (401) with the first reason against it, a revocation being the last, `KeysUnknown` (503)
        while the issuer's keys are not known, and `TenantNotFound` where the claim names a tenant that is not known
        here.
        """
        issuer = self._registry.find(_read_issuer(token))
        if issuer is None:
            if self._own is None:
                raise InvalidToken("The token was issued by someone who is not trusted here (claim iss).")
            return self._own.verify(token)
        verified = self._look_up(token, issuer)
        tenant = self._find_tenant(verified)
        if self._revocations.refuses(verified.holder, tenant.id, verified.issued_at):
            raise InvalidToken("The person's tokens of that time have been revoked.")
        return Principal(
            subject=verified.subject,
            kind=PrincipalKind.USER,
            tenant_id=tenant.id,
            scopes=verified.scopes,
            credential_id=f"token:{verified.subject}",
            expires_at=verified.expires_at,
        )

    def _look_up(self, token: str, issuer: TrustedIssuer) -> _Verified:
        digest = hashlib.sha256(token.encode()).digest()
        keys = self._keys.of(issuer)
        known = self._verified.get(digest)
        if known is not None:
            if (
                known.issuer is issuer
                and known.keys_version == keys.version
                and keys.is_usable
                and known.expires_at > self._clock.now()
            ):
                return known
            del self._verified[digest]
        verified = self._check(token, issuer)
        self._verified[digest] = verified
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return verified

    def _check(self, token: str, issuer: TrustedIssuer) -> _Verified:
        version = self._keys.of(issuer).version
        claims = Claims(self._signed_payload(token, issuer))
        if claims.text("iss") != issuer.issuer:
            raise InvalidToken("The token was issued by someone else (claim iss).")
        if not claims.audiences() & set(issuer.audiences):
            raise InvalidToken("The token is for another application (claim aud).")
        issued_at, expires_at = self._check_times(claims, issuer)
        subject = claims.text("sub")
        return _Verified(
            issuer=issuer,
            keys_version=version,
            subject=f"{issuer.name}:{subject}",
            holder=holder_of(issuer.issuer, subject),
            scopes=_scopes(claims, issuer),
            reference=None if issuer.tenant is None else _reference(claims, issuer.tenant),
            issued_at=issued_at,
            expires_at=expires_at,
        )

    def _check_times(self, claims: Claims, issuer: TrustedIssuer) -> tuple[datetime, datetime]:
        """When it was issued, and when it ends."""
        now, skew = self._clock.now(), timedelta(seconds=issuer.clock_skew_seconds)
        issued_at, expires_at = claims.instant("iat"), claims.instant("exp")
        not_before = claims.instant("nbf") if "nbf" in claims else issued_at
        if expires_at <= now:
            raise InvalidToken("The token has expired (claim exp).")
        if max(issued_at, not_before) > now + skew:
            raise InvalidToken("The token is not valid yet (claims iat, nbf).")
        if expires_at - issued_at > timedelta(seconds=issuer.max_lifetime_seconds):
            raise InvalidToken(
                f"The token lives for more than {issuer.max_lifetime_seconds} seconds (claims iat, exp)."
            )
        return issued_at, expires_at

    def _signed_payload(self, token: str, issuer: TrustedIssuer) -> bytes:
        header = read_header(token, max_length=_MAX_TOKEN_LENGTH)
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise InvalidToken(f"The token is not signed with {' or '.join(issuer.algorithms)} (header alg).")
        for name in _CHANGE_THE_MEANING:
            if name in header:
                raise InvalidToken(f"The token's header holds {name}, which is not accepted.")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise InvalidToken("The token is not an access token (header typ).")
        key = self._keys.of(issuer).find(header.get("kid"), algorithm)
        try:
            return jws.deserialize_compact(token, key, algorithms=[algorithm]).payload
        except (JoseError, ValueError) as error:
            raise InvalidToken("The token's signature does not match.") from error

    def _find_tenant(self, verified: _Verified) -> Tenant:
        issuer, found = verified.issuer, None
        if issuer.bound_to is not None:
            found = self._directory.resolve(issuer.bound_to)
        if verified.reference is not None and issuer.tenant is not None:
            named = self._named(verified.reference, issuer.tenant)
            if issuer.bound_to is not None and (named is None or found is None or named.id != found.id):
                raise InvalidToken(f"The issuer may not speak of this tenant (claim {_spell(issuer.tenant.claim)}).")
            found = named
        if found is None or self._directory.is_purged(found.id):
            raise TenantNotFound("There is no such tenant.")
        return found

    def _named(self, reference: str, claim: TenantClaim) -> Tenant | None:
        if claim.names == "slug":
            return self._directory.by_slug(reference)
        if claim.names == "external_id":
            found = self._directory.resolve(reference)
            return found if found is not None and found.external_id == reference else None
        try:
            tenant_id = UUID(reference)
        except ValueError:
            return None
        return self._directory.get(tenant_id) if str(tenant_id) == reference.lower() else None


def _read_issuer(token: str) -> str:
    """The unverified `iss`, which only says whose keys to look at."""
    segments = token.split(".")
    if len(token) <= _MAX_TOKEN_LENGTH and len(segments) == 3:
        try:
            issued: _Issued = _decode_issued(urlsafe_b64decode(segments[1] + "=" * (-len(segments[1]) % 4)))
        except (ValueError, RecursionError):
            pass
        else:
            return issued.iss
    raise InvalidToken("The token is neither an API key nor a signed JWT of an issuer.")


def _reference(claims: Claims, wanted: TenantClaim) -> str:
    value, name = claims.at(wanted.claim), _spell(wanted.claim)
    if value is None:
        raise InvalidToken(f"The token does not say which tenant it is for: the claim {name} is missing.")
    if isinstance(value, (list, dict)):
        raise InvalidToken(f"The token's claim {name} may name several tenants; it must hold exactly one text.")
    if not isinstance(value, str) or not value or value != value.strip() or not value.isprintable():
        raise InvalidToken(f"The token's claim {name} is not the name of one tenant.")
    return value


def _scopes(claims: Claims, issuer: TrustedIssuer) -> frozenset[str]:
    granted = set(issuer.default_scopes)
    if issuer.scopes is not None:
        value = claims.at(issuer.scopes.claim)
        held = value.split() if isinstance(value, str) else value
        if held is not None:
            if not isinstance(held, list) or not all(isinstance(each, str) for each in held):
                raise InvalidToken(
                    f"The token's claim {_spell(issuer.scopes.claim)} is neither text nor a list of texts."
                )
            granted.update(issuer.scopes.map[each] for each in held if each in issuer.scopes.map)
    return frozenset(granted)


def _spell(path: Sequence[str]) -> str:
    return ".".join(path)


_decode_issued: Final = msgspec.json.Decoder(_Issued).decode
