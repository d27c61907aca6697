"""From a request to its caller and its tenant.

The credential is the authority. Of several kinds in one request each must be good, and all must be the same caller's.
Host, path, header and query only select among what the credential allows, and every selector that is there must agree.
What cannot be understood in exactly one way (repeated, empty, a list) is refused; nothing falls back to another source,
and there is no default tenant. The table of refusals is in docs/identification.md.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from msgspec import structs
from starlette.requests import HTTPConnection
from starlette.types import Scope

from tenantry._clock import Clock, SystemClock
from tenantry._directory import TenantDirectory
from tenantry._errors import MalformedRequest, PermissionDenied, TenantMismatch, TenantNotFound, Unauthenticated
from tenantry._tenant import Tenant
from tenantry.identity._claims import InvalidToken
from tenantry.identity._context_tokens import InvalidContext, bind_to_context
from tenantry.identity._credentials import (
    API_KEY_PREFIX,
    CSRF_HEADER,
    SESSION_COOKIE,
    CredentialStore,
    csrf_token,
)
from tenantry.identity._headers import (
    API_KEY,
    API_KEY_HEADER,
    AUTHORIZATION,
    CONTEXT,
    COOKIE,
    CSRF,
    HOST,
    ORIGIN,
    REQUEST_ID,
    read_headers,
)
from tenantry.identity._hosts import Hosts
from tenantry.identity._key_use import KeyUse
from tenantry.identity._principal import Principal, PrincipalKind
from tenantry.identity._resolver import Resolver
from tenantry.identity._selectors import DEFAULT_SELECTORS, Selector, Selectors

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_RESOLVED_KEY: Final = "tenantry.resolved"
_BOUND_KEY: Final = "tenantry.bound"
_MISMATCH: Final = "The request names another tenant than the one of its credential."


class CsrfRefused(PermissionDenied):
    """A write that is signed in by cookie does not prove that it comes from our own page."""

    type = "csrf-token"
    title = "The CSRF token is missing or wrong"


class CredentialConflict(MalformedRequest):
    """Two credentials in one request, each good, of two callers: the first one must not just win."""

    type = "credential-conflict"
    title = "The request holds credentials of different callers"


class Source(StrEnum):
    """A kind of credential that is accepted."""

    BEARER = "bearer"
    """A token in `Authorization: Bearer`."""
    API_KEY = "api_key"
    """A key in `Authorization: Bearer` or in `X-API-Key`."""
    SESSION = "session"
    """The session cookie."""


DEFAULT_SOURCES: Final = (Source.BEARER, Source.API_KEY, Source.SESSION)


class Verifier(Protocol):
    """Turns a bearer token into its principal: `TokenVerifier` for our own, `ExternalVerifier` for other issuers'."""

    def verify(self, token: str) -> Principal:
        """Raises `InvalidToken` (401) with the first reason against it. Waits for nothing."""
        ...


class Identity(NamedTuple):
    """Who asks, and for which tenant; `tenant` is None where an operator or a service named none."""

    principal: Principal
    tenant: Tenant | None


class Identifier:
    """Identifies requests by local state only: it reads no body, and `identify` waits for nothing."""

    def __init__(
        self,
        *,
        directory: TenantDirectory,
        tokens: Verifier,
        credentials: CredentialStore,
        base_domains: Iterable[str] = (),
        hosts: Hosts | None = None,
        identify: Sequence[Source | Resolver] = DEFAULT_SOURCES,
        select: Iterable[Selector] = DEFAULT_SELECTORS,
        audience: str | None = None,
        key_use: KeyUse | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`identify` are the credentials that are accepted; where a request holds several, the first one counts.

        `base_domains` are those below which a tenant's slug is the first label, as in `acme.example.com`; `hosts` takes
        their place where there is more to say about hosts. `audience` is the name under which other services call this
        one with a tenant context; None takes no such calls. `key_use` hears of every API key that is accepted. Raises
        `ValueError` without any source.
        """
        if not identify:
            raise ValueError("name at least one kind of credential")
        self._directory = directory
        self._tokens = tokens
        self._credentials = credentials
        self._selectors = Selectors(directory, hosts or Hosts(base_domains=base_domains), select)
        self._sources = tuple(identify)
        self._resolvers = tuple(source for source in identify if not isinstance(source, Source))
        self._accepts_tokens = Source.BEARER in self._sources
        self._accepts_keys = Source.API_KEY in self._sources
        self._audience = audience
        self._key_use = key_use
        self._clock = clock or SystemClock()
        self.route = self._selectors.route

    @property
    def resolves(self) -> bool:
        """Whether `resolve` must be awaited before `identify`."""
        return bool(self._resolvers)

    async def resolve(self, scope: Scope) -> None:
        """Asks the company's own resolvers and leaves what they say in `scope`. Raises what they raise."""
        connection = HTTPConnection(scope)
        scope[_RESOLVED_KEY] = {resolver: await resolver(connection) for resolver in self._resolvers}

    def check_host(self, scope: Scope) -> None:
        """For routes that need no credential. Raises `UnknownHost` and `MalformedRequest`, as `identify` does."""
        self._selectors.check_host(scope, read_headers(scope["headers"]))

    def identify(self, scope: Scope) -> Identity:
        """Who makes the request in `scope` (HTTP or WebSocket), for which tenant.

        Raises `UnknownHost`, `Unauthenticated` without a valid credential, `MalformedRequest` for a credential or
        selector that cannot be read in exactly one way, `CredentialConflict`, `CsrfRefused`, `InvalidContext`,
        `TenantMismatch` for a selector that is not the credential's tenant, and `TenantNotFound` where the tenant does
        not exist (any more).
        The tenant's status is not looked at.
        """
        headers = read_headers(scope["headers"])
        host = self._selectors.check_host(scope, headers)
        principal = self._authenticate(scope, headers)
        context = headers.get(CONTEXT)
        if context is not None:
            principal = self._bind(scope, principal, context)
        tenant_id = principal.tenant_id
        selected = self._selectors.read(scope, headers, host)
        if tenant_id is None:
            if not principal.acts_for_any_tenant:
                raise Unauthenticated("The credential names no tenant and does not act for all of them.")
            return Identity(principal, self._agreed([each.tenant for each in selected]))
        for _, named in selected:
            if named is None or named.id != tenant_id:
                raise TenantMismatch(_MISMATCH)
        tenant = self._directory.get(tenant_id)
        if tenant is None or self._directory.is_purged(tenant_id):
            raise TenantNotFound("There is no such tenant.")
        return Identity(principal, tenant)

    def _bind(self, scope: Scope, caller: Principal, context: bytes) -> Principal:
        bound: Principal | None = scope.get(_BOUND_KEY)
        if bound is not None and bound.subject == caller.subject:
            # A stream may last longer than its context, which was good when it began.
            return structs.replace(caller, tenant_id=bound.tenant_id, actor=bound.actor)
        if self._audience is None:
            raise InvalidContext("Tenant contexts are not accepted here.")
        ids = [value.decode("latin-1") for name, value in scope["headers"] if name == REQUEST_ID]
        bound = scope[_BOUND_KEY] = bind_to_context(
            caller,
            context,
            audience=self._audience,
            request_id=ids[0] if len(ids) == 1 else None,
            now=self._clock.now(),
        )
        return bound

    def _agreed(self, named: Sequence[Tenant | None]) -> Tenant | None:
        """The tenant that all selectors name; None without a selector."""
        chosen: Tenant | None = None
        for tenant in named:
            if tenant is None or self._directory.is_purged(tenant.id):
                raise TenantNotFound("There is no such tenant.")
            if chosen is not None and chosen.id != tenant.id:
                raise TenantMismatch("The request names two different tenants.")
            chosen = tenant
        return chosen

    def _authenticate(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Principal:
        secret = self._bearer_secret(headers)
        if self._is_alone(headers) and secret is not None:  # as nearly every request
            return self._from_token(secret) or self._find_key(secret)
        caller: Principal | None = None
        for source in self._sources:
            if source is Source.BEARER:
                found = self._from_token(secret)
            elif source is Source.API_KEY:
                found = self._from_key(secret, headers)
            elif source is Source.SESSION:
                found = self._from_session(scope, headers, first=caller is None)
            else:
                found = scope.get(_RESOLVED_KEY, {}).get(source)
            if found is not None:
                if caller is None:
                    caller = found
                elif not _is_same(caller, found):
                    raise CredentialConflict("The request holds two credentials, and they are not the same caller's.")
        if caller is None:
            raise Unauthenticated("A credential is needed: a bearer token, an API key or a session.")
        return caller

    def _is_alone(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether `Authorization` is all that could name a caller."""
        return COOKIE not in headers and API_KEY not in headers and self._accepts_tokens and not self._resolvers

    def _bearer_secret(self, headers: Mapping[bytes, bytes]) -> str | None:
        authorization = headers.get(AUTHORIZATION)
        # Without a source that reads it, the header is somebody else's.
        if authorization is None or not (self._accepts_tokens or self._accepts_keys):
            return None
        scheme, _, raw = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not raw.isascii():
            if not authorization.strip():
                raise Unauthenticated("The header Authorization is empty.")
            raise Unauthenticated("The header Authorization is not 'Bearer' and a token or an API key.")
        return raw.decode()

    def _from_token(self, secret: str | None) -> Principal | None:
        if secret is None or (self._accepts_keys and secret.startswith(API_KEY_PREFIX)):
            return None
        principal = self._tokens.verify(secret)
        if principal.exchanged_at is None:
            return principal
        exchanged = self._credentials.narrow(principal)
        if exchanged is None:
            raise InvalidToken("The credential that the token was exchanged for has ended.")
        return exchanged

    def _from_key(self, secret: str | None, headers: Mapping[bytes, bytes]) -> Principal | None:
        caller = None
        if secret is not None and (secret.startswith(API_KEY_PREFIX) or not self._accepts_tokens):
            caller = self._find_key(secret)
        given = headers.get(API_KEY)
        if given is None:
            return caller
        if not given.strip():
            raise Unauthenticated(f"The header {API_KEY_HEADER} is empty.")
        found = self._find_key(given.decode("latin-1"))
        if caller is not None and not _is_same(caller, found):
            raise CredentialConflict("The request holds two API keys.")
        return found

    def _find_key(self, secret: str) -> Principal:
        principal = self._credentials.find(secret)
        if principal is None or principal.kind is not PrincipalKind.API_KEY:
            raise InvalidToken("The API key is unknown, revoked or expired.")
        if self._key_use is not None:
            self._key_use.note(principal.credential_id)
        return principal

    def _from_session(self, scope: Scope, headers: Mapping[bytes, bytes], *, first: bool) -> Principal | None:
        cookie = headers.get(COOKIE)
        secret = _session_secret(cookie) if cookie is not None else None
        if secret is None:
            return None
        principal = self._credentials.find(secret)
        if principal is None or principal.kind is not PrincipalKind.SESSION:
            raise Unauthenticated("The session is unknown, signed out or expired.")
        if first:  # a header that the browser would not send by itself says as much as the page's token
            _check_same_site(scope, headers, secret)
        return principal


def _is_same(one: Principal, other: Principal) -> bool:
    return (one.subject, one.tenant_id, one.actor) == (other.subject, other.tenant_id, other.actor)


def _session_secret(cookie: bytes) -> str | None:
    found = [
        value.strip()
        for name, _, value in (part.partition("=") for part in cookie.decode("latin-1").split(";"))
        if name.strip() == SESSION_COOKIE
    ]
    if len(found) > 1:
        raise MalformedRequest("There is more than one session cookie.")
    if found == [""]:
        raise Unauthenticated("The session cookie is empty.")
    return found[0] if found else None


def _check_same_site(scope: Scope, headers: Mapping[bytes, bytes], secret: str) -> None:
    """A browser sends the cookie whoever asks; that our own page asks must be shown where it matters."""
    if scope["type"] == "websocket":
        # Its handshake may come from any page and cannot carry a header of ours; browsers always send the origin.
        origin, host = headers.get(ORIGIN, b""), headers.get(HOST, b"")
        if not host or origin.partition(b"://")[2].lower() != host.lower():
            raise CsrfRefused("The page that opens the connection is not one of this host.")
    elif scope["method"] not in _SAFE_METHODS and not _same(headers.get(CSRF), csrf_token(secret)):
        raise CsrfRefused(f"Send the page's token in {CSRF_HEADER}.")


def _same(given: bytes | None, expected: str) -> bool:
    return given is not None and hmac.compare_digest(given, expected.encode())
