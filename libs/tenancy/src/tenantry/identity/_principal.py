"""Who makes a request, once a credential has been verified."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec


class PrincipalKind(StrEnum):
    """What stands behind a credential."""

    USER = "user"
    SERVICE = "service"
    OPERATOR = "operator"
    API_KEY = "api_key"
    SESSION = "session"
    SUPPORT = "support"
    """An operator inside one tenant, for a stated reason and a short time; `Principal.actor` says who."""


class Scope(StrEnum):
    """What a credential allows. `PLATFORM` and `SERVICE` act for any tenant, the others for their own only."""

    PLATFORM = "platform"
    SERVICE = "service"
    DELIVER = "identity:deliver"
    """For the company's mailer, beside `SERVICE`: to ask for the codes by which people get in."""
    TOKENS = "usage:tokens"
    """For an operator, beside `PLATFORM`: to read back what tokens in events stand for."""
    TENANT_ADMIN = "tenant:admin"
    TENANT_WRITE = "tenant:write"
    TENANT_READ = "tenant:read"
    TENANT_BILLING = "tenant:billing"
    """What the tenant owes and pays. No other scope implies it, and it implies no other."""


_ANY_TENANT: Final = frozenset({Scope.PLATFORM, Scope.SERVICE})
_IMPLIED: Final = {
    Scope.TENANT_ADMIN: frozenset({Scope.TENANT_WRITE, Scope.TENANT_READ}),
    Scope.TENANT_WRITE: frozenset({Scope.TENANT_READ}),
}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A verified caller. `credential_id` names the token, key or session, never its secret."""

    subject: str
    kind: PrincipalKind
    tenant_id: UUID | None = None
    scopes: frozenset[str] = frozenset()
    credential_id: str
    expires_at: datetime | None = None
    actor: str | None = None
    """Who really acts, where that is not the subject: the operator behind a support token, the person for whom a
    service calls."""
    exchanged_at: datetime | None = None
    """When this token was issued for the credential `credential_id`, with which it ends; None for all others."""
    confirmation: str | None = None
    """Thumbprint of the key with which this service signs the contexts of its calls; None for all others."""

    @property
    def acts_for_any_tenant(self) -> bool:
        """Whether a selector of the request decides the tenant. Never for a credential that is bound to one."""
        return self.tenant_id is None and not _ANY_TENANT.isdisjoint(self.scopes)

    def has_any(self, *scopes: str) -> bool:
        """Whether one of `scopes` is granted, or implied: admin holds write, write holds read."""
        return not self.scopes.isdisjoint(scopes) or any(
            not _IMPLIED.get(Scope(held), frozenset()).isdisjoint(scopes) for held in self.scopes if held in _IMPLIED
        )
