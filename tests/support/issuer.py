"""Stands in for the tenant service's `/oauth/token`: mints tokens, good ones and wrong ones."""

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.jwk import ECKey

ISSUER = "https://tenant.test"


class Issuer:
    """One signing key and the tokens that it signs."""

    def __init__(self, issuer: str = ISSUER, kid: str = "test-key") -> None:
        self.issuer = issuer
        self.kid = kid
        self._key = ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"})

    @property
    def jwks(self) -> dict[str, Any]:
        """The public half, as the tenant service publishes it."""
        return {"keys": [self._key.as_dict(private=False)]}

    def token(
        self,
        *,
        tenant_id: UUID | None = None,
        scope: str = "tenant:write",
        audience: str = "app",
        kind: str = "user",
        lifetime: int = 300,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        """A token; `claims` and `header` replace what would stand there, a claim of None is left out."""
        now = int(time.time())
        payload: dict[str, Any] = {
            "iss": self.issuer,
            "aud": audience,
            "sub": f"{kind}-under-test",
            "scope": scope,
            "kind": kind,
            "jti": str(uuid4()),
            "iat": min(now, now + lifetime - 1),
            "exp": now + lifetime,
            "tenant_id": None if tenant_id is None else str(tenant_id),
            **(claims or {}),
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": self.kid, "typ": "JWT", **(header or {})}, payload, self._key)
