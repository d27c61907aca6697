"""What the domain refuses.

    ValueError
    ├── InvalidQuantity      a value that no meter can count (rule 5)
    ├── InvalidPath          a JSONPath outside of what meters may use
    ├── InvalidDefinition    a meter that cannot be
    ├── InvalidWindow        a range or window a query cannot answer
    ├── InvalidGrant         a grant, quota or burn-down that cannot be
    └── InvalidEvent         an event the ingest refuses, with the place inside the event

The HTTP layer turns them into problems; the worker turns them into dead letters.
"""

from __future__ import annotations


class InvalidQuantity(ValueError):
    """Not a finite JSON number or numeric string within the bounds of `quantities`."""


class InvalidPath(ValueError):
    """Not a JSONPath of names and indices."""


class InvalidDefinition(ValueError):
    """`loc` names the field of the meter definition."""

    def __init__(self, loc: str, reason: str) -> None:
        super().__init__(reason)
        self.loc = loc
        self.reason = reason


class InvalidWindow(ValueError):
    """`loc` names the query parameter."""

    def __init__(self, loc: str, reason: str) -> None:
        super().__init__(reason)
        self.loc = loc
        self.reason = reason


class InvalidGrant(ValueError):
    """`loc` names the field of the grant, the quota or the feature."""

    def __init__(self, loc: str, reason: str) -> None:
        super().__init__(reason)
        self.loc = loc
        self.reason = reason


class InvalidEvent(ValueError):
    """`loc` names the attribute of the event; `kind` is a stable slug for clients that branch on it."""

    def __init__(self, loc: str, reason: str, *, kind: str = "invalid") -> None:
        super().__init__(reason)
        self.loc = loc
        self.reason = reason
        self.kind = kind
