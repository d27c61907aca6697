"""What a tenant may be called."""

import re
from uuid import UUID

EXTERNAL_ID_MAX_LENGTH = 128
# Names that a company gives to its own things: tiers, plans, regions, stores.
CODE_PATTERN = r"^[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?$"
SLUG_MIN_LENGTH = 2
SLUG_MAX_LENGTH = 63  # a slug is a DNS label

# Names that a host or a path of the platform may need, or that would let a tenant pose as the platform.
RESERVED_SLUGS = frozenset(
    [
        "account",
        "accounts",
        "admin",
        "administrator",
        "api",
        "app",
        "apps",
        "assets",
        "auth",
        "autodiscover",
        "billing",
        "blog",
        "cdn",
        "console",
        "dashboard",
        "demo",
        "dev",
        "docs",
        "download",
        "downloads",
        "email",
        "events",
        "ftp",
        "git",
        "health",
        "healthz",
        "help",
        "home",
        "host",
        "hostmaster",
        "id",
        "imap",
        "info",
        "internal",
        "invoices",
        "localhost",
        "login",
        "logout",
        "mail",
        "me",
        "metrics",
        "mx",
        "news",
        "noc",
        "ns",
        "oauth",
        "operator",
        "ops",
        "platform",
        "pop",
        "portal",
        "postmaster",
        "preview",
        "prod",
        "production",
        "readyz",
        "registry",
        "root",
        "sandbox",
        "search",
        "security",
        "service",
        "services",
        "session",
        "sessions",
        "signin",
        "signup",
        "smtp",
        "ssl",
        "staging",
        "static",
        "status",
        "store",
        "support",
        "system",
        "tenant",
        "tenants",
        "test",
        "tests",
        "usage",
        "users",
        "vpn",
        "webhooks",
        "webmail",
        "webmaster",
        "well-known",
        "wiki",
        "www",
    ]
)

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)


def check_slug(slug: str) -> str:
    """`slug`, where it is a lower-case DNS label that may be given to a tenant; raises ValueError with the reason."""
    if not SLUG_MIN_LENGTH <= len(slug) <= SLUG_MAX_LENGTH:
        raise ValueError(f"a slug has {SLUG_MIN_LENGTH} to {SLUG_MAX_LENGTH} characters")
    if not _SLUG.fullmatch(slug):
        raise ValueError("a slug is made of a-z, 0-9 and inner hyphens")
    if slug[2:4] == "--":
        raise ValueError("a slug has no hyphens in places 3 and 4: such host names are encoded ones (RFC 5891)")
    if slug in RESERVED_SLUGS:
        raise ValueError("this slug is reserved")
    if as_uuid(slug) is not None:
        raise ValueError("a slug must not be a UUID: it would be read as a tenant id")
    return slug


def check_external_id(external_id: str) -> str:
    """`external_id`, where it can never be mistaken for a tenant id; raises ValueError with the reason."""
    if not 1 <= len(external_id) <= EXTERNAL_ID_MAX_LENGTH:
        raise ValueError(f"an external id has 1 to {EXTERNAL_ID_MAX_LENGTH} characters")
    if not external_id.isprintable() or external_id != external_id.strip():
        raise ValueError("an external id is made of printable characters and neither starts nor ends with a space")
    if as_uuid(external_id) is not None:
        raise ValueError("an external id must not be a UUID: it would be read as a tenant id")
    return external_id


def as_uuid(text: str) -> UUID | None:
    """The UUID that `text` spells in any of the forms Python reads, or None."""
    try:
        return UUID(text)
    except ValueError:
        return None
