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
from tenantry.identity._identify import TENANT_HEADER, TENANT_PARAMETER, CsrfRefused, Identifier, Identity
from tenantry.identity._keys import KeySet
from tenantry.identity._principal import Principal, PrincipalKind, Scope
from tenantry.identity._service_tokens import ServiceTokens
from tenantry.identity._tokens import ALGORITHM, MAX_TOKEN_LIFETIME, InvalidToken, TokenVerifier

__all__ = [
    "ALGORITHM",
    "API_KEY_PREFIX",
    "CSRF_HEADER",
    "MAX_TOKEN_LIFETIME",
    "SESSION_COOKIE",
    "SESSION_PREFIX",
    "TENANT_HEADER",
    "TENANT_PARAMETER",
    "Credential",
    "CredentialStore",
    "CsrfRefused",
    "Identifier",
    "Identity",
    "InvalidToken",
    "KeySet",
    "Principal",
    "PrincipalKind",
    "Scope",
    "ServiceTokens",
    "TokenVerifier",
    "csrf_token",
    "new_api_key",
    "new_session_secret",
    "secret_hash",
]
