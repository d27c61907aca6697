"""Host names and e-mail addresses in the one spelling that they are compared in."""

import re
import unicodedata
from collections.abc import Collection

import idna

HOST_NAME_MAX_LENGTH = 253
EMAIL_MAX_LENGTH = 254
EMAIL_LOCAL_MAX_LENGTH = 64

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)

# Names that are nobody's to prove (RFC 6761 and its successors, and what networks use inside).
_SPECIAL = frozenset(
    {"alt", "arpa", "example", "home", "internal", "invalid", "lan", "local", "localhost", "onion", "test"}
)


def normalise_host_name(text: str) -> str:
    """The name in lower-case ASCII (IDNA 2008), without a trailing dot. Raises ValueError with the reason.

    It has at least two labels and is no address.
    """
    name = text.removesuffix(".")
    if not name.isprintable() or not name or len(name) > HOST_NAME_MAX_LENGTH:
        raise ValueError(f"a host name has 1 to {HOST_NAME_MAX_LENGTH} printable characters")
    try:
        ascii_name = idna.encode(name, uts46=True, transitional=False).decode().lower()
    except idna.IDNAError:
        raise ValueError("not a host name") from None
    labels = ascii_name.split(".")
    if len(ascii_name) > HOST_NAME_MAX_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name")
    if len(labels) == 1:
        raise ValueError("a host name has at least two parts, as in example.com")
    if labels[-1].isdigit():
        raise ValueError("an address is not a host name")
    return ascii_name


def check_claimable(domain: str, base_domains: Collection[str]) -> str:
    """`domain`, normalised, where a tenant may claim it. Raises ValueError with the reason.

    There is no list of public suffixes: nobody but a registry can put the proof below `co.uk`, so a claim on it stays
    pending for ever.
    """
    name = normalise_host_name(domain)
    if name.rpartition(".")[2] in _SPECIAL:
        raise ValueError("this is a name for special use, which nobody owns")
    for base in base_domains:
        platform = base.lower().strip(".")
        if name == platform or name.endswith(f".{platform}"):
            raise ValueError(f"names at and below {platform} belong to the platform")
    return name


def normalise_email(text: str) -> str:
    """The address in the spelling by which people are found. Raises ValueError with the reason.

    The part before the @ is compared without regard to case as well: no provider in use tells Ann@ from ann@, and two
    persons behind one mailbox would be two ways into it. It is not a proof that mail arrives: an invitation is.
    """
    address = unicodedata.normalize("NFKC", text.strip())
    local, at, host = address.rpartition("@")
    if not at or not 1 <= len(local) <= EMAIL_LOCAL_MAX_LENGTH or len(address) > EMAIL_MAX_LENGTH:
        raise ValueError("not an e-mail address")
    if "@" in local or not local.isprintable() or any(c.isspace() for c in local) or set(local) & set('"<>()[],;:\\'):
        raise ValueError("not an e-mail address")
    try:
        return f"{local.lower()}@{normalise_host_name(host)}"
    except ValueError:
        raise ValueError("not an e-mail address") from None
