"""What this package raises for reasons of its own.

StartupRefused              ends the process
├── UnsafeRole              a role could get around row level security
├── MissingUrl              a role has no URL in this process
└── MigrationError          a migration tree is not what the runner expects
Unavailable                 503, may be tried again
├── UnknownStore            a placement names a store that this process has no URL for
└── ConnectionsExhausted    every connection of the tenants' own databases stayed in use
TenantryError               500, a defect of the product
├── UnusableTenantKey       a tenant has no key of the tenant column's type
├── ForeignRow              a row of another tenant was about to be written in a tenant's session
└── StatementRefused        a statement would change what a connection is bound to, or outlive its transaction
"""

from tenantry._errors import StartupRefused, TenantryError, Unavailable


class UnsafeRole(StartupRefused):
    """A role could get around row level security. The process must not start."""


class MissingUrl(StartupRefused):
    """The code needs a role that this process has no URL for."""


class MigrationError(StartupRefused):
    """A migration tree is not what the runner expects, or the database is newer than the tree."""


class UnknownStore(Unavailable):
    """A placement names a store that this process has no URL for. The tenant is not served from any other."""

    type = "store-unknown"
    title = "The tenant's store is not known to this service"


class ConnectionsExhausted(Unavailable):
    """Every connection that the tenants' own databases may have together stayed in use."""


class UnusableTenantKey(TenantryError):
    """A tenant has no key of the tenant column's type, such as an external id that is no number."""

    type = "unusable-tenant-key"
    title = "The tenant has no usable key"


class ForeignRow(TenantryError):
    """A row of another tenant was about to be written in a tenant's session. Nothing was sent."""

    type = "foreign-row"
    title = "The row belongs to another tenant"


class StatementRefused(TenantryError):
    """A statement would change what the connection is bound to, or leave settings behind on it. Nothing was sent."""

    type = "statement-refused"
    title = "The statement is not allowed on a tenant's connection"
