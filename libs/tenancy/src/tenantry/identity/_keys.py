"""The public keys that tokens are verified with."""

import re
from collections.abc import Mapping
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

_KID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class KeySet:
    """The issuer's current keys by `kid`. Empty until fed, and then nothing verifies."""

    def __init__(self, jwks: Mapping[str, Any] | None = None) -> None:
        self.version = 0
        self._keys: dict[str, ECKey] = {}
        if jwks is not None:
            self.replace(jwks)

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, jwks: Mapping[str, Any]) -> None:
        """Take in a whole JWKS document (RFC 7517, 5). A key that left it verifies nothing from now on.

        Only public P-256 signing keys with a plain `kid` are taken; others in the document are not for us.
        """
        keys = {}
        for jwk in jwks.get("keys", ()):
            key = _import(jwk)
            if key is not None:
                keys[jwk["kid"]] = key
        self._keys = keys
        self.version += 1

    def find(self, kid: object) -> ECKey | None:
        """The key with exactly this id; None for anything else, whatever its type."""
        return self._keys.get(kid) if isinstance(kid, str) else None


def _import(jwk: Mapping[str, Any]) -> ECKey | None:
    kid = jwk.get("kid")
    if (
        jwk.get("kty") != "EC"
        or jwk.get("crv") != "P-256"
        or jwk.get("use", "sig") != "sig"
        or jwk.get("alg", "ES256") != "ES256"
        or not isinstance(kid, str)
        or _KID.fullmatch(kid) is None
    ):
        return None
    try:
        # Only the public members: a private part that slipped into the document is never kept.
        return ECKey.import_key({"kty": "EC", "crv": "P-256", "kid": kid, "x": jwk["x"], "y": jwk["y"]})
    except (KeyError, ValueError, TypeError, JoseError):
        return None
