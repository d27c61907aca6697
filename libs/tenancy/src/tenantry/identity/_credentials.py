"""API keys and sessions: random secrets of which every service holds the hash (`tenant.credentials.v1`)."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from tenantry._clock import Clock, SystemClock
from tenantry.identity._principal import Principal, PrincipalKind

API_KEY_PREFIX: Final = "tk_"
SESSION_PREFIX: Final = "ts_"
SESSION_COOKIE: Final = "__Host-tenantry"
CSRF_HEADER: Final = "X-CSRF-Token"

# 32 random bytes in url-safe base64 without padding.
_SECRET: Final = re.compile(r"(tk|ts)_[A-Za-z0-9_-]{43}", re.ASCII)


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a record of `tenant.credentials.v1`; its key is `id`, its secret is known to the holder alone."""

    id: str
    kind: Literal["api_key", "session"]
    hash: str
    """Lower-case hex SHA-256 of the secret: 256 random bits need no slow hash."""
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
    """All keys and sessions, looked up by the hash of the secret. One event loop feeds and reads it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._principals: dict[str, Principal] = {}
        self._hashes: dict[str, str] = {}
        self.version = 0

    def __len__(self) -> int:
        return len(self._principals)

    def upsert(self, credential: Credential) -> None:
        """Take in the latest state of a credential; one that is not active is forgotten. May be repeated."""
        self._forget(credential.id)
        if credential.status == "active":
            self._hashes[credential.id] = credential.hash
            self._principals[credential.hash] = Principal(
                subject=credential.subject,
                kind=PrincipalKind(credential.kind),
                tenant_id=credential.tenant_id,
                scopes=credential.scopes,
                credential_id=credential.id,
                expires_at=credential.expires_at,
            )
        self.version += 1

    def remove(self, credential_id: str) -> None:
        """Forget a credential after its tombstone. May be repeated."""
        self._forget(credential_id)
        self.version += 1

    def find(self, secret: str) -> Principal | None:
        """The holder of a key or session; None for one that is unknown, revoked or expired.

        The look-up is by hash, so its time tells nothing about how much of a guess was right.
        """
        if _SECRET.fullmatch(secret) is None:
            return None
        principal = self._principals.get(secret_hash(secret))
        if principal is None or (principal.expires_at is not None and principal.expires_at <= self._clock.now()):
            return None
        return principal

    def _forget(self, credential_id: str) -> None:
        known = self._hashes.pop(credential_id, None)
        if known is not None:
            self._principals.pop(known, None)
