"""Who makes a request, and for which tenant."""

from tenantry.identity._credentials import (
    API_KEY_PREFIX,
    CSRF_HEADER,
    SESSION_COOKIE,
    SESSION_PREFIX,
    Credential,
    CredentialStore,
    csrf_token,
    new_api_key,
    new_session_secret,
    secret_hash,
)
from tenantry.identity._keys import KeySet
from tenantry.identity._principal import Principal, PrincipalKind, Scope

__all__ = [
    "API_KEY_PREFIX",
    "CSRF_HEADER",
    "SESSION_COOKIE",
    "SESSION_PREFIX",
    "Credential",
    "CredentialStore",
    "KeySet",
    "Principal",
    "PrincipalKind",
    "Scope",
    "csrf_token",
    "new_api_key",
    "new_session_secret",
    "secret_hash",
]
