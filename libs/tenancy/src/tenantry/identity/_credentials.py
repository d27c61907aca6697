"""API keys, sessions and grants of support access, of which every service knows those that live.

They are the records of `tenant.credentials.v1`. Keys and sessions are random secrets, known here by their hash. A token
that was exchanged for any of them names it, and is good only while it lives: what ends a credential ends its tokens.
"""

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from tenantry._clock import Clock, SystemClock
from tenantry.identity._principal import Principal, PrincipalKind
from tenantry.identity._revocations import TokenRevocations

API_KEY_PREFIX: Final = "tk_"
SESSION_PREFIX: Final = "ts_"
SESSION_COOKIE: Final = "__Host-tenantry"
CSRF_HEADER: Final = "X-CSRF-Token"

# A token may arrive before the record of the credential that it was exchanged for: so long, an unknown one is taken to
# be on its way. One that has been withdrawn is remembered, so this never brings anything back.
SETTLING: Final = timedelta(seconds=5)
_REMEMBERED: Final = 20_000

# 32 random bytes in url-safe base64 without padding.
_SECRET: Final = re.compile(r"(tk|ts)_[A-Za-z0-9_-]{43}", re.ASCII)


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `tenant.credentials.v1`; its key is `id`, its secret is known to the holder alone."""

    id: str
    kind: Literal["api_key", "session", "support"]
    hash: str = ""
    """Lower-case hex SHA-256 of the secret: 256 random bits need no slow hash. Empty: only tokens are made of it."""
    tenant_id: UUID | None = None
    subject: str
    scopes: frozenset[str] = frozenset()
    expires_at: datetime | None = None
    status: Literal["active", "revoked"] = "active"


def new_api_key() -> str:
    """A secret of 256 random bits, to be shown once."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def new_session_secret() -> str:
    """The value of a session cookie."""
    return SESSION_PREFIX + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """What is stored and published instead of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def csrf_token(session_secret: str) -> str:
    """What a page that is signed in by cookie sends in `X-CSRF-Token` with every write."""
    return hmac.new(session_secret.encode(), b"csrf", hashlib.sha256).hexdigest()


class CredentialStore:
    """All live credentials, by the hash of their secret and by id. One event loop feeds and reads it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._principals: dict[str, Principal] = {}
        self._hashes: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._withdrawn: OrderedDict[str, None] = OrderedDict()
        self.revocations = TokenRevocations(self._clock)
        """Tokens of trusted issuers that are refused before their end."""
        self.version = 0

    def __len__(self) -> int:
        return len(self._principals)

    def upsert(self, credential: Credential) -> None:
        """Take in the latest state of a credential; one that is not active is forgotten. May be repeated."""
        self._forget(credential.id)
        if credential.status == "active":
            self._withdrawn.pop(credential.id, None)
            if credential.hash:
                self._hashes[credential.id] = credential.hash
                self._ids[credential.hash] = credential.id
            self._principals[credential.id] = Principal(
                subject=credential.subject,
                kind=PrincipalKind(credential.kind),
                tenant_id=credential.tenant_id,
                scopes=credential.scopes,
                credential_id=credential.id,
                expires_at=credential.expires_at,
            )
        else:
            self._remember_withdrawn(credential.id)
        self.version += 1

    def remove(self, credential_id: str) -> None:
        """Forget a credential after its tombstone. May be repeated."""
        self._forget(credential_id)
        self._remember_withdrawn(credential_id)
        self.version += 1

    def find(self, secret: str) -> Principal | None:
        """The holder of a key or session; None for one that is unknown, revoked or expired.

        The look-up is by hash, so its time tells nothing about how much of a guess was right.
        """
        if _SECRET.fullmatch(secret) is None:
            return None
        credential_id = self._ids.get(secret_hash(secret))
        return None if credential_id is None else self._live(credential_id)

    def narrow(self, principal: Principal) -> Principal | None:
        """The holder of an exchanged token, with what its credential allows now; None where that has ended.

        A principal that was not exchanged for anything comes back as it is.
        """
        if principal.exchanged_at is None:
            return principal
        credential = self._live(principal.credential_id)
        if credential is None:
            known = principal.credential_id in self._principals or principal.credential_id in self._withdrawn
            settling = self._clock.now() - principal.exchanged_at < SETTLING
            return principal if settling and not known else None
        if credential.tenant_id != principal.tenant_id:
            return None
        granted = frozenset(scope for scope in principal.scopes if credential.has_any(scope))
        return principal if granted == principal.scopes else msgspec.structs.replace(principal, scopes=granted)

    def _live(self, credential_id: str) -> Principal | None:
        principal = self._principals.get(credential_id)
        if principal is None or (principal.expires_at is not None and principal.expires_at <= self._clock.now()):
            return None
        return principal

    def _forget(self, credential_id: str) -> None:
        self._principals.pop(credential_id, None)
        known = self._hashes.pop(credential_id, None)
        if known is not None:
            self._ids.pop(known, None)

    def _remember_withdrawn(self, credential_id: str) -> None:
        self._withdrawn[credential_id] = None
        self._withdrawn.move_to_end(credential_id)
        if len(self._withdrawn) > _REMEMBERED:
            self._withdrawn.popitem(last=False)
