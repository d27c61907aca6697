"""Issuers of tokens, good ones and wrong ones: the tenant service's, and an identity provider over HTTP."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.jwk import ECKey, KeyParameters, RSAKey
from secret_watch import watched

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
        head = {"alg": "ES256", "kid": self.kid, "typ": "JWT", **(header or {})}
        return watched(jwt.encode(head, payload, self._key))


Mode = Literal["ok", "down", "garbage", "slow", "huge", "redirect", "empty", "symmetric", "foreign"]


class IdentityProvider:
    """A company's issuer on a real port: discovery, keys that rotate, and every way in which it may fail."""

    def __init__(self, url: str, algorithm: str = "RS256") -> None:
        self.url = url
        self.algorithm = algorithm
        self.mode: Mode = "ok"
        self.requests: list[str] = []
        self.release = threading.Event()
        self._number = 0
        self.keys: list[RSAKey | ECKey] = []
        self.rotate()

    @property
    def key(self) -> RSAKey | ECKey:
        return self.keys[-1]

    def rotate(self, *, keep: bool = True) -> None:
        """A new key signs; the others stay published where they are kept."""
        self._number += 1
        parameters: KeyParameters = {"kid": f"key/{self._number}=", "use": "sig"}
        new = (
            RSAKey.generate_key(2048, parameters)
            if self.algorithm.startswith(("RS", "PS"))
            else ECKey.generate_key("P-256", parameters)
        )
        self.keys = [*self.keys, new] if keep else [new]

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": "my-api", "sub": "user-1", "iat": now, "exp": now + 3600, "org_id": "org-a",
            "permissions": ["docs:write"],
        }  # fmt: skip
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, *, header: Mapping[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        """A good token of the organisation `org-a`; a change to None leaves the claim out."""
        protected = {"alg": self.algorithm, "kid": self.key.kid, **(header or {})}
        return jwt.encode(protected, self.claims(**changes), key or self.key, [protected["alg"]])

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a GET."""
        self.requests.append(path)
        if self.mode == "down":
            return 503, {}, b""
        if self.mode == "slow":
            self.release.wait(10)
        if self.mode == "garbage":
            return 200, {}, b"<html>not JSON</html>"
        if self.mode == "redirect":
            return 302, {"Location": f"{self.url}/elsewhere"}, b""
        if path == "/.well-known/openid-configuration":
            issuer = "https://someone.else.example" if self.mode == "foreign" else self.url
            return 200, {}, json.dumps({"issuer": issuer, "jwks_uri": f"{self.url}/keys"}).encode()
        padding = "x" * (400_000 if self.mode == "huge" else 0)  # all that is wrong with it
        return 200, {}, json.dumps({"keys": self._published(), "padding": padding}).encode()

    def _published(self) -> list[dict[str, Any]]:
        if self.mode == "empty":
            return []
        if self.mode == "symmetric":
            return [{"kty": "oct", "kid": self.key.kid, "k": "c2VjcmV0"}]
        return [key.as_dict(private=False) for key in self.keys]


@contextmanager
def serve_identity_provider(algorithm: str = "RS256") -> Iterator[IdentityProvider]:
    """An identity provider that listens on a free port of this machine while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = provider.answer(self.path)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = IdentityProvider(f"http://127.0.0.1:{server.server_port}", algorithm)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        provider.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
