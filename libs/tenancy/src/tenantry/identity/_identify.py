"""From a request to its caller and its tenant.

The credential is the authority: a bearer token or API key, else the session cookie. Host, header and query only select
among what the credential allows, and every selector that is there must agree. What cannot be understood in exactly
one way (repeated, empty, a list) is refused; nothing falls back to another source, and there is no default tenant.
"""

import hmac
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Scope

from tenantry._directory import TenantDirectory
from tenantry._errors import MalformedRequest, PermissionDenied, TenantMismatch, TenantNotFound, Unauthenticated
from tenantry._tenant import Tenant
from tenantry.identity._credentials import (
    API_KEY_PREFIX,
    CSRF_HEADER,
    SESSION_COOKIE,
    CredentialStore,
    csrf_token,
)
from tenantry.identity._principal import Principal, PrincipalKind
from tenantry.identity._tokens import InvalidToken, TokenVerifier

TENANT_HEADER: Final = "X-Tenant-ID"
TENANT_PARAMETER: Final = "tenant_id"

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_REFERENCE_LENGTH: Final = 128
# First labels that are names of the service itself, never of a tenant.
_RESERVED_LABELS: Final = frozenset({"www", "api", "app", "admin", "console", "portal"})

_AUTHORIZATION: Final = b"authorization"
_COOKIE: Final = b"cookie"
_HOST: Final = b"host"
_ORIGIN: Final = b"origin"
_TENANT_HEADER: Final = TENANT_HEADER.lower().encode()
_CSRF_HEADER: Final = CSRF_HEADER.lower().encode()
_READ: Final = frozenset({_AUTHORIZATION, _COOKIE, _HOST, _ORIGIN, _TENANT_HEADER, _CSRF_HEADER})
_PARAMETER: Final = TENANT_PARAMETER.encode()

_MISMATCH: Final = "The request names another tenant than the one of its credential."


class CsrfRefused(PermissionDenied):
    """A write that is signed in by cookie does not prove that it comes from our own page."""

    type = "csrf-token"
    title = "The CSRF token is missing or wrong"


class Identity(NamedTuple):
    """Who asks, and for which tenant; `tenant` is None where an operator or a service named none."""

    principal: Principal
    tenant: Tenant | None


class Identifier:
    """Identifies requests by local state only: it reads no body and waits for nothing."""

    def __init__(
        self,
        *,
        directory: TenantDirectory,
        tokens: TokenVerifier,
        credentials: CredentialStore,
        base_domains: Iterable[str] = (),
    ) -> None:
        """`base_domains` are those below which a tenant's slug is the first label, as in `acme.example.com`."""
        self._directory = directory
        self._tokens = tokens
        self._credentials = credentials
        self._base_domains = tuple(domain.lower().strip(".") for domain in base_domains)

    def identify(self, scope: Scope) -> Identity:
        """Who makes the request in `scope` (HTTP or WebSocket), for which tenant.

        Raises `Unauthenticated` without a valid credential, `MalformedRequest` for a credential or selector that cannot
        be read in exactly one way, `CsrfRefused`, `TenantMismatch` for a selector that is not the credential's tenant,
        and `TenantNotFound` where the tenant does not exist (any more). The tenant's status is not looked at.
        """
        headers = _read_headers(scope["headers"])
        principal = self._authenticate(scope, headers)
        tenant_id = principal.tenant_id
        if tenant_id is None:
            if not principal.acts_for_any_tenant:
                raise Unauthenticated("The credential names no tenant and does not act for all of them.")
            return Identity(principal, self._select(scope, headers))
        tenant = self._directory.get(tenant_id)
        for selected in self._selected(scope, headers):
            if selected is None or selected.id != tenant_id:
                raise TenantMismatch(_MISMATCH)
        if tenant is None or self._directory.is_purged(tenant_id):
            raise TenantNotFound("There is no such tenant.")
        return Identity(principal, tenant)

    def _authenticate(self, scope: Scope, headers: dict[bytes, bytes]) -> Principal:
        authorization = headers.get(_AUTHORIZATION)
        if authorization is not None:
            return self._bearer(authorization)
        cookie = headers.get(_COOKIE)
        secret = _session_secret(cookie) if cookie is not None else None
        if secret is None:
            raise Unauthenticated("A credential is needed: a bearer token, an API key or a session.")
        principal = self._credentials.find(secret)
        if principal is None or principal.kind is not PrincipalKind.SESSION:
            raise Unauthenticated("The session is unknown, signed out or expired.")
        _check_same_site(scope, headers, secret)
        return principal

    def _bearer(self, authorization: bytes) -> Principal:
        scheme, _, raw = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not raw.isascii():
            raise Unauthenticated("The header Authorization is not 'Bearer' and a token or an API key.")
        secret = raw.decode()
        if not secret.startswith(API_KEY_PREFIX):
            exchanged = self._credentials.narrow(self._tokens.verify(secret))
            if exchanged is None:
                raise InvalidToken("The credential that the token was exchanged for has ended.")
            return exchanged
        principal = self._credentials.find(secret)
        if principal is None or principal.kind is not PrincipalKind.API_KEY:
            raise InvalidToken("The API key is unknown, revoked or expired.")
        return principal

    def _select(self, scope: Scope, headers: dict[bytes, bytes]) -> Tenant | None:
        """The tenant that all selectors name; None without a selector."""
        chosen: Tenant | None = None
        for selected in self._selected(scope, headers):
            if selected is None or self._directory.is_purged(selected.id):
                raise TenantNotFound("There is no such tenant.")
            if chosen is not None and chosen.id != selected.id:
                raise TenantMismatch("The request names two different tenants.")
            chosen = selected
        return chosen

    def _selected(self, scope: Scope, headers: dict[bytes, bytes]) -> Sequence[Tenant | None]:
        """What each selector that is there names; None for one that names no known tenant."""
        selected: list[Tenant | None] = []
        host = headers.get(_HOST)
        if host is not None:
            self._select_by_host(host, selected)
        reference = headers.get(_TENANT_HEADER)
        if reference is not None:
            selected.append(self._resolve(reference, TENANT_HEADER))
        query = scope.get("query_string")
        if query and (_PARAMETER in query or b"%" in query):
            values = [value for name, value in _parse_query(query) if name == _PARAMETER]
            if len(values) > 1:
                raise MalformedRequest(f"The query parameter {TENANT_PARAMETER} is there more than once.")
            if values:
                selected.append(self._resolve(values[0], TENANT_PARAMETER))
        return selected

    def _select_by_host(self, host: bytes, selected: list[Tenant | None]) -> None:
        if not self._base_domains:
            return
        if not host.isascii():
            raise MalformedRequest("The header Host is not ASCII.")
        name = _host_name(host.decode())
        for domain in self._base_domains:
            if name == domain:
                return
            if name.endswith(domain) and name[-len(domain) - 1] == ".":
                label = name[: -len(domain) - 1]
                if label not in _RESERVED_LABELS:
                    selected.append(self._directory.by_slug(label))
                return

    def _resolve(self, raw: bytes, source: str) -> Tenant | None:
        if not raw or raw != raw.strip():
            raise MalformedRequest(f"{source} is empty or has spaces around it.")
        try:
            reference = raw.decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"{source} is not UTF-8.") from error
        if len(reference) > _MAX_REFERENCE_LENGTH or not reference.isprintable():
            raise MalformedRequest(f"{source} is not the id or the external id of a tenant.")
        tenant = self._directory.resolve(reference)
        # Only what names no tenant is taken for a list: a company's own ids may hold commas.
        if tenant is None and "," in reference:
            raise MalformedRequest(f"{source} names more than one tenant.")
        return tenant


def _read_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that decide about the caller. Raises `MalformedRequest` for one that is there twice."""
    read: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in read:
                # HTTP/2 allows several Cookie headers (RFC 9113, 8.2.3), which are one in parts.
                if name != _COOKIE:
                    raise MalformedRequest(f"The header {name.decode()} is there more than once.")
                read[name] += b"; " + value
            else:
                read[name] = value
    return read


def _session_secret(cookie: bytes) -> str | None:
    found = [
        value.strip()
        for name, _, value in (part.partition("=") for part in cookie.decode("latin-1").split(";"))
        if name.strip() == SESSION_COOKIE
    ]
    if len(found) > 1:
        raise MalformedRequest("There is more than one session cookie.")
    return found[0] if found else None


def _check_same_site(scope: Scope, headers: dict[bytes, bytes], secret: str) -> None:
    """A browser sends the cookie whoever asks; that our own page asks must be shown where it matters."""
    if scope["type"] == "websocket":
        # Its handshake may come from any page and cannot carry a header of ours; browsers always send the origin.
        origin, host = headers.get(_ORIGIN, b""), headers.get(_HOST, b"")
        if not host or origin.partition(b"://")[2].lower() != host.lower():
            raise CsrfRefused("The page that opens the connection is not one of this host.")
    elif scope["method"] not in _SAFE_METHODS and not _same(headers.get(_CSRF_HEADER), csrf_token(secret)):
        raise CsrfRefused(f"Send the page's token in {CSRF_HEADER}.")


def _same(given: bytes | None, expected: str) -> bool:
    return given is not None and hmac.compare_digest(given, expected.encode())


def _parse_query(query: bytes) -> list[tuple[bytes, bytes]]:
    # As latin-1, in which every byte is a character: parse_qsl refuses bytes that are not ASCII once unquoted.
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    except ValueError as error:
        raise MalformedRequest("The query cannot be read.") from error
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def _host_name(host: str) -> str:
    """The name in a Host header without port and trailing dot, in lower case."""
    name = host.lower()
    if not name.startswith("["):
        name = name.partition(":")[0]
    return name.rstrip(".")
