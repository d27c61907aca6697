"""What this package raises for reasons of its own; all of them end a process or a request, none is retried.

DatabaseError
├── UnsafeRole          a role could get around row level security
├── UnknownStore        a placement names a store that this process has no URL for
├── ConnectionsExhausted  every connection of the tenants' own databases is in use
└── MigrationError      a migration tree is not what the runner expects
"""


class DatabaseError(Exception):
    """The root of this package's own errors."""


class UnsafeRole(DatabaseError):
    """A role could get around row level security. The process must not start."""


class UnknownStore(DatabaseError):
    """A placement names a store that this process has no URL for."""


class ConnectionsExhausted(DatabaseError):
    """Every connection that the tenants' own databases may have together stayed in use. May be tried again."""


class MigrationError(DatabaseError):
    """A migration tree is not what the runner expects."""
