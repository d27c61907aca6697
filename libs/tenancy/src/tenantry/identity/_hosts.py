"""The name that a request was sent to: whose it is, and whether it is one of ours at all."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from tenantry._errors import MalformedRequest, NotFound
from tenantry.identity._headers import FORWARDED_HOST, HOST

_NAME: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?", re.ASCII)
_REMEMBERED: Final = 4096


class UnknownHost(NotFound):
    """The request was sent to a name that this service does not answer to; the same answer as for any other 404."""


class Hosts:
    """Reads the host of a request. Holds no tenants: those change, what is here does not."""

    def __init__(
        self,
        *,
        base_domains: Iterable[str] = (),
        own: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        """`base_domains` are those below which the first label is a slug, `own` the service's other names.

        Where `own` is not empty every other name is unknown, domains of tenants apart. `trusted_proxies` are networks
        (CIDR) whose `X-Forwarded-Host` is believed; everybody else's is not looked at. Raises `ValueError` for what is
        no network.
        """
        # The longest first: of two that both fit, the name lies below the nearer one.
        self._bases = tuple(sorted((domain.lower().strip(".") for domain in base_domains), key=len, reverse=True))
        self._own = frozenset(name.lower().strip(".") for name in own)
        self._proxies = tuple(ip_network(network) for network in trusted_proxies)

    @property
    def strict(self) -> bool:
        return bool(self._own)

    def read(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str | None:
        """The name in lower case, without port and final dot; None for a request without one.

        Raises `MalformedRequest` for what is no host name, a list of a trusted proxy among it.
        """
        raw = headers.get(HOST)
        if FORWARDED_HOST in headers and self._from_proxy(scope):
            raw = headers[FORWARDED_HOST]
        return None if raw is None else _normalise(raw)

    def label(self, name: str) -> str | None:
        """What stands before a base domain, such as a slug; None for a name that is not below one."""
        for domain in self._bases:
            if name == domain:
                return None
            if name.endswith(domain) and name[-len(domain) - 1] == ".":
                return name[: -len(domain) - 1]
        return None

    def is_own(self, name: str | None) -> bool:
        """Whether the service answers to the name, whoever's it is. All names are where none were given."""
        if not self._own or name in self._own or name in self._bases:
            return True
        return name is not None and self.label(name) is not None

    def _from_proxy(self, scope: Scope) -> bool:
        client: tuple[str, int] | None = scope.get("client")
        return client is not None and _is_within(client[0], self._proxies)


def _is_within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False  # a socket of this machine has a path for an address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


@lru_cache(maxsize=_REMEMBERED)
def _normalise(raw: bytes) -> str:
    # A name in other scripts arrives as punycode, which is ASCII; its characters themselves are no host name.
    found = _NAME.fullmatch(raw.decode("latin-1").lower())
    if found is None:
        raise MalformedRequest("The header Host is not one host name.")
    return found[1].removesuffix(".")
