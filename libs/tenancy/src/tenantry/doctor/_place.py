"""The URL of a database: what of it the driver is given, and what of it is shown."""

from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from tenantry.doctor._errors import DoctorFailed

# libpq's connection parameters that the driver knows. It would send any other to the server as a setting, and
# what is only meant for another driver (channel_binding, pgbouncer, schema) would keep the connection from being made.
_PARAMETERS: Final = frozenset(
    {
        *("host", "port", "user", "password", "dbname", "database", "passfile", "service", "servicefile", "options"),
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib"),
    }
)


def place_of(url: str) -> str:
    """Which database `url` means, for people: no password and no parameters."""
    parts = split_url(url)
    user = f"{unquote(parts.username)}@" if parts.username else ""
    return f"{user}{parts.hostname or 'localhost'}{parts.path}"


def split_url(url: str) -> SplitResult:
    """Raises `DoctorFailed` for what is no URL of PostgreSQL."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise DoctorFailed("the URL cannot be read") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme not in {"postgres", "postgresql"}:
        raise DoctorFailed("the URL must begin with postgresql://")
    return parts._replace(scheme="postgresql")


def driver_url(parts: SplitResult) -> str:
    """As asyncpg takes it."""
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name in _PARAMETERS])
    return parts._replace(query=query).geturl()


def without_password(error: BaseException, parts: SplitResult) -> str:
    """What the error says, for people."""
    text = " ".join(str(error).split()) or type(error).__name__
    secrets = [parts.password, *(value for name, value in parse_qsl(parts.query) if "password" in name)]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***").replace(unquote(secret), "***")
    return text
