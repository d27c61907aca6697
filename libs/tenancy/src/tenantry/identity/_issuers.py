"""Issuers of tokens that are trusted beside, or instead of, the tenant service: a company's identity provider."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Final, Literal, Protocol, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

ASYMMETRIC_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
TenantScope = Literal["tenant:admin", "tenant:write", "tenant:read", "tenant:billing"]
ClaimPath = Annotated[tuple[str, ...], Field(min_length=1, max_length=5)]

_LONGEST_LIFETIME: Final = 604_800
_MOST_SKEW: Final = 120
LONGEST_ISSUED_LIFETIME: Final = timedelta(seconds=_LONGEST_LIFETIME + _MOST_SKEW)
"""For how long after it was issued a token of a trusted issuer may be accepted anywhere, at most."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_path(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class TenantClaim(_Document):
    """Which claim names the tenant, and by what. It must hold exactly one text."""

    claim: ClaimPath
    """A name, or the names on the way to a nested claim, as in `["realm_access", "org"]`."""
    names: Literal["id", "external_id", "slug"] = "external_id"

    _path = field_validator("claim", mode="before")(_as_path)


class ScopeClaim(_Document):
    """Which claim holds roles or permissions (a list, or a text with spaces), and what they stand for here."""

    claim: ClaimPath
    map: dict[str, TenantScope]

    _path = field_validator("claim", mode="before")(_as_path)


class TrustedIssuer(_Document):
    """An issuer whose tokens say who a person is. Whatever it says, it never grants `platform` or `service`."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")]
    """For logs, and in front of every subject: two issuers may both know a `user-1`."""
    issuer: str
    """The claim `iss`, to the letter."""
    audiences: Annotated[tuple[str, ...], Field(min_length=1)]
    """The token is for one of these; never empty, or the token of any application of the issuer would do."""
    jwks_uri: str | None = None
    """Where its keys are; None asks its discovery document."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    tenant: TenantClaim | None = None
    bound_to: str | None = None
    """The one tenant (id or external id) that this issuer may speak of."""
    scopes: ScopeClaim | None = None
    default_scopes: frozenset[TenantScope] = frozenset()
    """What everybody gets whom the issuer lets in; nothing unless it is said."""
    max_lifetime_seconds: int = Field(default=86_400, ge=60, le=_LONGEST_LIFETIME)
    clock_skew_seconds: int = Field(default=30, ge=0, le=_MOST_SKEW)

    @field_validator("issuer", "jwks_uri")
    @classmethod
    def _secure(cls, url: str | None) -> str | None:
        return url if url is None else check_url(url)

    @model_validator(mode="after")
    def _names_a_tenant(self) -> Self:
        if self.tenant is None and self.bound_to is None:
            raise ValueError("say which claim names the tenant (tenant), or which tenant it is (bound_to)")
        return self

    @property
    def discovery_url(self) -> str:
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


class IssuerRegistry(Protocol):
    """The trusted issuers: of the platform, and of single tenants."""

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    def find(self, issuer: str) -> TrustedIssuer | None:
        """The issuer with exactly this `iss`."""
        ...

    def __iter__(self) -> Iterator[TrustedIssuer]: ...


class StaticIssuers:
    """Issuers that do not change while the process runs, such as those of `TENANTRY_TRUSTED_ISSUERS`."""

    def __init__(self, issuers: Iterable[TrustedIssuer] = ()) -> None:
        """Raises `ValueError` where two have the same `iss` or name: a tenant's issuer is nobody else's."""
        known = tuple(issuers)
        self._issuers = {issuer.issuer: issuer for issuer in known}
        if len(self._issuers) < len(known) or len({issuer.name for issuer in known}) < len(known):
            raise ValueError("a trusted issuer stands there twice")
        self.version = 0

    def find(self, issuer: str) -> TrustedIssuer | None:
        return self._issuers.get(issuer)

    def __iter__(self) -> Iterator[TrustedIssuer]:
        return iter(self._issuers.values())

    def __len__(self) -> int:
        return len(self._issuers)


def check_url(url: str) -> str:
    """`url`, where keys may be fetched from it. Raises `ValueError` for anything but https, loopback apart."""
    parts = urlsplit(url)
    if parts.hostname is None or parts.username is not None or parts.password is not None:
        raise ValueError(f"{url!r} is not the address of an issuer")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError(f"{url!r} is not https")
    return url
