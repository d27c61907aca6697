"""Tokens of other issuers that are not accepted any more, though their issuer still says that they are good.

Nobody can be asked about such a token when it comes, so what is known beforehand is from when on a person's tokens must
have been issued: in one tenant, or in all of them.
"""

import hashlib
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from tenantry._clock import Clock, SystemClock

REVOCATION_PREFIX: Final = "revocation/"
"""What the keys of such records begin with on `tenant.credentials.v1`."""


class TokenRevocation(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `tenant.credentials.v1` under the key `revocation/<id>`."""

    id: str
    holder: str
    """`holder_of` the issuer and the subject: who it is about is nobody's business who reads the topic."""
    tenant_id: UUID | None = None
    """Only what a token means in this tenant is refused; None: what it means in any."""
    not_before: datetime
    """Tokens that were issued earlier (`iat`, in whole seconds) are refused."""
    expires_at: datetime
    """When no token can be left that it is about."""


def holder_of(issuer: str, subject: str) -> str:
    """Lower-case hex SHA-256 of a token's `iss` and `sub`."""
    return hashlib.sha256(f"{len(issuer)}:{issuer}{subject}".encode()).hexdigest()


class TokenRevocations:
    """All that live, by holder. One event loop feeds and reads it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._by_id: dict[str, TokenRevocation] = {}
        self._by_holder: dict[str, dict[str, TokenRevocation]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def upsert(self, revocation: TokenRevocation) -> None:
        """Take in the latest state of a revocation. May be repeated."""
        self.remove(revocation.id)
        if revocation.expires_at > self._clock.now():
            self._by_id[revocation.id] = revocation
            self._by_holder.setdefault(revocation.holder, {})[revocation.id] = revocation

    def remove(self, revocation_id: str) -> None:
        """Forget a revocation after its tombstone. May be repeated."""
        known = self._by_id.pop(revocation_id, None)
        if known is None:
            return
        others = self._by_holder[known.holder]
        del others[revocation_id]
        if not others:
            del self._by_holder[known.holder]

    def refuses(self, holder: str, tenant_id: UUID, issued_at: datetime) -> bool:
        """Whether a token of `holder` that was issued then is refused in this tenant."""
        return any(
            issued_at < each.not_before and each.tenant_id in {None, tenant_id}
            for each in self._by_holder.get(holder, {}).values()
        )
