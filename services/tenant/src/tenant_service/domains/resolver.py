"""TXT records: from DNS, or from the hands of a test."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from dns.nameserver import Do53Nameserver

from tenantry import Unavailable

# A name server gets this long to answer, and all of them together so long.
TIMEOUT_SECONDS = 2.0
LIFETIME_SECONDS = 5.0
DNS_PORT = 53


class ResolverUnavailable(Unavailable):
    """Nobody can tell at the moment what the records are."""

    type = "dns-unavailable"
    title = "The name servers do not answer"


class TxtResolver(Protocol):
    """Looks up TXT records."""

    async def txt(self, name: str) -> Sequence[str]:
        """The records at `name`, none where there are none. Raises `ResolverUnavailable`."""
        ...


class DnsResolver:
    """Asks these name servers, or those of the machine. Nothing is cached: whoever asks has just changed something."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        """`servers` are addresses, as in `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`.

        Raises `ValueError` for what is none.
        """
        self._servers = [_name_server(server) for server in servers]
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def txt(self, name: str) -> Sequence[str]:
        try:
            answer = await self._open().resolve(name, dns.rdatatype.TXT, lifetime=LIFETIME_SECONDS, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise ResolverUnavailable(f"No answer about {name}: {type(error).__name__}", retry_after=30) from error
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]

    def _open(self) -> dns.asyncresolver.Resolver:
        """Made when it is first needed: a machine without /etc/resolv.conf runs everything else."""
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            self._resolver.timeout = TIMEOUT_SECONDS
            if self._servers:
                self._resolver.nameservers = [*self._servers]
        return self._resolver


def _name_server(server: str) -> Do53Nameserver:
    parts = urlsplit(f"//[{server}]" if server.count(":") > 1 and not server.startswith("[") else f"//{server}")
    return Do53Nameserver(str(ip_address(parts.hostname or "")), parts.port or DNS_PORT)


class FixedResolver:
    """The in-process peer: what it was given, and `down` for name servers that do not answer."""

    def __init__(self, records: Mapping[str, Sequence[str]] | None = None) -> None:
        self.records = dict(records or {})
        self.down = False

    async def txt(self, name: str) -> Sequence[str]:
        if self.down:
            raise ResolverUnavailable(f"No answer about {name}", retry_after=30)
        return self.records.get(name, [])
