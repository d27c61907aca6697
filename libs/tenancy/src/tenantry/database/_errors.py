"""What this package raises for reasons of its own.

StartupRefused              ends the process
├── UnsafeRole              a role could get around row level security
├── UnknownStore            a store or a role has no URL in this process
└── MigrationError          a migration tree is not what the runner expects
Unavailable                 503, may be tried again
└── ConnectionsExhausted    every connection of the tenants' own databases stayed in use
"""

from tenantry._errors import StartupRefused, Unavailable


class UnsafeRole(StartupRefused):
    """A role could get around row level security. The process must not start."""


class UnknownStore(StartupRefused):
    """A placement names a store, or the code a role, that this process has no URL for."""


class MigrationError(StartupRefused):
    """A migration tree is not what the runner expects, or the database is newer than the tree."""


class ConnectionsExhausted(Unavailable):
    """Every connection that the tenants' own databases may have together stayed in use."""
