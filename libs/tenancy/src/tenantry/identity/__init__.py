"""Who makes a request, and for which tenant."""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.identity._principal import Principal, PrincipalKind, Scope

if TYPE_CHECKING:
    from tenantry.identity._claims import InvalidToken
    from tenantry.identity._context_tokens import CONTEXT_LIFETIME, ContextSigner, InvalidContext
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
    from tenantry.identity._external import ExternalVerifier
    from tenantry.identity._headers import API_KEY_HEADER, CONTEXT_HEADER, TENANT_HEADER
    from tenantry.identity._hosts import Hosts, UnknownHost
    from tenantry.identity._identify import (
        DEFAULT_SOURCES,
        CredentialConflict,
        CsrfRefused,
        Identifier,
        Identity,
        Source,
        Verifier,
    )
    from tenantry.identity._issuer_keys import IssuerKeyring, IssuerKeys, KeysUnknown, KeysUnusable
    from tenantry.identity._issuers import (
        LONGEST_ISSUED_LIFETIME,
        IssuerRegistry,
        ScopeClaim,
        StaticIssuers,
        TenantClaim,
        TrustedIssuer,
    )
    from tenantry.identity._key_use import KeyUse, told_by
    from tenantry.identity._keys import KeySet
    from tenantry.identity._resolver import Resolver
    from tenantry.identity._revocations import REVOCATION_PREFIX, TokenRevocation, TokenRevocations, holder_of
    from tenantry.identity._selectors import DEFAULT_SELECTORS, TENANT_PARAMETER, Selector
    from tenantry.identity._service_tokens import ServiceTokens
    from tenantry.identity._tokens import ALGORITHM, MAX_TOKEN_LIFETIME, TokenVerifier

__all__ = [
    "ALGORITHM",
    "API_KEY_HEADER",
    "API_KEY_PREFIX",
    "CONTEXT_HEADER",
    "CONTEXT_LIFETIME",
    "CSRF_HEADER",
    "DEFAULT_SELECTORS",
    "DEFAULT_SOURCES",
    "LONGEST_ISSUED_LIFETIME",
    "MAX_TOKEN_LIFETIME",
    "REVOCATION_PREFIX",
    "SESSION_COOKIE",
    "SESSION_PREFIX",
    "TENANT_HEADER",
    "TENANT_PARAMETER",
    "ContextSigner",
    "Credential",
    "CredentialConflict",
    "CredentialStore",
    "CsrfRefused",
    "ExternalVerifier",
    "Hosts",
    "Identifier",
    "Identity",
    "InvalidContext",
    "InvalidToken",
    "IssuerKeyring",
    "IssuerKeys",
    "IssuerRegistry",
    "KeySet",
    "KeyUse",
    "KeysUnknown",
    "KeysUnusable",
    "Principal",
    "PrincipalKind",
    "Resolver",
    "Scope",
    "ScopeClaim",
    "Selector",
    "ServiceTokens",
    "Source",
    "StaticIssuers",
    "TenantClaim",
    "TokenRevocation",
    "TokenRevocations",
    "TokenVerifier",
    "TrustedIssuer",
    "UnknownHost",
    "Verifier",
    "csrf_token",
    "holder_of",
    "new_api_key",
    "new_session_secret",
    "secret_hash",
    "told_by",
]

# The core of the library needs to know what a principal is; verifying one needs the extra `fastapi`.
__getattr__ = lazy_exports(
    __name__,
    {
        "_claims": ("InvalidToken",),
        "_context_tokens": (
            "CONTEXT_LIFETIME",
            "ContextSigner",
            "InvalidContext",
        ),
        "_credentials": (
            "API_KEY_PREFIX",
            "CSRF_HEADER",
            "SESSION_COOKIE",
            "SESSION_PREFIX",
            "Credential",
            "CredentialStore",
            "csrf_token",
            "new_api_key",
            "new_session_secret",
            "secret_hash",
        ),
        "_external": ("ExternalVerifier",),
        "_headers": (
            "API_KEY_HEADER",
            "CONTEXT_HEADER",
            "TENANT_HEADER",
        ),
        "_hosts": (
            "Hosts",
            "UnknownHost",
        ),
        "_identify": (
            "DEFAULT_SOURCES",
            "CredentialConflict",
            "CsrfRefused",
            "Identifier",
            "Identity",
            "Source",
            "Verifier",
        ),
        "_issuer_keys": (
            "IssuerKeyring",
            "IssuerKeys",
            "KeysUnknown",
            "KeysUnusable",
        ),
        "_issuers": (
            "LONGEST_ISSUED_LIFETIME",
            "IssuerRegistry",
            "ScopeClaim",
            "StaticIssuers",
            "TenantClaim",
            "TrustedIssuer",
        ),
        "_key_use": (
            "KeyUse",
            "told_by",
        ),
        "_keys": ("KeySet",),
        "_resolver": ("Resolver",),
        "_revocations": (
            "REVOCATION_PREFIX",
            "TokenRevocation",
            "TokenRevocations",
            "holder_of",
        ),
        "_selectors": (
            "DEFAULT_SELECTORS",
            "TENANT_PARAMETER",
            "Selector",
        ),
        "_service_tokens": ("ServiceTokens",),
        "_tokens": (
            "ALGORITHM",
            "MAX_TOKEN_LIFETIME",
            "TokenVerifier",
        ),
    },
)
