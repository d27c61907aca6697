"""A service's own tokens for calling other services (RFC 6749, 4.4)."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Final, Self

import httpx
import msgspec

from tenantry._clock import Clock, SystemClock
from tenantry._errors import Unavailable

# A token is renewed this long before its end, so that none expires on its way.
_RENEW_BEFORE: Final = timedelta(seconds=60)
_TIMEOUT_SECONDS: Final = 10.0


class _TokenResponse(msgspec.Struct):
    access_token: str
    expires_in: int


class ServiceTokens:
    """Fetches tokens by client credentials and keeps them until 60 seconds before their end, one an audience.

    Belongs to one event loop. `confirmation` is the thumbprint of the key that the tokens are to name (`cnf.jkt`).
    `client` is for tests; what is given is closed by `aclose` as well.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        client: httpx.AsyncClient | None = None,
        confirmation: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._token_url = token_url
        self._credentials = (client_id, client_secret)
        self._confirmation = confirmation
        self._client = client or httpx.AsyncClient(timeout=_TIMEOUT_SECONDS)
        self._clock = clock or SystemClock()
        self._tokens: dict[str, tuple[str, datetime]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def bearer(self, audience: str) -> str:
        """A token for `audience` that is good for another 60 seconds at least, where it lives that long.

        Callers at the same time share one request. Raises `Unavailable` where the tenant service does not give one.
        """
        token = self._fresh(audience)
        if token is not None:
            return token
        async with self._locks.setdefault(audience, asyncio.Lock()):
            return self._fresh(audience) or await self._fetch(audience)

    def forget(self, audience: str) -> None:
        """The next `bearer` fetches: for a token that was refused before its time."""
        self._tokens.pop(audience, None)

    def auth(self, audience: str) -> httpx.Auth:
        """Authentication for an `httpx.AsyncClient` that calls `audience`."""
        return _BearerAuth(self, audience)

    def _fresh(self, audience: str) -> str | None:
        known = self._tokens.get(audience)
        return known[0] if known is not None and known[1] > self._clock.now() else None

    async def _fetch(self, audience: str) -> str:
        client_id, client_secret = self._credentials
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
            "audience": audience,
        }
        if self._confirmation is not None:
            form["cnf_jkt"] = self._confirmation
        asked_at = self._clock.now()
        try:
            response = await self._client.post(self._token_url, data=form)
            response.raise_for_status()
            token = msgspec.json.decode(response.content, type=_TokenResponse)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise Unavailable(f"No token for {audience!r} could be had from the tenant service.") from error
        self._tokens[audience] = (
            token.access_token,
            asked_at + max(timedelta(seconds=token.expires_in) - _RENEW_BEFORE, timedelta(0)),
        )
        return token.access_token


class _BearerAuth(httpx.Auth):
    def __init__(self, tokens: ServiceTokens, audience: str) -> None:
        self._tokens = tokens
        self._audience = audience

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self._tokens.bearer(self._audience)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # Keys may have been rotated, or the service's credential renewed, while the token was kept.
            self._tokens.forget(self._audience)
            request.headers["Authorization"] = f"Bearer {await self._tokens.bearer(self._audience)}"
            yield request
