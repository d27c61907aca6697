"""What a request says of its tenant beside its credential: host, path, header and query.

None of it is believed. Each names a tenant or it does not, and all that are there must name the same one.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Scope

from tenantry._directory import TenantDirectory
from tenantry._errors import MalformedRequest
from tenantry._tenant import Tenant
from tenantry.identity._headers import TENANT, TENANT_HEADER
from tenantry.identity._hosts import Hosts, UnknownHost

TENANT_PARAMETER: Final = "tenant_id"
PATH_PREFIX: Final = "/t/"

_SLUG_KEY: Final = "tenantry.slug"
_MAX_REFERENCE_LENGTH: Final = 128
_PARAMETER: Final = TENANT_PARAMETER.encode()
# First labels that are names of the service itself, never of a tenant.
_RESERVED_LABELS: Final = frozenset({"www", "api", "app", "admin", "console", "portal"})


class Selector(StrEnum):
    """A place in which a request may name its tenant."""

    DOMAIN = "domain"
    """The host is a name that a tenant has proven to be its own."""
    SUBDOMAIN = "subdomain"
    """The host is a slug below one of the base domains."""
    PATH = "path"
    """The path begins with `/t/{slug}`, which is cut off before routing."""
    HEADER = "header"
    """`X-Tenant-ID`, an id or an external id."""
    QUERY = "query"
    """`?tenant_id=`, an id or an external id."""


DEFAULT_SELECTORS: Final = (Selector.DOMAIN, Selector.SUBDOMAIN, Selector.HEADER, Selector.QUERY)


class Selected(NamedTuple):
    """What one selector names; `tenant` is None where it names none that is known."""

    selector: Selector
    tenant: Tenant | None


class Selectors:
    """Reads the selectors that are in use, from local state only."""

    def __init__(self, directory: TenantDirectory, hosts: Hosts, chosen: Iterable[Selector]) -> None:
        self._directory = directory
        self._hosts = hosts
        self._chosen = frozenset(chosen)
        self._by_host = bool(self._chosen & {Selector.DOMAIN, Selector.SUBDOMAIN}) or hosts.strict

    def route(self, scope: Scope) -> Scope:
        """The scope with which the application is called: without `/t/{slug}` where paths select.

        Raises `MalformedRequest` for a prefix that names no slug, or stands there twice.
        """
        path = scope["path"]
        if Selector.PATH not in self._chosen or not path.startswith(PATH_PREFIX):
            return scope
        slug, _, rest = path[len(PATH_PREFIX) :].partition("/")
        if not slug or slug != slug.strip() or f"/{rest}".startswith(PATH_PREFIX):
            raise MalformedRequest(f"The path does not begin with exactly one {PATH_PREFIX}{{slug}}.")
        return {**scope, "path": f"/{rest}", _SLUG_KEY: slug}

    def check_host(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str | None:
        """The name that the request was sent to. Raises `UnknownHost` where it is not one of ours."""
        if not self._by_host:
            return None
        name = self._hosts.read(scope, headers)
        if not self._hosts.is_own(name) and (name is None or self._directory.by_domain(name) is None):
            raise UnknownHost("There is nothing at this address.")
        return name

    def read(self, scope: Scope, headers: Mapping[bytes, bytes], name: str | None) -> Sequence[Selected]:
        """What each selector names; `name` is what `check_host` has returned."""
        found: list[Selected] = []
        if name is not None:
            self._read_host(name, found)
        slug = scope.get(_SLUG_KEY)
        if slug is not None:
            found.append(Selected(Selector.PATH, self._directory.by_slug(slug)))
        reference = headers.get(TENANT)
        if reference is not None and Selector.HEADER in self._chosen:
            found.append(Selected(Selector.HEADER, self._resolve(reference, TENANT_HEADER)))
        query = scope.get("query_string")
        if query and (_PARAMETER in query or b"%" in query) and Selector.QUERY in self._chosen:
            values = [value for name, value in _parse_query(query) if name == _PARAMETER]
            if len(values) > 1:
                raise MalformedRequest(f"The query parameter {TENANT_PARAMETER} is there more than once.")
            if values:
                found.append(Selected(Selector.QUERY, self._resolve(values[0], TENANT_PARAMETER)))
        return found

    def _read_host(self, name: str, found: list[Selected]) -> None:
        if Selector.DOMAIN in self._chosen:
            tenant = self._directory.by_domain(name)
            if tenant is not None:
                found.append(Selected(Selector.DOMAIN, tenant))
                return
        if Selector.SUBDOMAIN in self._chosen:
            label = self._hosts.label(name)
            if label is not None and label not in _RESERVED_LABELS:
                found.append(Selected(Selector.SUBDOMAIN, self._directory.by_slug(label)))

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


def _parse_query(query: bytes) -> list[tuple[bytes, bytes]]:
    # As latin-1, in which every byte is a character: parse_qsl refuses bytes that are not ASCII once unquoted.
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    except ValueError as error:
        raise MalformedRequest("The query cannot be read.") from error
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
